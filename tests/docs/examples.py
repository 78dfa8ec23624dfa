"""The examples in the docstrings of the library, run on the results of a run."""

from __future__ import annotations

import contextlib
import doctest
import importlib
from pathlib import Path

import vista

MODULES = (
    "vista.library.run",
    "vista.library.latents",
    "vista.readout.models",
    "vista.readout.seen",
)


def run_examples(results: Path, folder: Path) -> dict[str, doctest.TestResults]:
    """Run the examples of each module in an empty folder that gets these results.

    They may use `vista`, a `run`, its `readout` and the image cat.png.
    """
    (folder / "results").symlink_to(results.resolve())
    finder, found = doctest.DocTestFinder(exclude_empty=True), {}
    with contextlib.chdir(folder):
        run = vista.open("results")
        run.image(run.latents("dinov2", "gemma2").image_ids[0]).save("cat.png")
        readout = run.readout("dinov2", "gemma2", sae_weight=1)
        for name in MODULES:
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            names = {"vista": vista, "run": run, "readout": readout}
            for test in finder.find(importlib.import_module(name), name, globs=names):
                runner.run(test)
            found[name] = runner.summarize(verbose=False)
    return found
