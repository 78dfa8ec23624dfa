"""The images of a table of records as a page shows them: re-encoded, whole or as a thumbnail."""

from __future__ import annotations

import functools
import io
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vista.data.images import ImageSource, is_hidden
from vista.data.record import Record
from vista.engine.artifacts import Artifact, open_artifact
from vista.engine.lineage import parents_of
from vista.errors import UserError
from vista.explore.finished import Finished, NotServed
from vista.inputs.image_files import image_files

THUMB = 96  # px, the longest side
# Images of more pixels become JPEG: lossless files of photographs are ten times as large.
_MOST_PNG = 65_536
_LONGEST_JPEG = 65_500  # px, of a side
_QUALITY = {True: 82, False: 90}
_KEPT_BYTES = 64_000_000
# Decoding takes up to half a gigabyte an image.
_AT_ONCE = 3
_TABLES = 4


class Picture(NamedTuple):
    """An encoded image; `kind` is its media type."""

    content: bytes
    kind: str


class Pictures:
    """The images of the records of a results folder. Its methods may be called from several
    threads."""

    def __init__(self, finished: Finished) -> None:
        self._finished = finished
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(_AT_ONCE)
        self._kept: OrderedDict[tuple[str, str, int, bool], Picture] = OrderedDict()
        self._bytes = 0
        self._opened = functools.lru_cache(_TABLES)(self._open)

    def picture(self, folder: str, row: int, *, thumb: bool) -> Picture:
        """Return the image of a row of records/FOLDER/records.parquet.

        Pixels are as stored, turned only where the data mean it so; nothing else of the file (EXIF,
        comments, colour profiles) is kept. A thumbnail is at most 96 px wide and high.

        Raises:
            NotServed: There is no such row or image, or it is refused.
        """
        digest = str(self._finished.manifest(f"records/{folder}")["digest"])
        key = folder, digest, row, thumb
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            with self._lock:
                table, source = self._opened(folder, digest)
            with self._decoding:
                made = _encoded(source, _record(table, row), thumb)
        except UserError as error:
            raise NotServed(str(error)) from None
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += len(made.content)
            while self._bytes > _KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1].content)
        return made

    def root(self, folder: str) -> Path:
        """Return the folder that the images of records/FOLDER lie in. Raises NotServed."""
        digest = str(self._finished.manifest(f"records/{folder}")["digest"])
        try:
            with self._lock:
                return self._opened(folder, digest)[1].root
        except UserError as error:
            raise NotServed(str(error)) from None

    def _open(self, folder: str, _digest: str) -> tuple[pa.Table, ImageSource]:
        records = open_artifact(self._finished.results / "records" / folder, "records")
        parents = parents_of(records.manifest)
        world, fetched = (self._parent(parents.get(role, [])) for role in ("world", "fetched"))
        try:
            source = image_files(records, world, fetched)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"the images of records/{folder} are not in these results") from error
        made = world or fetched
        if made and not _is_below(source.root, made.path):
            raise UserError(f"the images of records/{folder} lie behind a link: they are refused")
        columns = ["path", "width", "height"]
        try:
            table = pq.read_table(records.file("records.parquet"), columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"records/{folder} cannot be read as a table") from error
        if table.column_names != columns:
            raise UserError(f"records/{folder} is no table of records")
        return table, source

    def _parent(self, paths: list[str]) -> Artifact | None:
        if not paths:
            return None
        try:
            self._finished.manifest(paths[0])  # finished, and no link
        except NotServed as error:
            raise UserError(str(error)) from None
        return open_artifact(self._finished.results / paths[0], paths[0].partition("/")[0])


def _is_below(folder: Path, root: Path) -> bool:
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))


def _record(table: pa.Table, row: int) -> Record:
    if not 0 <= row < table.num_rows:
        raise UserError(f"there is no image {row}: the records have 0..{table.num_rows - 1}")
    path, width, height = (column[row].as_py() for column in table.columns)
    if not (isinstance(path, str) and isinstance(width, int) and isinstance(height, int)):
        raise UserError(f"row {row} of the records has no image")
    if is_hidden(path):
        raise UserError(f"the image of row {row} is a hidden file: it is refused")
    return Record("", "", path, width, height)


def _encoded(source: ImageSource, record: Record, thumb: bool) -> Picture:
    size = record.width, record.height
    if source.header(record.path, size).size != size:  # before its pixels are decoded
        raise UserError(f"the file of image {record.path!r} has another size than its record")
    image = source.open(record)
    small = image.width * image.height <= _MOST_PNG
    png = small or max(image.size) > _LONGEST_JPEG
    if thumb:
        image.thumbnail((THUMB, THUMB))
    # Pillow writes comments, profiles and positions that it finds here.
    image.info.clear()
    content = io.BytesIO()
    if png:
        image.save(content, "PNG", optimize=thumb)
    else:
        image.save(content, "JPEG", quality=_QUALITY[thumb])
    return Picture(content.getvalue(), "image/png" if png else "image/jpeg")
