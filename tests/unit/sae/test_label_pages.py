"""Tables of labels lie in small pages with an index, so that one latent's row can be read alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vista.sae.label_table import LatentLabels, read_labels, write_labels

N, PAGE = 3000, 1 << 14
VARINTS, BINARY, STRUCT = (4, 5, 6), 8, 12


class Thrift:
    """Fields of a structure of Thrift's compact protocol, as far as page headers need them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while byte := self.data[self.at]:
            self.at += 1
            delta, kind = byte >> 4, byte & 15
            number = number + delta if delta else self._zigzag()
            fields[number] = self._value(kind)
        self.at += 1
        return fields

    def _zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind in VARINTS:
            return self._zigzag()
        if kind == BINARY:
            length = self.varint()
            self.at += length
            return self.data[self.at - length : self.at]
        assert kind == STRUCT
        return self.struct()


def page_bytes(path: Path, column: int) -> list[int]:
    """Return the uncompressed bytes of the data pages of a column."""
    chunk = pq.read_metadata(path).row_group(0).column(column)
    offset, sizes, values = chunk.data_page_offset, [], 0
    content = path.read_bytes()
    while values < chunk.num_values:
        header = Thrift(content[offset : offset + 4096])
        # Of a page's header: 2 bytes uncompressed, 3 compressed, 5 that of a data page (1 values).
        fields = header.struct()
        sizes.append(fields[2])
        values += fields[5][1]
        offset += header.at + fields[3]
    return sizes


def labels() -> LatentLabels:
    rng = np.random.default_rng(0)
    numbers = rng.random((N, 5, 12))
    return LatentLabels(
        layer=4,
        sae="planted",
        tokens=9,
        label_s=tuple(f"word {i % 50}" if i % 3 else None for i in range(N)),
        share_s=rng.random(N, dtype=np.float32),
        density_s=rng.random(N, dtype=np.float32),
        contexts_s=tuple(
            tuple(" ".join(f"{x:.4f}" for x in row) for row in rows[: i % 6])
            for i, rows in enumerate(numbers)
        ),
        auroc_s=rng.random(N, dtype=np.float32),
    )


def test_pages_are_small_and_indexed(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    write_labels(path, labels())
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    names = [column.path_in_schema.partition(".")[0] for column in columns]
    for i, column in enumerate(columns):
        sizes = page_bytes(path, i)
        # A page ends with the batch of values in which it becomes full.
        assert max(sizes) < PAGE + 64 * 120
        assert column.has_offset_index
        is_dictionary = any("DICTIONARY" in encoding for encoding in column.encodings)
        assert is_dictionary == (names[i] == "label")
    assert len(page_bytes(path, names.index("contexts"))) > 20
    # The index of pages has no texts of contexts, which would be longer than the pages' addresses.
    assert not columns[names.index("contexts")].has_column_index


def test_pages_of_any_size_read_the_same(tmp_path: Path) -> None:
    table = labels()
    write_labels(tmp_path / "pages.parquet", table)
    # As tables were written before.
    pq.write_table(
        pq.read_table(tmp_path / "pages.parquet"), tmp_path / "one.parquet", compression="zstd"
    )
    assert len(page_bytes(tmp_path / "one.parquet", 4)) == 1
    for name in ("pages", "one"):
        again = read_labels(tmp_path / f"{name}.parquet")
        assert (again.label_s, again.contexts_s) == (table.label_s, table.contexts_s)
        assert (again.layer, again.sae, again.tokens) == (4, "planted", 9)
        for column in ("share_s", "density_s", "auroc_s"):
            assert np.array_equal(getattr(again, column), getattr(table, column))
    assert pq.read_table(tmp_path / "pages.parquet").schema.field("contexts").type == pa.list_(
        pa.string()
    )
