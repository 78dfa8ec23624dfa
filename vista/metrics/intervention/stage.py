"""Stage: measure whether an edit makes captions stop naming an object, or name another instead, and
what else it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vista.config.edits import EditTask
from vista.config.interventions import EDIT_TASKS, InterventionMetricSettings, Task
from vista.data.records import Record, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.inputs.edited_captions import read_captions, read_facts
from vista.inputs.judge import stage_judge, write_tally
from vista.judges import Judge
from vista.metrics.intervention.captions import Edit, Scored, score_captions, shown_by
from vista.metrics.intervention.choice import ControlOf
from vista.metrics.intervention.items import items_table
from vista.metrics.intervention.measure import InterventionResult, intervention_figures
from vista.metrics.results import read_result, write_result


class InterventionOrder(InterventionMetricSettings):
    """How captions are scored, and the task of their edits."""

    task: Task


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Edited captions of two splits, and the records; for captions of a control the scores of the
    method that it is a control of."""

    development: Artifact
    test: Artifact
    records: Artifact
    method: Artifact | None = None
    judge: Artifact | None = None


@stage(InterventionOrder, Inputs)
def run(job: StageJob[InterventionOrder, Inputs]) -> None:
    """Read edited captions of development and test, and records; write result and scores.

    A control is scored at the coefficient and blocks that were chosen for its method, and at its
    own best ones.

    Raises:
        UserError: A split has no image to edit, or its captions are of another task.
    """
    settings, inputs = job.settings, job.inputs
    task = EDIT_TASKS[settings.task]
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    records = list(read_records(inputs.records.file("records.parquet")))
    facts = read_facts(inputs.test)
    attributes = sorted({*settings.attributes, *facts["words"]})
    development, test = (
        _scored(captions, task, records, judge, attributes)
        for captions in (inputs.development, inputs.test)
    )
    control_of = None
    if facts["control"] is not None:
        control_of = ControlOf(facts["control"], _chosen_edit(inputs.method, facts["tokens"][0]))
    result = intervention_figures(
        task,
        development,
        test,
        method=facts["method"],
        space=facts["space"],
        how=facts["how"],
        judge_name=judge.name,
        n_attributes=len(attributes),
        seed=settings.bootstrap.seed,
        resamples=settings.bootstrap.resamples,
        level=settings.bootstrap.level,
        control_of=control_of,
    )
    chosen = {figures.edit for figures in result.edits}
    best = {result.best.edit} if result.best else chosen
    write_result(job.work, result, items_table(test, chosen, best))
    write_tally(job.work, judge)


def _chosen_edit(method: Artifact | None, place: str) -> Edit:
    """Return the edit that was chosen on development images for a place of a method."""
    assert method is not None, "captions of a control are scored beside their method"
    result = InterventionResult.model_validate(read_result(method))
    return next(figures.edit for figures in result.edits if figures.variant == place)


def _scored(
    artifact: Artifact,
    task: EditTask,
    records: Sequence[Record],
    judge: Judge,
    attributes: Sequence[str],
) -> list[Scored]:
    captions = read_captions(artifact, task)
    image_ids = {caption.image_id for caption in captions}
    captioned = [record for record in records if record.image_id in image_ids]
    shown = shown_by(
        {record.image_id: record.categories for record in captioned},
        {record.image_id: _texts(record) for record in captioned},
        attributes,
        judge.judge,
    )
    vocabulary = {name for record in records for name in record.categories}
    return score_captions(captions, shown, vocabulary, judge.judge, attributes)


def _texts(record: Record) -> list[str]:
    return [*record.captions, *(turn.answer for turn in record.turns)]
