"""The page behind the real server: the address that is printed, and the live view."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the explorer's packages are not installed")

import torch

from tests.explore.browser import CONTROLS, Browser
from tests.explore.conftest import Read
from tests.explore.planted import IDS, write_label_table, write_store
from tests.explored_run import Client, explored
from tests.published import publish
from vista.engine.artifacts import open_artifact
from vista.engine.lineage import parents_of, read_manifest
from vista.errors import UserError
from vista.explore.live import Live
from vista.readout import LayerLatents


class Readout:
    """Stands in for the models of a run: what it was asked, and fixed answers."""

    def __init__(self) -> None:
        self.encoder = SimpleNamespace(grid=(4, 4), size=32, patch=8, pool=None, per_patch=1)
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


POINT = "dinov2-gemma2-w1-s0-0123456789"


def test_a_request_is_told_how_many_are_before_it(
    read: Read, served: Client, readout: Readout
) -> None:
    readout.seconds = 1.5
    task = {"folder": POINT, "image": IDS[1], "cookie": served.enter().cookie}
    (told,) = read(f"http://127.0.0.1:{served.port}/", {"task": "twoAtOnce", **task})
    first, second = sorted(told)
    assert set(first) == {0} and second[:2] == [0, 1]


def test_the_page_says_how_many_are_before_a_request(
    browser: Browser, served: Client, readout: Readout
) -> None:
    opened(browser, served, "#live", LATENTS)
    readout.seconds = 3
    body = json.dumps({"latents": POINT, "image": IDS[1]})
    browser.run(f"void fetch('./live/captions', {{ method: 'POST', body: {json.dumps(body)} }})")
    browser.click(".captioning button[type=submit]")
    browser.wait("document.querySelector('.captioning').innerText.includes('; 1 before yours …')")
    browser.run(DROP)
    browser.wait("document.querySelector('.live [role=status]').innerText.includes('1 before')")
    browser.wait("document.querySelector('.live .stage image')?.href.baseVal.startsWith('blob:')")
    assert browser.errors == []


def test_a_class_token_has_no_patches_to_choose(
    browser: Browser, served: Client, readout: Readout
) -> None:
    opened(browser, served, "#live?a=dinov2_class-gemma2-w1-s0", LATENTS)
    assert browser.text(".live .panel h2") == "The image's class token"
    assert "patch" not in browser.text(".live").lower()
    assert browser.run("document.querySelector('.live .stage').getAttribute('role')") == "img"
    browser.click(".live .stage", 0.5, 0.5)
    browser.click(".live .latent button")
    assert browser.run("document.querySelector('.stage .patch, .heat, .heat-frame')") is None
    browser.click(".captioning button[type=submit]")
    browser.wait(ANSWERED)
    assert [edit.patches for edit in readout.asked] == [(0,), (0,)]
    assert browser.errors == []


def test_a_refusal_is_a_sentence(browser: Browser, served: Client, readout: Readout) -> None:
    opened(browser, served, f"#live?image={IDS[1].replace(' ', '+')}", LATENTS)

    def refuse(*_: Any) -> list[str]:
        raise UserError("blocks [9]: the model has 0..3")

    readout.captions = refuse  # type: ignore[method-assign]
    browser.click(".captioning button[type=submit]")
    browser.wait(ANSWERED)
    assert "blocks [9]: the model has 0..3." in browser.text(".captioning .notice")


NEWS = "document.querySelector('.news [role=status]').textContent"
LOOK = "window.dispatchEvent(new Event('focus'))"
STATUS = (
    "performance.getEntriesByType('resource').filter(e => e.name.endsWith('/catalogue.json'))"
    ".map(e => e.responseStatus)"
)


def test_the_page_follows_a_run_that_goes_on(
    browser: Browser, results: Path, tmp_path: Path
) -> None:
    labels = "label_latents/gemma2-l1-0123456789"
    late = [labels, "report/planted-0123456789"]
    for path in late:
        (results / path).rename(tmp_path / path.partition("/")[0])
    browser.resize(1400, 500)
    with explored(results) as client:
        opened(browser, client, "#latent?layer=1&latent=5", "document.querySelector('.tile image')")
        browser.run("document.getElementById('filter').focus()")
        scrolled = "document.querySelector('.one').scrollTop"
        browser.wait(f"({scrolled} = 40) && {scrolled} === 40")
        place = browser.run("location.hash")
        assert "this SAE is not labelled" in browser.text(".numbers")
        assert "there is no report yet" in browser.text(".notes")
        browser.wait("document.querySelectorAll('.neighbours a').length === 8")
        path = "/neighbours/import_sae/gemma2-l1-0123456789/5"
        assert sum(url.endswith(path) for url in browser.requests) == 1
        browser.run(LOOK)
        browser.wait(f"({STATUS}).length === 2")
        browser.run(LOOK)
        browser.wait(f"({STATUS}).at(-1) === 304")
        assert browser.run(NEWS) == ""
        for path in late:
            (tmp_path / path.partition("/")[0]).rename(results / path)
        browser.run(LOOK)
        browser.wait(f"{NEWS} === '2 artifacts are new.'")
        browser.wait("document.querySelector('.one h2').textContent === 'kätzchen'")
        browser.wait("document.querySelector('.contexts mark') !== null")
        assert labels in browser.text(".numbers") and browser.text(".notes") == ""
        # What was there is as it was.
        assert browser.run("location.hash") == place
        assert browser.run("document.activeElement.id") == "filter"
        assert browser.run(scrolled) == 40
        browser.click(".news button")
        browser.wait(f"{NEWS} === ''")
        make_again(results, labels)
        browser.run(LOOK)
        browser.wait(f"{NEWS} === '1 artifact was made again or removed.'")
        browser.wait("document.querySelector('.one h2').textContent === 'another'")
        assert browser.run("location.hash") == place
    browser.run(LOOK)  # the server has ended: nothing is said
    assert [text for text in browser.errors if "Failed to load resource" not in text] == []


def make_again(results: Path, labels: str) -> None:
    """Put other labels of the same SAE in the place of some."""
    shutil.rmtree(results / labels)
    sae = open_artifact(results / labels.replace("label_latents", "import_sae"))
    publish(results, labels, lambda work: write_label_table(work, 1, ("another",)), sae=sae)


def test_points_stay_when_others_are_finished(
    browser: Browser, results: Path, tmp_path: Path
) -> None:
    weight_0 = results / "latents/dinov2-gemma2-w0-s0-0123456789"
    weight_0.rename(tmp_path / "later")
    chosen = "document.querySelector('.point select').value"
    with explored(results) as client:
        opened(browser, client, "", "document.querySelectorAll('.latent').length >= 8")
        before = browser.run(chosen)
        (tmp_path / "later").rename(weight_0)
        browser.run(LOOK)
        browser.wait("document.querySelectorAll('.point option').length > 5")
        assert browser.run(chosen) == before == "clip-gemma2-w1-s0"
        # Latents that were made again are read again.
        numbers = "document.querySelector('#layer-1 .side .latents').innerText"
        shown = browser.run(numbers)
        clip = results / "latents/clip-gemma2-w1-s0-0123456789"
        manifest = read_manifest(clip)
        assert manifest is not None
        shutil.rmtree(clip)
        parents = {
            role: made if role == "saes" else made[0]
            for role, paths in parents_of(manifest).items()
            for made in [[open_artifact(results / path) for path in paths]]
        }
        publish(
            results, f"latents/{clip.name}", lambda work: write_store(work, 9, (3, 3)), **parents
        )
        browser.run(LOOK)
        browser.wait(f"{numbers} !== {json.dumps(shown)}")
        assert browser.run(chosen) == before


def test_the_live_view_by_keyboard_and_for_a_screen_reader(
    browser: Browser, served: Client, readout: Readout
) -> None:
    opened(browser, served, "#live", LATENTS)
    said = (
        "[...document.querySelectorAll('[role=status], [aria-live=polite]')].map(e => e.innerText)"
    )
    assert f"The latents of {IDS[0]} are there." in browser.run(said)
    named = browser.names(CONTROLS)
    assert len(named) > 12 and [role for role, name in named if not name] == []
    assert {("button", "Caption"), ("button", "Edit all patches"), ("spinbutton", "strength")} <= {
        *named
    }
    browser.run("document.querySelector('.live .stage').focus()")
    browser.press("ArrowRight", "Enter")
    browser.wait("document.querySelector('.live').innerText.includes('1 of 16 patches are edited')")
    browser.run("document.querySelector('.live .latent button').focus()")
    browser.press("Enter")
    readout.seconds = 600
    browser.run("document.querySelector('.captioning [type=submit]').focus()")
    browser.press("Enter")
    browser.wait("document.querySelector('.captioning [aria-live]').innerText.includes('waiting')")
    assert ("button", "Cancel the caption") in browser.names(CONTROLS)
    focus = "document.activeElement.innerText"
    assert browser.run(focus) == "Caption"
    browser.press("Enter")  # one request at a time
    browser.press("Tab")
    assert browser.run(focus) == "cancel"
    readout.seconds = 0
    browser.press("Enter")
    browser.wait("document.querySelector('.captioning .fields .link') === null")
    assert browser.run(focus) == "Caption"
    browser.press("Enter")
    browser.wait("document.querySelector('.captioning [aria-live] dl') !== null")
    assert browser.run(focus) == "Caption"
    # The button that takes the dropped image away goes with it; the focus does not.
    browser.run(DROP)
    browser.wait(f"{said}.includes('The latents of dropped.png are there.')")
    browser.run("document.querySelector('.drop button').focus()")
    browser.press("Enter")
    browser.wait(f"{said}.includes('The latents of {IDS[0]} are there.')")
    assert browser.run("document.activeElement.type") == "file"
    assert browser.errors == []
