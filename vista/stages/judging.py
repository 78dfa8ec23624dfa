"""The judge of a stage: with its model, its threshold, and the judgements of earlier runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vista.config.judge_base import JudgeSettings
from vista.config.judges import fitted_on, judge_source
from vista.data.records import RecordTable, read_records, reference, reference_captions
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.judges import Judge, Resources, load_judge
from vista.progress import progress
from vista.stages.model_folder import model_folder

if TYPE_CHECKING:
    from vista.judges.naming import Namer

# Beside the artifacts in the results folder: it outlives each of them.
JUDGEMENTS = "judgements"


def stage_judge(job: Job, settings: str | JudgeSettings, role: str = "judge") -> Judge:
    """Return the judge of a stage.

    A model that the workflow fetched is the input `role`. A judge whose threshold is to be fitted
    gets it from the input `records`; it is told in `role`.json.

    Raises:
        UserError: The judge cannot be loaded, or its threshold cannot be fitted.
    """
    judge = load_judge(settings, _resources(job, role, settings))
    if (split := fitted_on(settings)) is not None:
        records = read_records(job.input("records").file("records.parquet"))
        return _fitted(job, role, judge, records, split)
    return judge


def stage_namer(job: Job, settings: JudgeSettings, role: str = "judge") -> Namer:
    """Return who names for a stage. Raises UserError as `stage_judge`."""
    from vista.judges.naming import load_namer

    return load_namer(settings, _resources(job, role, settings))


def write_tally(job: Job, judge: Judge | Namer, role: str = "judge") -> None:
    """Write `role`.json where a judge had to ask a model: how many verdicts it failed to give."""
    tally = getattr(judge, "tally", None)
    if tally is not None:
        # Not what was asked now and what was kept: a second run would differ.
        content = {"verdicts": tally.verdicts, "unanswered": tally.unanswered}
        _write(job, role, {"judge": judge.name, **content})


def _resources(job: Job, role: str, settings: str | JudgeSettings) -> Resources:
    source = judge_source(settings)
    return Resources(
        model=None if source is None else str(model_folder(job, role, source)),
        cache=str(job.work.parents[2] / JUDGEMENTS),
        progress=_watched,
    )


def _fitted(job: Job, role: str, judge: Any, records: RecordTable, split: str) -> Judge:
    """Fit the threshold on each image's first reference caption and the objects of the split.

    That a caption names what its image shows is all the truth there is; labels of latents, which
    a judge mostly reads, are shorter. `vista.stages.judge_agreement` measures how it carries over.
    """
    rows = records.select(records.rows_of(split).tolist())
    shown = [record for record in rows if reference_captions(record)]
    objects = sorted({name for record in shown for name in record.categories})
    texts = [reference(record) for record in shown]
    if not texts or not objects:
        raise UserError(
            f"judge.fit_split: no image of {split!r} has a caption and an object; give "
            "judge.threshold"
        )
    truth = np.array([[name in record.categories for name in objects] for record in shown])
    fitted, threshold = judge.fit(texts, objects, truth)
    _write(job, role, {"judge": fitted.name, "threshold": asdict(threshold)})
    return fitted  # type: ignore[no-any-return]


def _write(job: Job, role: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False)
    (job.work / f"{role}.json").write_text(text + "\n", encoding="utf-8")


def _watched(items: Any, total: int) -> Any:
    return progress(items, total=total, desc="judge", unit="question")
