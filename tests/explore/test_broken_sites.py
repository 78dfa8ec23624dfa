"""The built page in Chromium on what is damaged, half done, or served badly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.explore.browser import Browser
from tests.explore.conftest import sentence
from tests.explore.planted import LAYERS
from tests.explore.range_server import Site

POINT = "latents/dinov2-gemma2-w0-s0-0123456789"
FIRST = "document.querySelectorAll('.latent').length >= 8"


def test_a_damaged_shard_is_named_and_the_rest_is_shown(browser: Browser, results: Path) -> None:
    shard = results / POINT / "latents.zarr/layer_01/image/value/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[30] ^= 1
    shard.write_bytes(content)
    text = sentence(browser, Site(results), "#images", "document.querySelector('#layer-1 .notice')")
    assert "layer_01/image/value is damaged (a checksum differs): rebuild this artifact." in text
    browser.wait("true")
    assert "dinov2 · gemma2 · weight 1" in text


def test_missing_labels_are_said(browser: Browser, results: Path) -> None:
    for layer in LAYERS:
        shutil.rmtree(results / f"label_latents/gemma2-l{layer}-0123456789")
    text = sentence(browser, Site(results), "#images", FIRST)
    assert "this SAE is not labelled" in text
    ready = "document.body.innerText.includes('No SAE of this point is labelled.')"
    sentence(browser, Site(results), "#latent", ready)


@pytest.mark.parametrize(
    ("stages", "hash_", "says"),
    [
        ((), "", "This folder has no finished artifact yet. Run snakemake"),
        (("records",), "", "This run has no latents yet"),
        (("records",), "#vision", "This run has no vision SAE"),
        (("train_vision_sae",), "#vision", "SAEs are not labelled yet: dinov2-topk, dinov2_class-"),
        (("label_vision_latents",), "#vision", "its records are not in these results"),
        (("records",), "#metrics", "No metric of this run is finished yet."),
        (("records",), "#edits", "This run has no edited captions"),
        (("latents", "records"), "", "its features are not in these results"),
        (("latents",), "", "its records are not in these results"),
    ],
)
def test_a_run_half_done(
    browser: Browser, results: Path, stages: tuple[str, ...], hash_: str, says: str
) -> None:
    for folder in results.iterdir():
        if folder.is_dir() and folder.name not in stages:
            shutil.rmtree(folder)
    text = sentence(browser, Site(results), hash_)
    assert says in text
    if stages:
        assert "This run is not finished: there is no report yet." in text


def test_other_broken_sites(browser: Browser, planted: Path) -> None:
    site = Site(planted)
    site.gone = {"/catalogue.json"}
    assert "There is no catalogue.json: the folder has no run yet." in sentence(browser, site)
    site = Site(planted)
    site.ranges = False
    assert "This server does not send byte ranges" in sentence(browser, site)
    site = Site(planted)
    site.gone = {"/app.js"}
    text = sentence(browser, site, ready="document.querySelector('.too-old') !== null")
    assert "a browser of 2022 or later" in text
