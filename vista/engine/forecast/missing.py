"""What a run lacks before it starts (files, tokens, pinned revisions), each with its remedy."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vista.config.packages import unaccepted_terms
from vista.config.published import is_gated
from vista.engine.forecast.folders import LANGUAGE, MODEL, PIPELINE, SAE, VISION, problems
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.errors import UserError
from vista.foreign.clients import CLIENTS, INSTEAD, client_command
from vista.foreign.gguf import read_header, refuse_without_package
from vista.foreign.onnx import read_graph
from vista.foreign.onnx_dinov2 import Dinov2Layout
from vista.foreign.weights import SUFFIXES, refuse_no_weights
from vista.sae.releases import release_entry

_MODELS = {"llm": LANGUAGE, "encoder": VISION, "pipeline": PIPELINE}
_JUDGES = ("embedding", "vlm")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def missing(shapes: Shapes) -> list[str]:
    """Return one sentence for each thing that the jobs to do lack, without repeats.

    The token of the hub is only looked for: its value goes nowhere.
    """
    todo = [node for node in shapes.nodes if not shapes.done(node)]
    folders = dict.fromkeys(folder for node in todo for folder in _folders(node))
    lines = [
        *(
            line
            for name in dict.fromkeys(name for node in todo for name in _files(node))
            for line in _file(Path(name))
        ),
        *(line for what, folder in folders for line in _folder(what, Path(folder))),
        *(line for node in todo for line in (*_repository(node), *_downloads(node))),
        *(line for node in todo for line in _model_file(node, shapes)),
        *(line for node in todo for line in (*_terms(node), *_clients(node))),
    ]
    return list(dict.fromkeys(lines))


def _files(node: Node) -> tuple[str, ...]:
    """The user's files that a job reads; of a folder that is a package, none by name."""
    return () if node.stage == "fetch_package" else node.files


def _file(path: Path) -> Iterator[str]:
    if not path.is_file():
        yield f"file {path} is not there: put it there, or correct its path in the config."
    elif path.suffix in SUFFIXES:
        try:
            refuse_no_weights(path)
        except UserError as error:
            yield f"{error}."


def _model_file(node: Node, shapes: Shapes) -> Iterator[str]:
    """What a file with a model lacks, if it is there: a package's may be fetched first."""
    if node.stage not in ("import_gguf", "import_onnx") or not shapes.file(node).is_file():
        return
    path, settings = shapes.file(node), node.settings
    try:
        if node.stage == "import_gguf":
            read_header(path)
            refuse_without_package(path)
        else:
            layout = Dinov2Layout(read_graph(path))
            layout.check_size(settings["size"])
            layout.config(settings["heads"])
    except UserError as error:
        yield f"{error}."


def _folder(what: str, folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        yield f"{what} {folder} is not there: put it there, or correct its path in the config."
    else:
        yield from problems(what, folder)


def _folders(node: Node) -> Iterator[tuple[str, str]]:
    """The user's folders that a job reads."""
    settings: Any = node.settings
    named: list[tuple[str, str | None]] = []
    if node.stage == "records" and not settings.get("fetch"):
        named.append(("folder of images", settings.get("images")))
        if settings.get("kind") == "folder" and Path(settings["images"]).is_dir():
            below = (settings["splits"] or {}).values()
            named += [("folder of images", f"{settings['images']}/{name}") for name in below]
    for key, what in _MODELS.items():
        if isinstance(settings.get(key), dict):
            source = settings[key]["source"]
            bare = source.get("random_weights") is not None  # then the folder needs no weights
            named.append(("folder of an architecture" if bare else what, source.get("path")))
    named += [(MODEL, path) for path in _judges(settings)]
    if node.stage == "import_sae":
        # A copy of a release has folders of its settings below.
        what = SAE if settings["sae"].get("release") is None else "copy of the release"
        named.append((what, settings["sae"].get("path")))
    if node.stage == "fetch_package":
        named.append(("folder of a package", node.order["package"].get("path")))
    if node.stage == "import_labels":
        named.append(("folder of labels", settings["labels"].get("path")))
    return ((what, folder) for what, folder in named if folder is not None)


def _judges(settings: Any) -> Iterator[str]:
    """The folders of judges' models, wherever the judges stand in a stage's settings."""
    if isinstance(settings, Mapping):
        source = settings.get("source")
        if settings.get("kind") in _JUDGES and isinstance(source, Mapping) and source.get("path"):
            yield str(source["path"])
        for value in settings.values():
            yield from _judges(value)


def _repository(node: Node) -> Iterator[str]:
    settings: Any = node.settings
    if node.stage not in ("fetch_model", "fetch_sae"):
        return
    revision: str = settings["revision"]
    try:
        repo = (
            settings["repo"]
            if "repo" in settings
            else release_entry(settings["release"], settings["sae_id"]).repo
        )
    except UserError as error:
        yield f"{error}."
        return
    if is_gated(repo) and not os.environ.get("HF_TOKEN"):
        yield (
            f"repository {repo} is gated and HF_TOKEN is not set: accept its licence on "
            f"https://huggingface.co/{repo} and set HF_TOKEN to a token of that account."
        )
    if not _COMMIT.fullmatch(revision):
        what = (
            f"SAE release {settings['release']}" if "release" in settings else f"repository {repo}"
        )
        yield (
            f"{what} is not pinned (revision {revision!r}): set `revision` to the 40 digits of a "
            "commit, so that the run stays the same when the repository changes."
        )


def _downloads(node: Node) -> Iterator[str]:
    if node.stage != "fetch_data":
        return
    files: Any = node.settings["files"]
    loose = [file["url"].rsplit("/", 1)[-1] for file in files if file["sha256"] is None]
    if loose:
        yield (
            f"downloads without a checksum ({', '.join(loose)}): set their `sha256`, which the "
            "first fetch prints, so that the run stays the same when the files change."
        )


def _terms(node: Node) -> Iterator[str]:
    if node.stage == "fetch_package" and (line := unaccepted_terms(node.order["package"])):
        yield f"{line}."


def _clients(node: Node) -> Iterator[str]:
    if node.stage != "fetch_package":
        return
    package: Any = node.settings["package"]
    if package["kind"] in CLIENTS and client_command(package["kind"]) is None:
        yield (
            f"{CLIENTS[package['kind']]}, which fetches {package['package']}, is not installed: "
            f"install it, or {INSTEAD}."
        )


def free_bytes(results: Path) -> int:
    """Return the free disk where the results folder is, or will be."""
    place = results.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
