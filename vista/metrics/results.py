"""The one place where the result of a metric becomes files, and where its rows are read back.

result.json    the typed result, keys sorted, undefined figures as null
rows.parquet   its rows of the long table (schema ROW_SCHEMA)
items.parquet  one row an image (or image and layer, ...), where the metric keeps such values
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.metrics.result import MetricResult
from vista.metrics.rows import Row, finite_or_none

ROW_SCHEMA = pa.schema(
    [
        pa.field("metric", pa.string(), nullable=False),
        pa.field("layer", pa.int32()),
        pa.field("token_kind", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("ci_low", pa.float64()),
        pa.field("ci_high", pa.float64()),
        pa.field("chance", pa.float64()),
        pa.field("n", pa.int64(), nullable=False),
    ]
)


def write_result(
    work: Path, result: MetricResult, items: Mapping[str, Any] | pa.Table | None = None
) -> None:
    """Write a metric's result: result.json, rows.parquet and, if there are items, items.parquet.

    Args:
        work: The stage's work folder.
        result: The typed result.
        items: A table, or columns of equal length (arrays or lists) by name; None if the metric
            has no such values.
    """
    # Through pydantic's own JSON first: it turns NaN into null, json.dumps would write NaN.
    content = json.loads(result.model_dump_json())
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    (work / "result.json").write_text(text + "\n", encoding="utf-8")
    write_parquet(work / "rows.parquet", rows_table(result.rows()))
    if items is not None:
        table = items if isinstance(items, pa.Table) else pa.table(dict(items))
        write_parquet(work / "items.parquet", table)


def rows_table(rows: Iterable[Row]) -> pa.Table:
    """Return rows as a table of `ROW_SCHEMA`; undefined and unbounded figures become null."""
    records = []
    for row in rows:
        record = asdict(row)
        for key in ("value", "ci_low", "ci_high", "chance"):
            record[key] = finite_or_none(record[key])
        records.append(record)
    return pa.Table.from_pylist(records, schema=ROW_SCHEMA)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet; the same table gives the same bytes."""
    pq.write_table(table, path, compression="zstd")


def read_rows(artifact: Artifact) -> list[dict[str, Any]]:
    """Read the rows of a metric artifact, one dict a row (None where a figure is undefined).

    Raises:
        UserError: rows.parquet lacks a column of the long table.
    """
    path = artifact.file("rows.parquet")
    table = pq.read_table(path)
    missing = [name for name in ROW_SCHEMA.names if name not in table.column_names]
    if missing:
        raise UserError(
            f"{path} has no column {missing[0]!r}; delete the folder and run the metric again"
        )
    return cast(list[dict[str, Any]], table.select(ROW_SCHEMA.names).to_pylist())


def read_result(artifact: Artifact) -> dict[str, Any]:
    """Read the typed result of a metric artifact as plain JSON."""
    return cast(
        dict[str, Any], json.loads(artifact.file("result.json").read_text(encoding="utf-8"))
    )
