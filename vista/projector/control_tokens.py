"""Visual tokens of a control: a projector that was changed, or what is read in its place.

control.json          name of the control, and its facts (norms, the factor), which people read
projector.*           the projector, unless tokens are words
control.parquet       one row an evaluated image, where the control changes what is read: `image_id`
                      and `image` (id of the image that is read in its place), `patches` (patch that
                      is read at each patch) or `words` (token id at each patch)

Legend of shape suffixes: r record, p patch token, b image, d LLM width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vista.engine.artifacts import canonical_json
from vista.errors import UserError, reason_of

if TYPE_CHECKING:
    from vista.data.records import RecordTable
    from vista.projector.module import Projector

FACTS = "control.json"
TABLE = "control.parquet"

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ControlTokens:
    """What a control reads as visual tokens.

    Attributes:
        projector: The projector; None where tokens are words.
        facts: Figures that describe the control, such as its factor.
        images: Row of the record whose image is read for each record [r]; None: its own.
        patches: Patch that is read at each patch [r, p]; None: itself.
        words: Token id at each patch [r, p], in place of a projector.
    """

    projector: Projector | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
    images: IntArray | None = None
    patches: IntArray | None = None
    words: IntArray | None = None


def save_control(
    folder: Path, name: str, tokens: ControlTokens, records: RecordTable, rows: IntArray
) -> None:
    """Write a control into `folder`; of what is read in place of a token, `rows` of the records."""
    from vista.projector.module import save_projector

    content = {"control": name, "facts": dict(tokens.facts)}
    (folder / FACTS).write_text(canonical_json(content) + "\n", encoding="utf-8")
    if tokens.projector is not None:
        save_projector(folder, tokens.projector)
    columns: dict[str, pa.Array] = {}
    if tokens.images is not None:
        columns["image"] = pa.array(records.image_ids(tokens.images[rows]), pa.string())
    for column, values_rp in (("patches", tokens.patches), ("words", tokens.words)):
        if values_rp is not None:
            columns[column] = pa.array(values_rp[rows].tolist(), pa.list_(pa.int32()))
    if columns:
        ids = pa.array(records.image_ids(rows), pa.string())
        pq.write_table(pa.table({"image_id": ids, **columns}), folder / TABLE, compression="zstd")


def is_control(folder: Path) -> bool:
    """Whether a folder holds the visual tokens of a control, not a projector alone."""
    return (folder / FACTS).is_file()


@dataclass(frozen=True)
class Replacement:
    """What a control reads in place of an image's own tokens, by rows of the records.

    Attributes:
        row_of: Row of the table for each record, -1 where the control does not know the record [r].
        images: Row of the records that is read [t]; None: its own.
        patches: Patch that is read at each patch [t, p]; None: itself.
        words: Token id at each patch [t, p]; None: visual tokens are made from features.
    """

    row_of: IntArray
    images: IntArray | None
    patches: IntArray | None
    words: IntArray | None

    def known(self, rows: Sequence[int] | IntArray) -> IntArray:
        """Return the rows of the table for some records.

        Raises UserError where the control does not know one.
        """
        chosen = self.row_of[np.asarray(rows, dtype=np.int64)]
        if len(chosen) and chosen.min() < 0:
            raise UserError(
                f"{TABLE} of the control has no row for an image that is read; run the workflow "
                "again"
            )
        return chosen


def load_replacement(folder: Path, records: RecordTable) -> Replacement | None:
    """Read what a control reads in place of tokens; None where it only changes the projector.

    Raises UserError where the table is damaged, or names an image that the records do not have.
    """
    path = folder / TABLE
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
        ids = table["image_id"].to_pylist()
        rows = records.rows_by_id(ids)
        row_of = np.full(len(records), -1, dtype=np.int64)
        row_of[rows] = np.arange(len(rows))
        images = None
        if "image" in table.column_names:
            images = records.rows_by_id(table["image"].to_pylist())
        patches, words = (_matrix(table, name) for name in ("patches", "words"))
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: not the table of a control ({reason_of(error)}); delete the folder and run "
            "the workflow again"
        ) from error
    return Replacement(row_of, images, patches, words)


def _matrix(table: pa.Table, name: str) -> IntArray | None:
    if name not in table.column_names:
        return None
    return np.array(table[name].to_pylist(), dtype=np.int64).reshape(table.num_rows, -1)
