"""Vision SAEs on the built page, and images of which no latents are stored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.explore.browser import Browser
from tests.explore.conftest import ANSWER, Show, sentence
from tests.explore.planted import (
    CAPTION,
    HOSTILE,
    IDS,
    PLACING,
    TRAIN,
    VISION_SAES,
    WORDS,
    top_rows,
)
from tests.explore.range_server import Site, serving
from vista.explore.decoders import Decoder

FIRST = "document.querySelectorAll('.latent').length > 0"
TILES = "document.querySelectorAll('.tile image').length === 3"


def patches_of(latent: int) -> list[int]:
    """Return the patches of a latent's top images, of the SAE on patches."""
    columns = top_rows(VISION_SAES["dinov2"], 16)
    pairs = zip(columns["latent"], columns["patch"], strict=True)
    return [patch for other, patch in pairs if other == latent]


def frames(browser: Browser) -> list[dict[str, float]]:
    """Return where each top image has its mark, px of the model's input."""
    boxes: list[dict[str, float]] = browser.run(
        "[...document.querySelectorAll('.tile .patch')].map(e => Object.fromEntries("
        "['x', 'y', 'width', 'height'].map(name => [name, Number(e.getAttribute(name))])))"
    )
    return boxes


def texts(browser: Browser, selector: str) -> list[str]:
    found: list[str] = browser.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
    )
    return found


def test_the_top_images_of_a_latent(browser: Browser, show: Show) -> None:
    show("#vision?sae=dinov2-topk&number=7", TILES)
    assert browser.text(".one h2") == "dog"
    facts = browser.text(".numbers")
    assert "label_vision_latents/dinov2-topk-0123456789" in facts
    assert "in 23.3 % of its top images" in facts and "25 % of 48 patches" in facts
    patches, side = patches_of(7), PLACING["dinov2"]["patch"]
    assert frames(browser) == [
        {"x": p % 4 * side, "y": p // 4 * side, "width": side, "height": side} for p in patches
    ]
    assert texts(browser, ".tile-text")[0] == "3 dog"
    # A class is text.
    assert texts(browser, ".tile-text")[2] == f"2 {HOSTILE}"
    assert texts(browser, ".tile-text")[4] == "1 no class"
    row, column = divmod(patches[1], 4)
    assert f"{TRAIN[1]} · patch {row},{column}" in texts(browser, ".tile-text")[3]


def test_a_top_image_leads_to_the_image(browser: Browser, show: Show) -> None:
    show("#vision?sae=dinov2-topk&number=7", TILES)
    browser.run("document.querySelectorAll('.tile a')[1].click()")
    browser.wait("document.querySelector('.stage image') !== null")
    # Latents of test images are stored, and this is one to train on.
    assert "No latents of this image are stored: it is of the split train" in browser.text(".panel")
    assert browser.text(".about dd").startswith(f"{TRAIN[1]} train")
    assert "a=dinov2-gemma2-w0-s0" in browser.run("location.hash")
    place = "{},{}".format(*divmod(patches_of(7)[1], 4))
    assert browser.text(".panel h2") == f"Patch {place}"
    # Back in the view, the latent is still chosen.
    browser.press("3")
    browser.wait("document.querySelector('.one')?.textContent.includes('latent 7 ')")


@pytest.mark.parametrize("address", ["export"], indirect=True)
def test_a_latent_leads_to_its_neighbours(browser: Browser, show: Show, planted: Path) -> None:
    show(
        "#vision?sae=dinov2-topk&number=7",
        "document.querySelectorAll('.neighbours a').length === 8",
    )
    sae = planted / "train_vision_sae/dinov2-topk-0123456789/sae.safetensors"
    nearest = Decoder(sae).nearest(7, 8).of(0)
    for line, (latent, cosine) in zip(texts(browser, ".neighbours li"), nearest, strict=True):
        label = WORDS[latent % len(WORDS)] or "unlabelled"
        assert line == f"{label} {latent} {cosine:.3g}"
    browser.run("document.querySelector('.neighbours a').click()")
    browser.wait(f"location.hash.includes('number={nearest[0][0]}')")


def test_a_class_token_has_no_patch(browser: Browser, show: Show) -> None:
    show("#vision?sae=dinov2_class-topk&number=7", TILES)
    assert "stand for the whole image: no patch is marked" in browser.text(".one")
    assert "25 % of 3 class tokens, one an image" in browser.text(".numbers")
    assert frames(browser) == [{"x": 0, "y": 0, "width": 32, "height": 32}] * 3
    assert not any("patch" in text for text in texts(browser, ".tile-text"))
    links = browser.run("[...document.querySelectorAll('.tile a')].map(e => e.hash)")
    assert not any("patch=" in link for link in links)


def test_prompts_in_the_place_of_images(browser: Browser, show: Show) -> None:
    show(
        "#vision?sae=one_object-text_encoder&number=3",
        "document.querySelector('.tile p')?.textContent.includes('prompt')",
    )
    assert "Top prompts" in browser.text(".one") and "of 15 words" in browser.text(".numbers")
    assert texts(browser, ".tile p:first-of-type")[0] == f"prompt {CAPTION}"
    assert browser.run("document.querySelector('.tile a, .tile image') === null")


def test_the_list_of_latents_by_keys_and_by_search(browser: Browser, show: Show) -> None:
    ready = "document.querySelectorAll('.item').length > 5"
    show("#vision?sae=dinov2-topk", ready)
    assert "30 latents, 25 labelled" in browser.text(".search-head")
    # By score, the labelled ones first.
    first = texts(browser, ".item .muted")[:2]
    assert first == ["29 · fires on 25 % · score 0.967", "28 · fires on 25 % · score 0.933"]
    browser.press("j")
    browser.wait("location.hash.includes('number=28')")
    browser.press("j", "k", "k")
    browser.wait("location.hash.includes('number=29')")
    browser.press("/")
    browser.wait("document.activeElement.id === 'filter'")
    browser.type("<IMG")
    browser.wait("document.querySelector('.search [role=status]').textContent.startsWith('5 of')")
    assert set(texts(browser, ".item-id")) == {HOSTILE}
    browser.run("document.querySelector('.item').click()")
    browser.wait(f"document.querySelector('.one h2').textContent === {json.dumps(HOSTILE)}")
    assert browser.run("document.querySelector('[onerror], main script') === null")
    show("#vision?sae=dinov2-topk&by=number&number=4", ready)
    assert texts(browser, ".item .muted")[4] == "4 · silent · score 0.133"
    browser.wait("document.querySelector('.one').textContent.includes('It fires at no image')")
    show("#vision?sae=dinov2-topk&number=30", ANSWER)
    assert "This SAE has no latent 30: it has 0 to 29." in browser.text("main")


def test_labels_by_steering(browser: Browser, show: Show) -> None:
    show("#vision?sae=dinov2-topk&number=2", TILES)
    browser.wait("document.querySelector('.numbers').textContent.includes('steering')")
    facts = browser.text(".numbers")
    assert "steered" in facts and "gain 0.5 nats" in facts and f"an answer {HOSTILE}" in facts
    folder = "label_by_steering/dinov2-gemma2-w1-s0-topk-0123456789"
    show(f"#vision?sae=dinov2-topk&labels={quote(folder)}&q=steer", TILES)
    browser.wait("document.querySelectorAll('.item').length === 1")
    assert texts(browser, ".item-id") == ["steered"]
    # The other SAE was not steered.
    show("#vision?sae=dinov2_class-topk", TILES)
    assert "labels from" not in browser.text(".search-head")


def test_a_table_of_top_images_that_is_damaged(browser: Browser, results: Path) -> None:
    path = results / "label_vision_latents/dinov2-topk-0123456789/top.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(200) + content[204:])
    text = sentence(browser, Site(results), "#vision?sae=dinov2-topk&number=7")
    assert "top.parquet is damaged" in text and "of its top images" in text


@pytest.mark.parametrize("kept", [("records",), ("records", "features", "label_vision_latents")])
def test_images_of_a_run_without_latents(
    browser: Browser, results: Path, kept: tuple[str, ...]
) -> None:
    for folder in results.iterdir():
        if folder.is_dir() and folder.name not in kept:
            shutil.rmtree(folder)
    with serving(Site(results)) as url:
        browser.open(f"{url}#images?image={quote(IDS[3])}")
        browser.wait("document.querySelector('.whole')?.naturalWidth > 0")
        assert "its images alone are shown" in browser.text("main")
        assert browser.text(".item.on .item-id") == IDS[3]
        assert browser.run("document.querySelector('.points') === null")
        views = texts(browser, "nav a")
        assert ("Vision SAEs" in views) is (len(kept) > 1)
        if len(kept) > 1:
            browser.open(f"{url}#vision?sae=dinov2-topk&number=7")
            browser.wait(TILES)
            browser.run("document.querySelectorAll('.tile a')[2].click()")
            browser.wait(
                f"document.querySelector('.item.on .item-id')?.textContent === '{TRAIN[2]}'"
            )
    assert browser.errors == []


def test_a_point_of_class_tokens(browser: Browser, show: Show) -> None:
    """A heat map would hide the image of a single token: it is framed."""
    show("#images?a=dinov2_class-gemma2-w1-s0&b=none&layer=1&latent=2&patch=0,0", FIRST)
    assert browser.text(".panel h2") == "Whole image"
    assert "one token for the image" in browser.text(".about")
    assert texts(browser, ".switches label") == [" boxes", " masks"]
    assert browser.run("document.querySelectorAll('.heat rect, .grid-line').length") == 0
    assert browser.run("document.querySelector('.stage').getAttribute('role')") == "img"
