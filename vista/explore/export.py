"""An export: the page, the catalogue, and what the page reads, as a folder for any web host.

Its addresses are those of the server, and what they hold is the same, but for the catalogue's
`live`, and for artifacts' files that the page does not read (models, features).
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vista.config.metric import declared_metrics, plugin_metric_names
from vista.data.records import read_records
from vista.engine.artifacts import open_artifact
from vista.errors import UserError, reason_of
from vista.explore.decoders import Decoders, neighbour_blocks, write_neighbours
from vista.explore.finished import Finished, NotServed
from vista.explore.page_files import catalogue_bytes, page_files
from vista.explore.thumbnails import Pictures
from vista.explore.vision_latents import STAGES as VISION_LABELS
from vista.inputs.vision import TOP_FILE
from vista.progress import progress
from vista.report.catalogue import CATALOGUE
from vista.store.features import FeatureReader
from vista.store.latents import LatentReader

MARKER = "vista-export.json"
_FORMAT = "vista export 1"
_FOLDERS = ("results", "images", "thumbs", "neighbours")
# What the page reads of each stage; of metrics, tables and results.
_READ = {
    "latents": r"latents\.zarr/.+",
    "label_latents": r"labels\.parquet",
    "import_labels": r"labels\.parquet",
    **dict.fromkeys(VISION_LABELS, r".+\.(parquet|json)"),
    "label_by_steering": r".+\.(parquet|json)",
    # The prompts of a text encoder, that an SAE reads in place of images.
    "prompt_features": r"records\.parquet",
    "records": r"records\.parquet",
    "features": r"geometry\.json",
    "combine_features": r"geometry\.json",
    "edit_captions": r".+\.(parquet|json)",
    "report": r".+\.(parquet|csv|md|png|svg)",
}
_OF_METRICS = r".+\.(parquet|json|png)"


@dataclass(frozen=True)
class _File:
    """A file of an artifact: its folder STAGE/NAME-ID, its name there, its bytes."""

    folder: str
    name: str
    size: int


def export(finished: Finished, target: Path, *, link: bool = False, force: bool = False) -> None:
    """Write the page, the catalogue, and what the page reads; print how much that is.

    The folder appears whole or not at all.

    Args:
        finished: The results.
        target: The folder; not there yet, empty, or with `force` an earlier export.
        link: Whether artifacts' files become hard links, which need no space.
        force: Whether an earlier export is replaced.

    Raises:
        UserError: The folder holds other files or lies in the results, an artifact is damaged, or
            the disk is full.
    """
    target = Path(os.path.realpath(target))
    try:
        _refuse(target, finished.results, force)
    except OSError as error:
        raise UserError(f"{target} cannot be read: {reason_of(error)}") from error
    catalogue = finished.catalogue(live=False)
    try:
        files = [
            file for entry in catalogue["artifacts"] for file in _files(finished, entry["folder"])
        ]
    except NotServed as error:
        raise UserError(str(error)) from error
    rows = _rows(finished, catalogue["artifacts"])
    pictures = Pictures(finished)
    images = [(folder, int(row)) for folder, held in sorted(rows.items()) for row in held]
    size = sum(file.size for file in files)
    print(
        f"{len(files):,} files of artifacts, {_megabytes(size)}"
        f"{' as hard links' if link else ''}, and {len(images):,} images with thumbnails"
        f"{_roots(pictures, rows)}.",
        flush=True,
    )
    work = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        work.mkdir(parents=True)
        for file in progress(files, desc="artifacts", unit="file"):
            _bring(finished, file, work / "results" / file.folder / file.name, link)
        missing = _draw(pictures, images, work)
        catalogue = _compare(finished, catalogue, work)
        for name, content in page_files().items():
            (work / name).write_bytes(content)
        (work / CATALOGUE).write_bytes(catalogue_bytes(catalogue))
        (work / MARKER).write_text(json.dumps({"format": _FORMAT}) + "\n")
        _put(work, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {reason_of(error)}") from error
    except NotServed as error:
        raise UserError(f"{error}; rebuild it, or remove it, and export again") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    total = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {_megabytes(total)}. Any web host that knows byte ranges can serve it.")
    if missing:
        print(f"Images that are missing or unreadable, and are left out: {missing:,}.")


def _refuse(target: Path, results: Path, force: bool) -> None:
    """Refuse a folder that an export may not replace. Raises UserError."""
    if target.is_relative_to(results) or results.is_relative_to(target):
        raise UserError(f"{target} and the results {results} lie in each other: export elsewhere")
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target} is a file: name a folder")
    names = {path.name for path in target.iterdir()}
    if not names:
        return
    if not _is_export(target):
        raise UserError(f"{target} holds files that no export wrote: name another folder")
    if strange := sorted(names - {*page_files(), *_FOLDERS, CATALOGUE, MARKER}):
        raise UserError(f"{target} holds {strange[0]!r}, which no export wrote: take it out first")
    if not force:
        raise UserError(f"{target} is an earlier export: --force replaces it")


def _is_export(folder: Path) -> bool:
    try:
        content = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == _FORMAT


def _is_metric(stage: str) -> bool:
    return stage in declared_metrics() or stage in plugin_metric_names()


def _files(finished: Finished, folder: str) -> Iterator[_File]:
    """Yield the files of an artifact that the page reads."""
    stage = folder.partition("/")[0]
    pattern = _READ.get(stage) or (_OF_METRICS if _is_metric(stage) else None)
    if pattern is not None:
        for name, size in finished.files(folder).items():
            if re.fullmatch(pattern, name):
                yield _File(folder, name, size)


def _rows(finished: Finished, entries: list[dict[str, Any]]) -> dict[str, NDArray[np.int64]]:
    """Return the rows of each artifact of records whose images some latents, features of class
    tokens, or top images of a vision SAE have; by the folder of the records without their stage."""
    ids: dict[str, set[str]] = {}
    known = {entry["folder"] for entry in entries}
    for entry in entries:
        records = entry["parents"].get("records", [])
        if len(records) == 1 and records[0] in known and records[0].startswith("records/"):
            ids.setdefault(records[0], set()).update(_image_ids(finished, entry["folder"]))
    rows = {}
    for folder, held in ids.items():
        table = read_records(open_artifact(finished.results / folder).file("records.parquet"))
        found = np.sort(table.rows_by_id(sorted(held)))
        if len(found):
            rows[folder.partition("/")[2]] = found
    return rows


def _image_ids(finished: Finished, folder: str) -> list[str]:
    """Return the ids of an artifact's images that the page shows."""
    stage, path = folder.partition("/")[0], finished.results / folder
    if stage == "latents":
        return LatentReader(open_artifact(path, stage).store("latents.zarr")).image_ids
    if stage == "features":
        settings = open_artifact(path, stage).settings
        if settings.get("encoder", {}).get("tokens") == "class":
            return FeatureReader(open_artifact(path, stage).store("features.zarr")).image_ids
    if stage in VISION_LABELS:
        file = open_artifact(path, stage).file(TOP_FILE)
        ids: list[str] = pq.read_table(file, columns=["image_id"])["image_id"].unique().to_pylist()
        return ids
    return []


def _bring(finished: Finished, file: _File, target: Path, link: bool) -> None:
    """Copy or link a file of an artifact."""
    opened = finished.open(file.folder, file.name)
    with opened.file as source:
        if opened.size != file.size:
            raise NotServed(f"{file.folder} is damaged: {file.name} has another size")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not link:
            with target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 2**20)
            return
    try:
        os.link(finished.results / file.folder / file.name, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        raise UserError(
            f"{target.parent} cannot hold hard links to the results ({reason_of(error)}): "
            "export without --link"
        ) from error


def _draw(pictures: Pictures, images: list[tuple[str, int]], work: Path) -> int:
    """Write images and thumbnails; return how many are missing or unreadable."""

    def draw(image: tuple[str, int]) -> bool:
        folder, row = image
        try:
            for name in ("images", "thumbs"):
                made = pictures.picture(folder, row, thumb=name == "thumbs")
                (work / name / folder / f"{row}.png").write_bytes(made.content)
        except NotServed:
            return True
        return False

    for folder in {folder for folder, _ in images}:
        for name in ("images", "thumbs"):
            (work / name / folder).mkdir(parents=True)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        missing = pool.map(draw, images)
        return sum(progress(missing, total=len(images), desc="images", unit="image"))


def _compare(finished: Finished, catalogue: dict[str, Any], work: Path) -> dict[str, Any]:
    """Write the neighbours of the latents that are shown; return the catalogue, in which those SAEs
    alone have some that have a file."""
    shown = {
        sae
        for entry in catalogue["artifacts"]
        for sae in entry["parents"].get("sae" if entry["stage"] in VISION_LABELS else "saes", ())
    }
    decoders, entries = Decoders(finished), []
    for entry in catalogue["artifacts"]:
        folder = entry["folder"]
        if entry.get("neighbours"):
            entry = {key: value for key, value in entry.items() if key != "neighbours"}
            if folder in shown and _write_neighbours(decoders, folder, work / "neighbours"):
                entry["neighbours"] = True
        entries.append(entry)
    return {**catalogue, "artifacts": entries}


def _write_neighbours(decoders: Decoders, folder: str, target: Path) -> bool:
    """Write the neighbours of an SAE's latents; return whether it can be read."""
    try:
        decoder = decoders.open(folder)
    except NotServed:
        return False
    blocks = -(-decoder.latents // decoder.step)
    name = f"neighbours in {folder.partition('/')[2]}"
    parts = list(progress(neighbour_blocks(decoder), total=blocks, desc=name, unit="block"))
    path = target / f"{folder}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_neighbours(path, parts)
    return True


def _put(work: Path, target: Path) -> None:
    """Rename the finished folder into place; an earlier one goes last."""
    if not target.exists() or not any(target.iterdir()):
        os.replace(work, target)
        return
    old = work.with_suffix(".replaced")
    os.replace(target, old)
    try:
        os.replace(work, target)
    except BaseException:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _roots(pictures: Pictures, rows: dict[str, NDArray[np.int64]]) -> str:
    """Return where the images come from, for the person who is about to publish them."""
    roots: set[str] = set()
    for folder in rows:
        try:
            roots.add(str(pictures.root(folder)))
        except NotServed:
            continue
    return f" from {', '.join(sorted(roots))}" if roots else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
