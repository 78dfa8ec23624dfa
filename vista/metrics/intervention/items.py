"""The table of an intervention's test items: a row an item and edit."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vista.engine.artifacts import Artifact
from vista.metrics.intervention.captions import Edit, ItemKey, Scored

_EDIT = {
    "image_id": pa.string(),
    "source": pa.string(),
    "target": pa.string(),
    "variant": pa.string(),
    "coefficient": pa.float64(),
    "blocks": pa.list_(pa.int32()),
}
_SCORES = {
    "score": pa.int32(),
    "found": pa.bool_(),
    "named_before": pa.bool_(),
    "removed": pa.bool_(),
    "replaced": pa.bool_(),
    "both_named": pa.bool_(),
    "empty": pa.bool_(),
    "new_details": pa.list_(pa.string()),
    "hallucinated_change": pa.int32(),
    "loss_change": pa.float64(),
    "loss_tokens": pa.int32(),
    "damage_sum": pa.float64(),
    "damage_tokens": pa.int32(),
}


def items_table(
    scored: Iterable[Scored], chosen: Collection[Edit], best: Collection[Edit]
) -> pa.Table:
    """Return the scores of test items.

    `chosen` tells the rows of the edits that are reported, `best` those of the edits that are best
    on development images: the same, but of a control, which is reported at the method's edit.
    """
    rows = list(scored)

    def columns(types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
        return {
            name: pa.array([getattr(row, name) for row in rows], type_)
            for name, type_ in types.items()
        }

    marks = {
        name: pa.array([row.edit in edits for row in rows], pa.bool_())
        for name, edits in (("chosen", chosen), ("best", best))
    }
    return pa.table({**columns(_EDIT), **marks, **columns(_SCORES)})


def chosen_scores(
    intervention: Artifact, mark: Literal["chosen", "best"] = "chosen"
) -> dict[str, dict[ItemKey, int]]:
    """Return each test item's score at the marked coefficient and blocks, by place of the edit."""
    table = pq.read_table(
        intervention.file("items.parquet"),
        columns=["image_id", "source", "target", "variant", "score"],
        filters=[(mark, "=", True)],
    )
    scores: dict[str, dict[ItemKey, int]] = {}
    for row in table.to_pylist():
        key = row["image_id"], row["source"], row["target"]
        scores.setdefault(row["variant"], {})[key] = row["score"]
    return scores
