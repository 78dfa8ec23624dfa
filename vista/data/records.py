"""The table that every data set becomes: images with their texts and objects.

`records.parquet` has one row an image; the order of its rows is the image index of every store
that follows. `text.parquet` has one row a document.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vista.data.masks import decode_mask, encode_mask
from vista.data.record import (
    Box,
    Object,
    Record,
    Turn,
    record_to_row,
    reference,
    reference_captions,
    row_to_record,
)
from vista.errors import UserError, reason_of

__all__ = [
    "Box",
    "Object",
    "Record",
    "RecordTable",
    "Turn",
    "decode_mask",
    "encode_mask",
    "read_records",
    "read_text",
    "record_to_row",
    "reference",
    "reference_captions",
    "row_to_record",
    "write_records",
    "write_text",
]


_OBJECT = pa.struct(
    [
        pa.field("category", pa.string(), nullable=False),
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("width", pa.float64(), nullable=False),
        pa.field("height", pa.float64(), nullable=False),
        pa.field("mask", pa.string()),
        pa.field("crowd", pa.bool_(), nullable=False),
    ]
)
_TURN = pa.struct(
    [
        pa.field("question", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("turns", pa.list_(_TURN), nullable=False),
        pa.field("objects", pa.list_(_OBJECT), nullable=False),
    ]
)
# The table of data that are reported in groups has a further column.
_GROUP = pa.field("group", pa.string())
GROUPED_SCHEMA = SCHEMA.append(_GROUP)
TEXT_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
_ROW_GROUP = 8192
# Rows held as Python objects at a time: they take several times the memory of Arrow's.
_BATCH = 512


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write the records in their order and return how many there were.

    The table has the column `group` where a record has one. Raises UserError if an image id comes
    twice: it is the key that stores are read by; and if an id, path or text is no Unicode text,
    such as a file name of bytes that are no UTF-8.
    """
    seen: set[str] = set()
    groups: list[str | None] = []
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        checked = _checked(records, seen, groups)
        while parts := list(_tables(itertools.islice(checked, _ROW_GROUP))):
            writer.write_table(pa.concat_tables(parts).combine_chunks())
    if any(group is not None for group in groups):
        _add_groups(path, groups)
    return len(seen)


def _add_groups(path: Path, groups: Sequence[str | None]) -> None:
    """Add the column of groups, which is known to be there when all records have come."""
    whole = path.with_suffix(".grouped")
    with (
        pq.ParquetFile(path) as file,
        pq.ParquetWriter(whole, GROUPED_SCHEMA, compression="zstd") as writer,
    ):
        start = 0
        for number in range(file.num_row_groups):
            part = file.read_row_group(number)
            column = pa.array(groups[start : start + len(part)], _GROUP.type)
            writer.write_table(part.append_column(_GROUP, column))
            start += len(part)
    os.replace(whole, path)


def _checked(
    records: Iterable[Record], seen: set[str], groups: list[str | None]
) -> Iterator[Record]:
    for record in records:
        if record.image_id in seen:
            raise UserError(
                f"image id {record.image_id!r} comes twice (second file {record.path!r}): ids "
                "must differ over all splits"
            )
        _refuse_surrogates(record)
        seen.add(record.image_id)
        groups.append(record.group)
        yield record


def _refuse_surrogates(record: Record) -> None:
    for name, texts in (
        ("path", (record.path,)),
        ("id", (record.image_id,)),
        (
            "text",
            (*record.captions, *(text for turn in record.turns for text in vars(turn).values())),
        ),
        ("class", record.categories),
        ("group", () if record.group is None else (record.group,)),
    ):
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise UserError(
                    f"image id {record.image_id!r}: its {name} {text[:80]!r} is no Unicode text: "
                    "rename the file, or mend the annotations"
                ) from error


def _tables(records: Iterator[Record]) -> Iterator[pa.Table]:
    while rows := [record_to_row(record) for record in itertools.islice(records, _BATCH)]:
        yield pa.Table.from_pylist(rows, schema=SCHEMA)


def read_records(path: Path) -> RecordTable:
    """The records of a table, read on demand; UserError if it is none."""
    return RecordTable(path)


class RecordTable(Sequence[Record]):
    """The records of records.parquet in their order: a position is the index in the stores.

    A column is read when it is first used, and kept in Arrow's form: rows become records one by
    one, or a few hundred at a time in an iteration.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open_table(path, SCHEMA, GROUPED_SCHEMA)
        self._names: list[str] = self._file.schema_arrow.names
        self._columns: dict[str, pa.ChunkedArray] = {}

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        return self.select([range(len(self))[index]])[0]

    def __iter__(self) -> Iterator[Record]:
        columns = {name: self._column(name) for name in self._names}
        for start in range(0, len(self), _BATCH):
            part = {name: column.slice(start, _BATCH) for name, column in columns.items()}
            for row in pa.table(part).to_pylist():
                yield row_to_record(row)

    def select(self, rows: Iterable[int]) -> list[Record]:
        """The records of some rows, in the order of `rows`."""
        columns = {name: self._column(name) for name in self._names}
        return [
            row_to_record({name: column[int(row)].as_py() for name, column in columns.items()})
            for row in rows
        ]

    def image_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The image ids of some rows."""
        ids: list[str] = self._column("image_id").take(pa.array(rows)).to_pylist()
        return ids

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """The rows of one split, ascending."""
        return np.flatnonzero(pc.equal(self._column("split"), split).to_numpy())

    def rows_with_turns(self, split: str) -> NDArray[np.int64]:
        """The rows of one split that have a conversation, ascending."""
        lengths = pc.list_value_length(self._column("turns"))
        return np.flatnonzero(
            pc.and_(pc.equal(self._column("split"), split), pc.greater(lengths, 0)).to_numpy()
        )

    def rows_by_id(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each image id; UserError naming the first that has none."""
        rows = pc.index_in(
            pa.array(image_ids, pa.string()), value_set=self._column("image_id").combine_chunks()
        )
        if rows.null_count:
            missing = image_ids[rows.is_null().to_pylist().index(True)]
            raise UserError(
                f"{self._path} has no image {missing!r}, which a store was made from; run the "
                "workflow again so that both come from the same data"
            )
        return np.asarray(rows, dtype=np.int64)

    def turns(self, rows: Sequence[int] | NDArray[np.int64]) -> Sequence[tuple[Turn, ...]]:
        """The conversations of some rows, each decoded when it is asked for."""
        return _TurnsOf(self._column("turns"), rows)

    def categories(self) -> set[str]:
        """The names of all objects' classes."""
        names: set[str] = set()
        for chunk in self._column("objects").chunks:
            names.update(chunk.flatten().field("category").unique().to_pylist())
        return names

    def feature_rows(self) -> tuple[list[str], NDArray[np.int64]]:
        """The distinct image paths, as they first appear, and for each row its path's place there.

        One image can be in many rows (LLaVA's conversations); where none is, the places are
        0, 1, 2, ...
        """
        encoded = self._column("path").combine_chunks().dictionary_encode()
        return encoded.dictionary.to_pylist(), np.asarray(encoded.indices, dtype=np.int64)

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self._columns:
            self._columns[name] = self._file.read(columns=[name]).column(name)
        return self._columns[name]


class _TurnsOf(Sequence[tuple[Turn, ...]]):
    def __init__(self, column: pa.ChunkedArray, rows: Sequence[int] | NDArray[np.int64]) -> None:
        self._column = column
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> tuple[Turn, ...]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[Turn, ...]]: ...

    def __getitem__(self, index: int | slice) -> tuple[Turn, ...] | Sequence[tuple[Turn, ...]]:
        if isinstance(index, slice):
            return _TurnsOf(self._column, self._rows[index])
        return tuple(Turn(**turn) for turn in self._column[int(self._rows[index])].as_py())


def write_text(path: Path, texts: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Write documents per split and return how many each has."""
    splits: list[str] = []
    documents: list[str] = []
    counts: dict[str, int] = {}
    for split, lines in texts.items():
        before = len(documents)
        documents.extend(lines)
        counts[split] = len(documents) - before
        splits.extend([split] * counts[split])
    table = pa.Table.from_pydict({"split": splits, "text": documents}, schema=TEXT_SCHEMA)
    pq.write_table(table, path, compression="zstd")
    return counts


def read_text(path: Path, split: str) -> list[str]:
    """The documents of one split, "train" or "heldout"."""
    table = _open_table(path, TEXT_SCHEMA).read()
    texts: list[str] = table.filter(pc.equal(table["split"], split))["text"].to_pylist()
    if not texts:
        raise UserError(f"{path} holds no text of split {split!r}: check `text:` in the config")
    return texts


def _open_table(path: Path, *schemas: pa.Schema) -> pq.ParquetFile:
    """Open a table of the first schema, or of one of the others."""
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = reason_of(error)
        raise UserError(f"{path} cannot be read as a Parquet table ({reason})") from error
    names = file.schema_arrow.names
    schema = next((one for one in schemas if one.names == names), None)
    if schema is None:
        raise UserError(f"{path} has columns {names}, expected {schemas[0].names}")
    if file.schema_arrow.types != schema.types:
        raise UserError(f"{path} has columns of other types than records have; make it again")
    return file
