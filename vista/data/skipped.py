"""Rows of a data set that become no records, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vista.config.data import OnMissing
from vista.data.images import ImageSource, UnusableImage
from vista.errors import UserError

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


class Skipped:
    """Collects id, path (None without an image) and reason of each row that is left out."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str | None, str]] = []

    def add(self, row_id: str, path: str | None, reason: str) -> None:
        """Note one row; equal reasons are counted together."""
        self.rows.append((row_id, path, reason))

    def counts(self) -> dict[str, int]:
        """Rows by reason, sorted."""
        return dict(sorted(Counter(reason for _, _, reason in self.rows).items()))

    def write(self, path: Path) -> None:
        """Write the rows as a Parquet table of id, path and reason."""
        columns = zip(*self.rows, strict=True) if self.rows else ((), (), ())
        arrays = [pa.array(column, pa.string()) for column in columns]
        pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), path, compression="zstd")

    def image_size(
        self, source: ImageSource, path: str, on_missing: OnMissing, row_id: str, listed_in: str
    ) -> tuple[int, int] | None:
        """Width and height of a row's image, px; None, and noted, if it is bad and may be.

        Raises UserError where the image is missing or unreadable and `on_missing` is "refuse", and
        always where the path leads out of the root.
        """
        try:
            return source.size(path)
        except UnusableImage as error:
            if on_missing == "skip":
                self.add(row_id, path, error.reason)
                return None
            raise UserError(
                f"{error} ({listed_in}): restore it, or set `missing_images: skip`"
            ) from error
        except UserError as error:
            raise UserError(f"{error} ({listed_in})") from error
