"""What a run lacks before it starts (files, tokens, pinned revisions), each with its remedy."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vista.config.published import is_gated
from vista.errors import UserError
from vista.forecast.shapes import Shapes
from vista.node import Node
from vista.sae.releases import release_entry

_COMMIT = re.compile(r"[0-9a-f]{40}")


def missing(shapes: Shapes) -> list[str]:
    """Return one sentence for each thing that the jobs to do lack, without repeats.

    The token of the hub is only looked for: its value goes nowhere.
    """
    todo = [node for node in shapes.nodes if not shapes.done(node)]
    lines = [
        line for node in todo for line in (*_files(node), *_repository(node), *_downloads(node))
    ]
    return list(dict.fromkeys(lines))


def _files(node: Node) -> Iterator[str]:
    for name in node.files:
        if not Path(name).is_file():
            yield f"file {name} is not there: put it there, or correct its path in the config."
    for what, folder in _folders(node):
        if folder is not None and not Path(folder).is_dir():
            yield f"{what} {folder} is not there: put it there, or correct its path in the config."


def _folders(node: Node) -> Iterator[tuple[str, str | None]]:
    """The user's folders that a job reads."""
    own: Any = node.settings
    if node.stage == "records" and not own.get("fetch"):
        yield "folder of images", own.get("images")
        if own.get("kind") == "folder" and Path(own["images"]).is_dir():
            for below in (own["splits"] or {}).values():
                yield "folder of images", f"{own['images']}/{below}"
    models = {"llm": "language model", "encoder": "vision encoder", "pipeline": "pipeline"}
    for key, what in models.items():
        if isinstance(own.get(key), dict):
            yield f"folder of the {what}", own[key]["source"].get("path")
    if node.stage == "import_sae":
        yield "folder of the SAE", own["sae"].get("path")
    if node.stage == "import_labels":
        yield "folder of labels", own["labels"].get("path")


def _repository(node: Node) -> Iterator[str]:
    own: Any = node.settings
    if node.stage not in ("fetch_model", "fetch_sae"):
        return
    revision: str = own["revision"]
    try:
        repo = own["repo"] if "repo" in own else release_entry(own["release"], own["sae_id"]).repo
    except UserError as error:
        yield f"{error}."
        return
    if is_gated(repo) and not os.environ.get("HF_TOKEN"):
        yield (
            f"repository {repo} is gated and HF_TOKEN is not set: accept its licence on "
            f"https://huggingface.co/{repo} and set HF_TOKEN to a token of that account."
        )
    if not _COMMIT.fullmatch(revision):
        what = f"SAE release {own['release']}" if "release" in own else f"repository {repo}"
        yield (
            f"{what} is not pinned (revision {revision!r}): set `revision` to the 40 digits of a "
            "commit, so that the run stays the same when the repository changes."
        )


def _downloads(node: Node) -> Iterator[str]:
    if node.stage != "fetch_data":
        return
    files: Any = node.settings["files"]
    loose = [each["url"].rsplit("/", 1)[-1] for each in files if each["sha256"] is None]
    if loose:
        yield (
            f"downloads without a checksum ({', '.join(loose)}): set their `sha256`, which the "
            "first fetch prints, so that the run stays the same when the files change."
        )


def free_bytes(results: Path) -> int:
    """Return the free disk where the results folder is, or will be."""
    place = results.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
