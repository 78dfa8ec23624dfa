"""Artifacts of edited captions: their files, and what is read from them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vista.config.edits import EditTask
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.metrics.intervention.captions import OUTSIDE, UNEDITED, EditedCaption

# A row a caption, and a description of the edits.
CAPTIONS = "captions.parquet"
FACTS = "edits.json"
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("target", pa.string()),
        pa.field("task", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
        pa.field("coefficient", pa.float64(), nullable=False),
        pa.field("blocks", pa.list_(pa.int32())),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("found", pa.bool_(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        # The edited patches, as row-major positions in the grid of visual tokens.
        pa.field("patches", pa.list_(pa.int32()), nullable=False),
        pa.field("loss_sum", pa.float64(), nullable=False),
        pa.field("loss_tokens", pa.int32(), nullable=False),
        pa.field("damage_sum", pa.float64(), nullable=False),
        pa.field("damage_tokens", pa.int32(), nullable=False),
    ]
)

_READ = [
    *("image_id", "source", "target", "variant", "coefficient", "blocks", "caption", "found"),
    *("loss_sum", "loss_tokens", "damage_sum", "damage_tokens"),
]


def read_facts(captions: Artifact) -> dict[str, Any]:
    """Return the description of the edits in an artifact of edited captions."""
    facts: dict[str, Any] = json.loads(captions.file(FACTS).read_text(encoding="utf-8"))
    return facts


def read_captions(captions: Artifact, task: EditTask) -> list[EditedCaption]:
    """Return the captions of an artifact, without controls that edit no patch.

    Raises:
        UserError: There is no caption or no edited one, or the edits are of another task.
    """
    path = captions.file(CAPTIONS)
    table = pq.read_table(path)
    tasks = set(table.column("task").to_pylist())
    if not tasks:
        raise UserError(f"{path} has no caption: its split has no image that can be edited.")
    if tasks != {task}:
        raise UserError(f"{path} is of task {sorted(tasks)[0]!r}, not {task!r}.")
    # An object that covers the grid leaves no patch outside it: such a control is left out, and
    # does not count as one without effect.
    edited = np.asarray(table.column("n_tokens")) > 0
    without_direction = ~np.asarray(table.column("found"))
    is_control = np.asarray(table.column("variant")) == OUTSIDE
    valid = table.select(_READ).filter(pa.array(edited | without_direction | ~is_control))
    rows = [
        EditedCaption(**{**row, "blocks": None if row["blocks"] is None else tuple(row["blocks"])})
        for row in valid.to_pylist()
    ]
    if all(row.variant == UNEDITED for row in rows):
        raise UserError(f"{path} has no edited caption; give the edit a coefficient.")
    return rows
