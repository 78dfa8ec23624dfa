"""The tutorials: docs/tutorials/NAME.py, plain Python in the percent format of notebooks.

    python -m tests.docs.tutorials RESULTS [NAME...]

runs them on the results of a run, which are only read, and writes what the site shows beside them:
the page NAME.md with outputs, its pictures NAME-N.png, and the notebook NAME.ipynb.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nbformat
import pandas as pd
from nbformat import v4
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tutorials"
NAMES = (
    "read-a-run",
    "your-own-images",
    "your-own-encoder",
    "compare-weights",
    "steer-an-object",
    "sweep-on-slurm",
)
_CHECKOUT = ("Snakefile", "workflow", "config")


class Cell(NamedTuple):
    """A cell of a tutorial: text in Markdown, or Python."""

    kind: Literal["markdown", "code"]
    source: str


class Output(NamedTuple):
    """What a cell of Python printed, and its last value as text or as a PNG."""

    printed: str
    text: str | None
    png: bytes | None


def cells_of(source: str) -> list[Cell]:
    """Return the cells of a file in percent format."""
    cells = []
    for block in re.split(r"^# %%", source, flags=re.MULTILINE)[1:]:
        head, _, body = block.partition("\n")
        if head.strip() == "[markdown]":
            lines = (line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
            cells.append(Cell("markdown", "\n".join(lines).strip()))
        else:
            cells.append(Cell("code", body.strip()))
    return cells


def execute(cells: Sequence[Cell], results: Path, folder: Path) -> list[Output | None]:
    """Run cells in a folder that is made to look like a checkout with these results.

    Args:
        cells: The cells, run in their order as one program.
        results: The results folder; nothing is written there.
        folder: An empty folder, the working directory while they run.

    Returns:
        Their outputs; None for text.
    """
    (folder / "results").symlink_to(results.resolve())
    for name in _CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    space: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder), _commands():
        return [None if cell.kind == "markdown" else _run(cell.source, space) for cell in cells]


@contextlib.contextmanager
def _commands() -> Iterator[None]:
    """Let `vista` and `snakemake` be those of this interpreter and checkout."""
    before = dict(os.environ)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before.get('PATH', '')}"
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run(source: str, space: dict[str, Any]) -> Output:
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), space)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), space)
    if isinstance(value, Image.Image):
        content = io.BytesIO()
        value.convert("RGB").save(content, format="png", optimize=True)
        return Output(printed.getvalue(), None, content.getvalue())
    return Output(printed.getvalue(), None if value is None else _text(value), None)


def _text(value: object) -> str:
    if isinstance(value, pd.DataFrame):
        plain = isinstance(value.index, pd.RangeIndex) or value.index.name is None
        return value.to_string(index=not (plain and value.index.nlevels == 1), na_rep="-")
    return repr(value)


def page(name: str, cells: Sequence[Cell], outputs: Sequence[Output | None]) -> str:
    """Return a tutorial as Markdown; pictures are those of `pictures`."""
    parts = [f"<!-- Written by tests/docs/tutorials.py from {name}.py. -->"]
    number = 0
    for cell, output in zip(cells, outputs, strict=True):
        if output is None:
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        shown = "\n".join(filter(None, (output.printed.rstrip(), output.text)))
        if shown:
            parts.append(f"```text\n{shown}\n```")
        if output.png is not None:
            number += 1
            parts.append(f"![Output of {cell.source.splitlines()[-1]}]({name}-{number}.png)")
    parts.append(
        f"*As a program: [{name}.py]({name}.py); as a notebook: [{name}.ipynb]({name}.ipynb).*"
    )
    return "\n\n".join(parts) + "\n"


def pictures(name: str, outputs: Sequence[Output | None]) -> dict[str, bytes]:
    """Return the pictures of a page, as PNG, by their file names."""
    found = [output.png for output in outputs if output is not None and output.png is not None]
    return {f"{name}-{number}.png": png for number, png in enumerate(found, 1)}


def notebook(cells: Sequence[Cell], outputs: Sequence[Output | None]) -> str:
    """Return a tutorial as a notebook with its outputs, as JSON."""
    made, count = [], 0
    for number, (cell, output) in enumerate(zip(cells, outputs, strict=True)):
        name = f"cell-{number}"
        if output is None:
            made.append(v4.new_markdown_cell(cell.source, id=name))
            continue
        count += 1
        shown = []
        if output.printed:
            shown.append(v4.new_output("stream", name="stdout", text=output.printed))
        data = {}
        if output.text is not None:
            data["text/plain"] = output.text
        if output.png is not None:
            data["image/png"] = base64.b64encode(output.png).decode()
        if data:
            shown.append(v4.new_output("execute_result", data, execution_count=count))
        made.append(v4.new_code_cell(cell.source, id=name, outputs=shown, execution_count=count))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = v4.new_notebook(cells=made, metadata={"kernelspec": kernel})
    nbformat.validate(whole)
    return nbformat.writes(whole, indent=1) + "\n"


def main() -> None:
    """Run tutorials and write their pages, pictures and notebooks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    arguments = parser.parse_args()
    for name in arguments.names:
        cells = cells_of((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as work:
            outputs = execute(cells, arguments.results, Path(work))
        text = page(name, cells, outputs)
        for place in (arguments.results.resolve(), ROOT, work):
            assert str(place) not in text, f"{name} shows a path of this machine: {place}"
        for old in FOLDER.glob(f"{name}-[0-9]*.png"):
            old.unlink()
        for file, content in pictures(name, outputs).items():
            (FOLDER / file).write_bytes(content)
        (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
        (FOLDER / f"{name}.ipynb").write_text(notebook(cells, outputs), encoding="utf-8")


if __name__ == "__main__":
    main()
