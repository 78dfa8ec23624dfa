"""Tables of top images lie in small pages, of which an index says what latents they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vista.errors import UserError
from vista.sae.top_table import read_top, write_top

N, TOP = 3000, 4


def columns() -> dict[str, list[Any]]:
    latents = [latent for latent in range(N) for _ in range(latent % (TOP + 1))]
    ranks = [rank for latent in range(N) for rank in range(latent % (TOP + 1))]
    places = range(len(latents))
    return {
        "latent": latents,
        "rank": ranks,
        "image_id": [f"folder/{n * 7919 % 100_003}.jpg" for n in places],
        "patch": [n % 256 for n in places],
        "activation": [float(n % 17) for n in places],
        "classes": [["cat", "dog"][: n % 3] for n in places],
    }


def test_pages_are_indexed_by_latent(tmp_path: Path) -> None:
    path = tmp_path / "top.parquet"
    write_top(path, columns())
    group = pq.read_metadata(path).row_group(0)
    for n in range(group.num_columns):
        column = group.column(n)
        assert column.has_offset_index
        assert column.has_column_index is (column.path_in_schema == "latent")
        # A dictionary of ids would be read whole for one row.
        assert column.has_dictionary_page is (column.path_in_schema.partition(".")[0] in DICTIONARY)


DICTIONARY = ("rank", "patch", "classes")


def test_the_rows_of_a_latent(tmp_path: Path) -> None:
    path, table = tmp_path / "top.parquet", columns()
    write_top(path, table)
    names = list(table)
    for latent in (0, 4, 1234, N - 1, N):
        rows = [row for row in zip(*table.values(), strict=True) if row[0] == latent]
        assert read_top(path, latent) == [dict(zip(names, row, strict=True)) for row in rows]


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "top.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="not a table of top images"):
        read_top(path, 0)
    table = columns()
    write_top(path, table)
    pq.write_table(pq.read_table(path).drop_columns(["patch"]), path)
    with pytest.raises(UserError, match=r"top\.parquet: not a table of top images"):
        read_top(path, 0)
