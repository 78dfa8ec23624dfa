"""What looking at a large run costs: `python -m benchmarks.explorer`; benchmarks/explorer.json.

A results folder of 10,000 images x 256 tokens x 16,384 latents (L0 64, two layers, two points) is
made by the product's own writers, served by `vista explore`'s server on the loopback, and looked at
in a headless browser. Each step is the page at an address. The browser counts its requests; its
bytes are those that came over the connection; its time runs until what was asked for is drawn.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

OUT = Path(__file__).with_name("explorer.json")
LATENTS = "document.querySelector('.layer .latent') && !document.querySelector('.layer .stale')"
# What came since the last call, by kind; `layers` is how many layers of a store were read.
TAKEN = """
(() => {
  const all = performance.getEntriesByType("resource");
  performance.clearResourceTimings();
  const of = (part) => all.filter((entry) => entry.name.includes(part));
  const sum = (list) => list.reduce((bytes, entry) => bytes + entry.transferSize, 0);
  const layers = of("/latents.zarr/").map(({ name }) => /layer_[0-9]+/.exec(name)?.[0]);
  return {
    requests: all.length,
    bytes: sum(all),
    layers: new Set(layers.filter(Boolean)).size,
    latents_requests: of("/latents.zarr/").length,
    latents_bytes: sum(of("/latents.zarr/")),
    labels_bytes: sum(of("/labels.parquet")),
    pictures_bytes: sum([...of("/thumbs/"), ...of("/images/")]),
  };
})()
"""
HEAP = "Math.round(performance.memory.usedJSHeapSize / 1e6)"
QUIET = "new Promise(done => setTimeout(done, 1500))"
# Page sizes in px at which one layer is in sight, and two.
ONE_LAYER, TWO_LAYERS = (1400, 260), (1400, 900)


class Look:
    """Steps of looking at a page, and what each took."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.steps: dict[str, Any] = {}

    def open(self, name: str, address: str) -> None:
        """Load the page; the time is that since the browser began to load."""
        self.browser.open(address)
        self.browser.wait(LATENTS, seconds=120)
        self._note(name, round(self.browser.run("performance.now()")))

    def step(self, name: str, hash_: str, ready: str) -> None:
        """Change the address; the time runs until the first picture for which `ready` is true."""
        shown = self.browser.run(
            "new Promise((done) => { const start = performance.now();"
            f"location.hash = {json.dumps(hash_)};"
            f"const look = () => ({ready}) ? done(Math.round(performance.now() - start))"
            ": requestAnimationFrame(look); requestAnimationFrame(look); })"
        )
        self._note(name, shown)

    def _note(self, name: str, shown_ms: int) -> None:
        # What comes later belongs to the step as well.
        self.browser.run(QUIET)
        self.steps[name] = {"shown_ms": shown_ms, **self.browser.run(TAKEN)}
        print(name, self.steps[name], file=sys.stderr)

    def image(self, name: str, image_id: str) -> None:
        """Look at an image of one point."""
        here = f"document.querySelector('[aria-label=\"Image {image_id}\"]')"
        self.step(name, f"#images?b=none&image={image_id}", f"{here} && {LATENTS}")

    def latent(self, name: str, latent: int) -> None:
        """Look at a latent: its label, texts, histogram, top images and their heat maps."""
        ready = (
            f"document.querySelector('.tile a[href*=\"latent={latent}&\"] .heat')"
            " && document.querySelector('.one:not(.stale) .contexts li')"
            " && document.querySelector('.histogram svg')"
        )
        self.step(name, f"#latent?layer=0&latent={latent}", ready)

    def scrolled(self, share: float) -> list[str]:
        """Scroll the list to a share of its length; return the ids that are in it then."""
        ids: list[str] = self.browser.run(
            "(() => { const list = document.querySelector('.list-body');"
            f"list.scrollTop = list.scrollHeight * {share}; return new Promise(done =>"
            "setTimeout(() => done([...document.querySelectorAll('.item .item-id')]"
            ".map(({ textContent }) => textContent)), 150)) })()"
        )
        return ids


def look_at_images(look: Look, layers: str, share: float) -> None:
    """Look at an image a few places on, and at one at a share of the list: in another shard."""
    near = look.scrolled(0)[5]
    for name, image_id in (
        ("another image", near),
        ("an image of another shard", look.scrolled(share)[3]),
    ):
        look.browser.run(QUIET)
        look.browser.run(TAKEN)
        look.image(f"{name}, {layers}", image_id)


def measure(results: Path) -> dict[str, Any]:
    """Return what each step of looking at a results folder takes."""
    from tests.explore.browser import Browser
    from tests.explored_run import explored

    with explored(results) as client, tempfile.TemporaryDirectory() as profile:
        browser, address = Browser(Path(profile)), client.guard.address
        look = Look(browser)
        try:
            browser.resize(*TWO_LAYERS)
            look.open("open the page", f"{address}#images?b=none")
            look_at_images(look, "two layers", 0.4)
            look.latent("a latent, the first", 100)
            look.latent("another latent", 4000)
            look.latent("a latent that fires often", 10)
            look.step("back to the images", "#images?b=none", LATENTS)
            look.steps["heap after that, MB"] = browser.run(HEAP)
            for part in range(1, 41):
                look.scrolled(part / 40)
            look.steps["heap after scrolling through all images, MB"] = browser.run(HEAP)
            look.steps["items of the list in the page"] = browser.run(
                "document.querySelectorAll('.item').length"
            )
            # What has been in sight stays loaded, so the page is opened anew.
            browser.resize(*ONE_LAYER)
            browser.open(f"{address}#images?b=none")
            browser.wait(LATENTS, seconds=120)
            look_at_images(look, "one layer", 0.7)
            browser.resize(*TWO_LAYERS)
            browser.run(TAKEN)
            look.open("open the page, two points", f"{address}#images")
            look.steps["errors"] = browser.errors
        finally:
            browser.close()
    return look.steps


def main() -> None:
    """Make the results unless they are there, measure, write explorer.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, help="a folder that explorer_store made")
    parser.add_argument("--images", type=int, default=10_000, help="default %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = arguments.results or Path(scratch) / "results"
        if not results.is_dir():
            from benchmarks.explorer_store import Sizes, make

            make(results, Sizes(images=arguments.images, layers=2, weights=(0.0, 1.0)))
        steps = measure(results)
    whole = {"machine": platform.machine(), "images": arguments.images, "steps": steps}
    OUT.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"Written: {OUT}", file=sys.stderr)


if __name__ == "__main__":
    main()
