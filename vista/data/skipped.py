"""Rows of a data set that are left out of the records, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vista.config.data import FileData
from vista.data.images import MISSING, UNREADABLE, ImageSource, UnusableImage
from vista.data.records import Record
from vista.errors import UserError
from vista.foreign.text import escaped, one_line

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
HIDDEN = "hidden, no data"
# Images that are decoded before the next are asked for, and faults that an error names.
_BATCH = 256
_NAMED = 3


class Skipped:
    """Collects id, path (None without an image) and reason of each row that is left out.

    `unreadable` maps the path of an image to what is wrong with it, whatever number of rows it has.
    `notes` counts what was read in a way that a user may not expect.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[str, str | None, str]] = []
        self.unreadable: dict[str, str] = {}
        self.notes: Counter[str] = Counter()
        self._outside = 0

    def add(self, row_id: str, path: str | None, reason: str) -> None:
        """Note one row; equal reasons are counted together."""
        self.rows.append((row_id, path, reason))

    def counts(self) -> dict[str, int]:
        """Rows by reason, sorted."""
        return dict(sorted(Counter(reason for _, _, reason in self.rows).items()))

    def write(self, path: Path) -> None:
        """Write the rows as a Parquet table of id, path and reason."""
        columns = zip(*self.rows, strict=True) if self.rows else ((), (), ())
        arrays = [
            pa.array([text and escaped(text) for text in column], pa.string()) for column in columns
        ]
        pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), path, compression="zstd")

    def outside(self, annotation: str, path: str, settings: FileData, listed_in: str) -> None:
        """Note an annotation that lies wholly beyond its image.

        Raises UserError where there are more than the settings allow.
        """
        self._outside += 1
        if self._outside > settings.max_unreadable:
            raise UserError(
                f"{listed_in}: the box of annotation {annotation} lies wholly outside its image "
                f"{one_line(path)}: mend it, or set `max_unreadable: {self._outside}` to leave out "
                "so many"
            )
        self.add(annotation, path, "annotation outside its image")

    def image_size(
        self,
        source: ImageSource,
        path: str,
        settings: FileData,
        row_id: str,
        listed_in: str,
        annotated: tuple[int, int] | None = None,
    ) -> tuple[int, int] | None:
        """Width and height of a row's image, px; None for an unusable one that is left out.

        EXIF's orientation is applied if it gives the `annotated` size. Raises UserError where the
        image is missing or has no readable header and the settings do not let it be left out, and
        always where the path leads out of the root.
        """
        try:
            header = source.header(path, annotated)
        except UnusableImage as error:
            if error.reason == MISSING:
                allowed, setting = settings.missing_images == "skip", "missing_images: skip"
            else:
                allowed, setting = settings.max_unreadable > 0, "max_unreadable: 1"
                self.unreadable[path] = str(error)
            if not allowed:
                raise UserError(
                    f"{error} ({one_line(listed_in)}): restore it, or set `{setting}`"
                ) from error
            self.add(row_id, path, error.reason)
            return None
        except UserError as error:
            raise UserError(f"{error} ({one_line(listed_in)})") from error
        if header.ambiguous:
            self.notes["rows whose image EXIF turns, read as its pixels are stored"] += 1
        return header.size

    def readable(
        self, records: Iterator[Record], source: ImageSource, max_unreadable: int, threads: int
    ) -> Iterator[Record]:
        """The records whose images can be decoded whole; the others are noted.

        An image is decoded once, however many records are about it. After the last, UserError is
        raised, with the first few by name, where more than `max_unreadable` were unreadable.
        """

        def fault(record: Record) -> str | None:
            try:
                source.open(record)
            except UnusableImage as error:
                return str(error)
            return None

        checked: set[str] = set()
        with ThreadPoolExecutor(threads) as pool:
            while batch := list(islice(records, _BATCH)):
                new = {record.path: record for record in batch if record.path not in checked}
                for path, reason in zip(new, pool.map(fault, new.values()), strict=True):
                    if reason is not None:
                        self.unreadable[path] = reason
                checked.update(new)
                for record in batch:
                    if record.path in self.unreadable:
                        self.add(record.image_id, record.path, UNREADABLE)
                    else:
                        yield record
        if len(self.unreadable) > max_unreadable:
            first = "; ".join(islice(self.unreadable.values(), _NAMED))
            raise UserError(
                f"{len(self.unreadable)} images cannot be read, `max_unreadable` allows "
                f"{max_unreadable}: restore them, or raise it. The first: {first}"
            )
