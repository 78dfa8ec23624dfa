"""The page behind the real server: the address that is printed, and the live view."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the explorer's packages are not installed")

import torch

from tests.explore.browser import Browser
from tests.explore.planted import IDS
from tests.explored_run import Client, explored
from vista.errors import UserError
from vista.explore.live import Live
from vista.readout import LayerLatents


class Readout:
    """Stands in for the models of a run: what it was asked, and fixed answers."""

    def __init__(self) -> None:
        self.encoder = SimpleNamespace(grid=(4, 4), size=32, patch=8, pool=None)
        self.fit = "pad"
        self.llm = SimpleNamespace(model=torch.nn.Identity())
        self.asked: list[Any] = []
        self.seconds = 0.0

    def visual_tokens(self, images: Any) -> Any:
        self.asked.append(images[0].size)
        return images

    def latents(self, images: Any) -> Any:
        index = np.tile(np.array([[5, 1]]), (16, 1))
        value = np.tile(np.array([[2.5, 0.5]], np.float32), (16, 1))
        ones = np.ones(16, np.float32)
        return [{1: LayerLatents(index, value, np.full(16, 2), ones, ones)}]

    def captions(self, image: Any, question: str, edits: Any, max_new_tokens: int) -> list[str]:
        self.asked += [edit for edit in edits if edit is not None]
        for _ in range(int(self.seconds / 0.01)):
            time.sleep(0.01)
            self.llm.model(torch.zeros(1))
        return ["<b>before</b>", "after", "along random"][: len(edits)]


@pytest.fixture
def readout(monkeypatch: pytest.MonkeyPatch) -> Readout:
    made = Readout()
    monkeypatch.setattr(
        "vista.explore.live.Live",
        lambda results: Live(results, lambda folder: made),  # type: ignore[arg-type, return-value]
    )
    return made


@pytest.fixture
def served(planted: Path, readout: Readout) -> Iterator[Client]:
    with explored(planted) as client:
        yield client


def opened(browser: Browser, client: Client, hash_: str, ready: str) -> None:
    browser.open(f"{client.guard.address}{hash_}")
    browser.wait(ready)


def test_the_printed_address_opens_the_page(browser: Browser, served: Client) -> None:
    opened(browser, served, "", "document.querySelectorAll('.latent').length >= 8")
    # The token is gone from the address.
    assert browser.run("location.search") == ""
    assert browser.errors == []
    own = f"http://127.0.0.1:{served.port}/"
    assert browser.requests and all(url.startswith(own) for url in browser.requests)


LATENTS = "document.querySelectorAll('.live .latent').length > 0"
ANSWERED = "document.querySelector('.captioning dl, .captioning .notice') !== null"


def test_a_latent_is_edited_at_marked_patches(
    browser: Browser, served: Client, readout: Readout
) -> None:
    opened(browser, served, "#live", LATENTS)
    browser.click(".live .stage", 0.5, 0.5)
    assert browser.text(".live").count("1 of 16 patches are edited") == 1
    browser.click(".live .latent button")
    browser.click(".captioning button[type=submit]")
    browser.wait(ANSWERED)
    answer = browser.text(".captioning dl")
    # A caption is text, never HTML.
    assert "<b>before</b>" in answer and "after" in answer and "along random" in answer
    edit, control = readout.asked
    assert (edit.change, edit.strength, len(edit.patches)) == ("add", 4, 1)
    assert control.random and (control.layer, control.latent) == (edit.layer, edit.latent)
    assert browser.errors == []


DROP = """
(async () => {
  const canvas = new OffscreenCanvas(40, 20);
  canvas.getContext("2d").fillRect(0, 0, 40, 20);
  const file = new File([await canvas.convertToBlob()], "dropped.png", { type: "image/png" });
  const data = new DataTransfer();
  data.items.add(file);
  const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true });
  document.querySelector(".drop").dispatchEvent(drop);
})()
"""


def test_a_dropped_image_is_read_by_the_models(
    browser: Browser, served: Client, readout: Readout
) -> None:
    opened(browser, served, "#live", LATENTS)
    browser.run(DROP)
    browser.wait("document.querySelector('.live .stage image')?.href.baseVal.startsWith('blob:')")
    assert readout.asked == [(40, 20)]
    assert browser.run("document.querySelectorAll('.live .latent').length") == 2
    browser.wait("document.querySelector('.live .stage image').getBBox().width > 0")
    assert browser.errors == []


def test_a_caption_can_be_cancelled(browser: Browser, served: Client, readout: Readout) -> None:
    opened(browser, served, "#live", LATENTS)
    readout.seconds = 600
    browser.click(".captioning button[type=submit]")
    browser.wait("document.querySelector('.captioning .fields .link') !== null")
    browser.click(".captioning .fields .link")
    readout.seconds = 0
    browser.click(".captioning button[type=submit]")
    browser.wait(ANSWERED)
    assert "before" in browser.text(".captioning dl")


def test_a_refusal_is_a_sentence(browser: Browser, served: Client, readout: Readout) -> None:
    opened(browser, served, f"#live?image={IDS[1].replace(' ', '+')}", LATENTS)

    def refuse(*_: Any) -> list[str]:
        raise UserError("blocks [9]: the model has 0..3")

    readout.captions = refuse  # type: ignore[method-assign]
    browser.click(".captioning button[type=submit]")
    browser.wait(ANSWERED)
    assert "blocks [9]: the model has 0..3." in browser.text(".captioning .notice")
