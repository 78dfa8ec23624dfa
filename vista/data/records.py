"""The table that every data set becomes: images with their texts and objects.

`records.parquet` has one row an image; the order of its rows is the image index of every store
that follows. `text.parquet` has one row a document.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vista.data.masks import Rle, decode_mask, encode_mask
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


class Box(NamedTuple):
    """A rectangle in image px; x and y are its left top corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Object:
    """One annotated object. `crowd` marks a region of many objects that are not separated."""

    category: str
    box: Box
    rle: Rle | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Record:
    """One image; `path` is relative to the images root, `width` and `height` are px."""

    image_id: str
    split: str
    path: str
    width: int
    height: int
    captions: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    objects: tuple[Object, ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """The distinct categories of the objects, in order of first appearance."""
        return tuple(dict.fromkeys(item.category for item in self.objects))


def reference_captions(record: Record) -> tuple[str, ...]:
    """Return the captions that the data give an image, or its first answer where it has none."""
    return record.captions or tuple(turn.answer for turn in record.turns[:1])


def reference(record: Record) -> str:
    """Return the first reference caption of an image, "" where it has none."""
    return next(iter(reference_captions(record)), "")


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

    Raises UserError if an image id comes twice: it is the key that stores are read by; and if an
    id, path or text is no Unicode text, such as a file name of bytes that are no UTF-8.
    """
    seen: set[str] = set()
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        checked = _checked(records, seen)
        while parts := list(_tables(itertools.islice(checked, _ROW_GROUP))):
            writer.write_table(pa.concat_tables(parts).combine_chunks())
    return len(seen)


def _checked(records: Iterable[Record], seen: set[str]) -> Iterator[Record]:
    for record in records:
        if record.image_id in seen:
            raise UserError(
                f"image id {record.image_id!r} comes twice (second file {record.path!r}): ids "
                "must differ over all splits"
            )
        _refuse_surrogates(record)
        seen.add(record.image_id)
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
        self._file = _open_table(path, SCHEMA)
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
        columns = {name: self._column(name) for name in SCHEMA.names}
        for start in range(0, len(self), _BATCH):
            part = {name: column.slice(start, _BATCH) for name, column in columns.items()}
            for row in pa.table(part).to_pylist():
                yield row_to_record(row)

    def select(self, rows: Iterable[int]) -> list[Record]:
        """The records of some rows, in the order of `rows`."""
        columns = {name: self._column(name) for name in SCHEMA.names}
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


def record_to_row(record: Record) -> dict[str, Any]:
    """The record as SCHEMA has it, of values that JSON can hold."""
    return {
        "image_id": record.image_id,
        "split": record.split,
        "path": record.path,
        "width": record.width,
        "height": record.height,
        "captions": list(record.captions),
        "turns": [{"question": t.question, "answer": t.answer} for t in record.turns],
        "objects": [
            {
                "category": item.category,
                **item.box._asdict(),
                "mask": _mask_text(record, item.rle),
                "crowd": item.crowd,
            }
            for item in record.objects
        ],
    }


def _mask_text(record: Record, rle: Rle | None) -> str | None:
    if rle is None:
        return None
    if list(rle["size"]) != [record.height, record.width]:
        raise ValueError(f"mask of size {rle['size']} in image {record.image_id}")
    counts = rle["counts"]
    if not isinstance(counts, str):
        raise ValueError("records hold compressed masks: use encode_mask")
    return counts


def row_to_record(row: Mapping[str, Any]) -> Record:
    """The record that `record_to_row` made the row of."""
    size = [row["height"], row["width"]]
    return Record(
        image_id=row["image_id"],
        split=row["split"],
        path=row["path"],
        width=row["width"],
        height=row["height"],
        captions=tuple(row["captions"]),
        turns=tuple(Turn(t["question"], t["answer"]) for t in row["turns"]),
        objects=tuple(
            Object(
                item["category"],
                Box(item["x"], item["y"], item["width"], item["height"]),
                None if item["mask"] is None else {"size": size, "counts": item["mask"]},
                item["crowd"],
            )
            for item in row["objects"]
        ),
    )


def _open_table(path: Path, schema: pa.Schema) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = reason_of(error)
        raise UserError(f"{path} cannot be read as a Parquet table ({reason})") from error
    if file.schema_arrow.names != schema.names:
        names = file.schema_arrow.names
        raise UserError(f"{path} has columns {names}, expected {schema.names}")
    if file.schema_arrow.types != schema.types:
        raise UserError(f"{path} has columns of other types than records have; make it again")
    return file
