"""Pictures of every view: python -m tests.explore.screenshots RESULTS FOLDER [NAME ...]."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.explore.browser import Browser
from tests.explore.range_server import Site, serving

READY = "document.querySelector('.latent, .notice, .empty') !== null"
# Name: (hash, width, height, dark, what must be true before the picture is taken).
VIEWS: dict[str, tuple[str, int, int, bool, str]] = {
    "images": ("#images", 1400, 900, False, READY),
    "images-dark": ("#images", 1400, 900, True, READY),
    "images-patch": ("#images?patch=2,3", 1400, 900, False, READY),
    "images-medium": ("#images?patch=2,3", 900, 1000, False, READY),
    "images-narrow": ("#images", 360, 1400, False, READY),
    "images-4k": ("#images?patch=2,3", 3840, 2000, False, READY),
}


def main(results: Path, out: Path, names: list[str]) -> None:
    """Write OUT/NAME.png for each view, or for those that are named."""
    out.mkdir(parents=True, exist_ok=True)
    with serving(Site(results)) as address, tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        try:
            for name, (hash_, width, height, dark, ready) in VIEWS.items():
                if names and name not in names:
                    continue
                browser.resize(width, height)
                browser.dark(dark)
                browser.open(f"{address}{hash_}")
                browser.wait(ready)
                browser.run("new Promise(done => setTimeout(done, 600))")
                browser.picture(out / f"{name}.png")
                print(f"{name}.png", *browser.errors[:3])
                browser.errors.clear()
        finally:
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
