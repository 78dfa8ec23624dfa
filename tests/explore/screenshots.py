"""Pictures of every view: python -m tests.explore.screenshots RESULTS FOLDER [NAME ...]."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.explore.browser import Browser
from tests.explored_run import explored

READY = "document.querySelector('.latent, .notice, .empty') !== null"
TILES = "document.querySelector('.one .tiles, .one .quiet, .notice') !== null"
# Every top image is loaded: the browser notes what has come.
LOADED = (
    f"{TILES} && performance.getEntriesByType('resource')"
    ".filter(e => e.name.includes('/images/')).length >= "
    "document.querySelectorAll('.tile').length"
)
# Name: (hash, width, height, dark, what must be true before the picture is taken).
VIEWS: dict[str, tuple[str, int, int, bool, str]] = {
    "images": ("#images", 1400, 900, False, READY),
    "images-dark": ("#images", 1400, 900, True, READY),
    "images-patch": ("#images?patch=2,3", 1400, 900, False, READY),
    # Of config/default.yaml, for docs/explorer.md.
    "explorer-images": (
        "#images?a=dinov2-gemma2-w0-s0&b=dinov2-gemma2-w1-s0&image=3306&patch=2,3",
        1400,
        900,
        False,
        READY,
    ),
    "explorer-latent": (
        "#latent?a=dinov2-gemma2-w1-s0&layer=1&latent=61&q=glasses",
        1400,
        900,
        False,
        TILES,
    ),
    "images-medium": ("#images?patch=2,3", 900, 1000, False, READY),
    "images-narrow": ("#images", 360, 1400, False, READY),
    "images-latent": ("#images?patch=1,1&layer=1&latent=381", 1400, 900, False, READY),
    "latent": ("#latent?layer=1&latent=61&q=re", 1400, 900, False, TILES),
    "latent-dark": ("#latent?layer=1&latent=61&q=re", 1400, 900, True, TILES),
    "latent-narrow": ("#latent?layer=0&latent=30&q=re", 360, 1400, False, TILES),
    # Of config/dictionaries.yaml, for docs/explorer.md.
    "explorer-vision": ("#vision?sae=dinov2-topk8", 1400, 900, False, LOADED),
    # Of config/probing.yaml: labels by steering, class tokens.
    "vision-steering": ("#vision?sae=dinov2-topk&by=density", 1400, 900, False, LOADED),
    "vision-class": ("#vision?sae=dinov2_class-topk&by=density", 1400, 900, True, LOADED),
    "vision-narrow": ("#vision", 360, 1400, False, TILES),
    "metrics": (
        "#metrics?f_metric=matching_rate&f_set=none",
        1400,
        900,
        False,
        "document.querySelector('.tr, .notice, .empty')",
    ),
    "metrics-all": ("#metrics", 1400, 900, True, "document.querySelector('.tr, .notice, .empty')"),
    "metrics-narrow": (
        "#metrics?f_metric=fvu",
        360,
        1000,
        False,
        "document.querySelector('.tr, .notice, .empty')",
    ),
    "figures": (
        "#metrics?show=figures",
        1400,
        900,
        False,
        "document.querySelector('.pictures img, .notice, .empty')",
    ),
    "edits": ("#edits", 1400, 900, False, "document.querySelector('.edit, .notice, .empty')"),
    "edits-narrow": ("#edits", 360, 1200, True, "document.querySelector('.edit, .notice, .empty')"),
    "live": (
        "#live?image=3306",
        1400,
        900,
        False,
        "document.querySelector('.live .latent, .notice, .empty') !== null",
    ),
    "images-4k": ("#images?patch=2,3", 3840, 2000, False, READY),
}


def main(results: Path, out: Path, names: list[str]) -> None:
    """Write OUT/NAME.png for each view, or for those that are named."""
    out.mkdir(parents=True, exist_ok=True)
    with explored(results) as client, tempfile.TemporaryDirectory() as profile:
        browser, address = Browser(Path(profile)), client.guard.address
        try:
            for name, (hash_, width, height, dark, ready) in VIEWS.items():
                if names and name not in names:
                    continue
                browser.resize(width, height)
                browser.dark(dark)
                browser.open(f"{address}{hash_}")
                browser.wait(ready)
                # Chromium paints images some time after they have come.
                browser.run("new Promise(done => setTimeout(done, 2500))")
                browser.picture(out / f"{name}.png")
                print(f"{name}.png", *browser.errors[:3])
                browser.errors.clear()
        finally:
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
