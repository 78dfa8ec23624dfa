"""Files of a metric's result: how they are written, and how its figures are read back.

result.json    the typed result, keys sorted, undefined figures as null
rows.parquet   its rows of the long table (schema SCHEMA)
items.parquet  one row an image (or image and layer, ...), where the metric keeps values of each
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.metrics.figure import COLUMNS, TABLE_VERSION, Figure
from vista.metrics.result import MetricResult

_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
SCHEMA = pa.schema(
    [pa.field(name, _TYPES[kind]) for name, kind in COLUMNS.items()],
    metadata={"table_version": TABLE_VERSION},
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
    write_parquet(work / "rows.parquet", figures_table(result.figures()))
    if items is not None:
        table = items if isinstance(items, pa.Table) else pa.table(dict(items))
        write_parquet(work / "items.parquet", table)


def figures_table(figures: Iterable[Figure]) -> pa.Table:
    """Return figures as a table of `SCHEMA`."""
    return pa.Table.from_pylist([figure.record() for figure in figures], schema=SCHEMA)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet; the same table gives the same bytes."""
    pq.write_table(table, path, compression="zstd")


def read_figures(artifact: Artifact, **point: Any) -> list[Figure]:
    """Read the figures of a metric artifact.

    Args:
        artifact: The artifact of a metric.
        point: Columns of the point of the sweep, and the stage; one that is None stays as the
            metric gave it.

    Raises:
        UserError: rows.parquet lacks a column of the long table.
    """
    path = artifact.file("rows.parquet")
    table = pq.read_table(path)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise UserError(
            f"{path} has no column {missing[0]!r}; delete the folder and run the metric again"
        )
    known = {name: value for name, value in point.items() if value is not None}
    return [Figure(**{**row, **known}) for row in table.select(SCHEMA.names).to_pylist()]


def read_result(artifact: Artifact) -> dict[str, Any]:
    """Read the typed result of a metric artifact as plain JSON."""
    return cast(
        dict[str, Any], json.loads(artifact.file("result.json").read_text(encoding="utf-8"))
    )
