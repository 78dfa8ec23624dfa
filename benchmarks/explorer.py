"""What looking at a large run costs: `python -m benchmarks.explorer`; benchmarks/explorer.json.

A results folder of 10,000 images x 256 tokens x 16,384 latents is made by the product's own
writers, served by `vista explore`'s server on the loopback, and looked at in a headless browser.
Each step is the page at an address; its requests are counted by the browser, and its bytes are
those that came over the connection.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OUT = Path(__file__).with_name("explorer.json")
LATENTS = "document.querySelectorAll('.layer .latent').length > 0"
TILES = "document.querySelectorAll('.tile img, .tile image').length > 0"
# What came since the last call: requests, bytes, and the time from the first to the last of them.
TAKEN = """
(() => {
  const all = performance.getEntriesByType("resource");
  performance.clearResourceTimings();
  const of = (part) => all.filter((entry) => entry.name.includes(part));
  const sum = (list) => list.reduce((bytes, entry) => bytes + entry.transferSize, 0);
  const start = Math.min(...all.map((entry) => entry.startTime));
  const end = Math.max(...all.map((entry) => entry.responseEnd));
  return {
    requests: all.length,
    bytes: sum(all),
    latents_bytes: sum(of("/latents.zarr/")),
    labels_bytes: sum(of("/labels.parquet")),
    ms: all.length ? Math.round(end - start) : 0,
  };
})()
"""
HEAP = "Math.round(performance.memory.usedJSHeapSize / 1e6)"


def measure(results: Path) -> dict[str, Any]:
    """Return what each step of looking at a results folder takes."""
    from tests.explore.browser import Browser
    from tests.explored_run import explored

    steps: dict[str, Any] = {}
    with explored(results) as client, tempfile.TemporaryDirectory() as profile:
        browser, address = Browser(Path(profile)), client.guard.address
        # Small, so that one layer is on screen: steps are of one image and layer.
        browser.resize(1400, 500)

        def step(name: str, hash_: str, ready: str) -> None:
            start = time.monotonic()
            browser.run(f"location.hash = {json.dumps(hash_)}")
            browser.wait(ready, seconds=120)
            shown = round(1000 * (time.monotonic() - start))
            browser.run("new Promise(done => setTimeout(done, 1500))")
            steps[name] = {"shown_ms": shown, **browser.run(TAKEN)}
            print(name, steps[name], file=sys.stderr)

        try:
            start = time.monotonic()
            browser.open(f"{address}#images?b=none")
            browser.wait(LATENTS, seconds=120)
            shown = round(1000 * (time.monotonic() - start))
            browser.run("new Promise(done => setTimeout(done, 1500))")
            steps["open the page, first latents"] = {"shown_ms": shown, **browser.run(TAKEN)}
            other = browser.run("document.querySelectorAll('.item .item-id')[5].textContent")
            step("another image", f"#images?b=none&image={other}", LATENTS)
            far = browser.run(
                "(() => { const list = document.querySelector('.list-body');"
                "list.scrollTop = list.scrollHeight / 2; return new Promise(done =>"
                "setTimeout(() => done(document.querySelectorAll('.item .item-id')[3].textContent)"
                ", 1500)) })()"
            )
            browser.run(TAKEN)
            step("an image far away", f"#images?b=none&image={far}", LATENTS)
            step("a latent: label, texts, top images", "#latent?layer=0&latent=100", TILES)
            step("another latent", "#latent?layer=0&latent=4000", TILES)
            step("back to the images", "#images?b=none", LATENTS)
            steps["heap after that, MB"] = browser.run(HEAP)
            for share in range(1, 41):
                browser.run(
                    "(() => { const list = document.querySelector('.list-body');"
                    f"list.scrollTop = list.scrollHeight * {share / 40}; return new Promise(done =>"
                    "setTimeout(done, 150)) })()"
                )
            steps["heap after scrolling through all images, MB"] = browser.run(HEAP)
            steps["items of the list in the page"] = browser.run(
                "document.querySelectorAll('.item').length"
            )
            steps["errors"] = browser.errors
        finally:
            browser.close()
    return steps


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

            make(results, Sizes(images=arguments.images))
        steps = measure(results)
    whole = {"machine": platform.machine(), "images": arguments.images, "steps": steps}
    OUT.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"Written: {OUT}", file=sys.stderr)


if __name__ == "__main__":
    main()
