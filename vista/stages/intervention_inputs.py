"""What the stages `removal` and `replacement` share: they score edited captions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vista.config.intervention_metrics import InterventionMetricSettings
from vista.data.records import Record, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob
from vista.errors import UserError
from vista.inputs.judge import stage_judge, write_tally
from vista.judges import Judge
from vista.metrics.edited_captions import (
    OUTSIDE,
    UNEDITED,
    Edit,
    EditedCaption,
    ItemKey,
    Scored,
    score_captions,
    shown_by,
)
from vista.metrics.intervention import Task, intervention_figures
from vista.metrics.results import write_result
from vista.stages.edited_captions import CAPTIONS, FACTS

_COLUMNS = [
    *("image_id", "source", "target", "variant", "coefficient", "blocks", "caption", "found"),
    *("loss_sum", "loss_tokens"),
]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Edited captions of two splits, and the records."""

    development: Artifact
    test: Artifact
    records: Artifact
    judge: Artifact | None = None


def score_edits(job: StageJob[InterventionMetricSettings, Inputs], task: Task) -> None:
    """Read edited captions of both splits and the records; write the result and every score.

    Raises:
        UserError: A split has no image to edit, or its captions are of another task.
    """
    settings, inputs = job.settings, job.inputs
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    records = list(read_records(inputs.records.file("records.parquet")))
    facts = read_facts(inputs.test)
    attributes = sorted({*settings.attributes, *facts["words"]})
    scored = {
        role: _scored(captions, task, records, judge, attributes)
        for role, captions in (("development", inputs.development), ("test", inputs.test))
    }
    result = intervention_figures(
        task,
        scored["development"],
        scored["test"],
        method=facts["method"],
        space=facts["space"],
        how=facts["how"],
        judge_name=judge.name,
        n_attributes=len(attributes),
        seed=settings.bootstrap.seed,
        resamples=settings.bootstrap.resamples,
        level=settings.bootstrap.level,
    )
    chosen = {edit.edit for edit in result.edits}
    write_result(job.work, result, _items_table(scored["test"], chosen))
    write_tally(job.work, judge)


def read_facts(captions: Artifact) -> dict[str, Any]:
    """Return the description of the edits in an artifact of edited captions."""
    facts: dict[str, Any] = json.loads(captions.file(FACTS).read_text(encoding="utf-8"))
    return facts


def chosen_scores(result: Artifact) -> dict[str, dict[ItemKey, int]]:
    """Return each test item's score at the chosen coefficient and blocks, by place of the edit."""
    table = pq.read_table(
        result.file("items.parquet"),
        columns=["image_id", "source", "target", "variant", "score"],
        filters=[("chosen", "=", True)],
    )
    scores: dict[str, dict[ItemKey, int]] = {}
    for row in table.to_pylist():
        key = row["image_id"], row["source"], row["target"]
        scores.setdefault(row["variant"], {})[key] = row["score"]
    return scores


def _scored(
    artifact: Artifact,
    task: Task,
    records: Sequence[Record],
    judge: Judge,
    attributes: Sequence[str],
) -> list[Scored]:
    path = artifact.file(CAPTIONS)
    table = pq.read_table(path)
    tasks = set(table.column("task").to_pylist())
    if not tasks:
        raise UserError(f"{path} has no caption: its split has no image that can be edited.")
    if tasks != {task}:
        raise UserError(f"{path} is of task {sorted(tasks)[0]!r}, not {task!r}.")
    # An object that covers the grid leaves no patch outside it: such a control is left out, and
    # does not count as one without effect.
    edited = np.asarray(table.column("n_tokens")) > 0
    valid = edited | ~np.asarray(table.column("found"))
    controls = np.asarray(table.column("variant")) == OUTSIDE
    kept = table.select(_COLUMNS).filter(pa.array(valid | ~controls))
    captions = [
        EditedCaption(**{**row, "blocks": None if (at := row["blocks"]) is None else tuple(at)})
        for row in kept.to_pylist()
    ]
    if all(caption.variant == UNEDITED for caption in captions):
        raise UserError(f"{path} has no edited caption; give the edit a coefficient.")
    wanted = {caption.image_id for caption in captions}
    shown = shown_by(
        {r.image_id: r.categories for r in records if r.image_id in wanted},
        {r.image_id: _texts(r) for r in records if r.image_id in wanted},
        attributes,
        judge.judge,
    )
    vocabulary = {name for record in records for name in record.categories}
    return score_captions(captions, shown, vocabulary, judge.judge, attributes)


def _texts(record: Record) -> list[str]:
    return [*record.captions, *(turn.answer for turn in record.turns)]


def _items_table(scored: Iterable[Scored], chosen: set[Edit]) -> pa.Table:
    """One row a test item and edit."""
    rows = list(scored)
    columns: dict[str, Any] = {
        name: pa.array([getattr(row, name) for row in rows], kind)
        for name, kind in (
            ("image_id", pa.string()),
            ("source", pa.string()),
            ("target", pa.string()),
            ("variant", pa.string()),
            ("coefficient", pa.float64()),
            ("blocks", pa.list_(pa.int32())),
        )
    }
    columns["chosen"] = [row.edit in chosen for row in rows]
    for name, kind in (
        ("score", pa.int32()),
        ("found", pa.bool_()),
        ("named_before", pa.bool_()),
        ("removed", pa.bool_()),
        ("replaced", pa.bool_()),
        ("both_named", pa.bool_()),
        ("empty", pa.bool_()),
        ("new_details", pa.list_(pa.string())),
        ("hallucinated_change", pa.int32()),
        ("loss_change", pa.float64()),
        ("loss_tokens", pa.int32()),
    ):
        columns[name] = pa.array([getattr(row, name) for row in rows], kind)
    return pa.table(columns)
