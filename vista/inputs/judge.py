"""Load the judge of a stage with its model, its threshold and the cache of its judgements."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vista.config.judge_base import JudgeSettings
from vista.config.judges import fitted_on, judge_source
from vista.data.records import RecordTable, read_records, reference, reference_captions
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.model_folder import model_folder
from vista.judges import Judge, Resources, load_judge
from vista.progress import progress

if TYPE_CHECKING:
    from vista.judges.naming import Namer

# Folder in the results folder, beside those of the stages, so that it outlives the artifacts.
JUDGEMENTS = "judgements"


def stage_judge(
    settings: str | JudgeSettings,
    model: Artifact | None,
    records: Artifact,
    work: Path,
    role: str = "judge",
) -> Judge:
    """Return the judge of a stage.

    Args:
        settings: The judge, by its name or with its settings.
        model: The fetched model that the judge runs; None where it runs none, or one in a folder.
        records: The records that a threshold is fitted on, if the settings ask for that.
        work: The stage's work folder; a fitted threshold is written to `role`.json.
        role: The input role of `model`, and name of the file.

    Raises:
        UserError: The judge cannot be loaded, or its threshold cannot be fitted.
    """
    judge = load_judge(settings, _resources(settings, model, work, role))
    if (split := fitted_on(settings)) is not None:
        table = read_records(records.file("records.parquet"))
        return _fitted(judge, table, split, work, role)
    return judge


def stage_namer(settings: JudgeSettings, model: Artifact | None, work: Path) -> Namer:
    """Return the judge that names latents for a stage. Raises UserError as `stage_judge`."""
    from vista.judges.naming import load_namer

    return load_namer(settings, _resources(settings, model, work, "judge"))


def write_tally(work: Path, judge: Judge | Namer, role: str = "judge") -> None:
    """Write the number of verdicts that a judge failed to give to `role`.json; only of a judge
    that asks a model."""
    tally = getattr(judge, "tally", None)
    if tally is not None:
        # Not how many were asked and how many were cached: a second run would differ.
        content = {"verdicts": tally.verdicts, "unanswered": tally.unanswered}
        _write(work, role, {"judge": judge.name, **content})


def _resources(
    settings: str | JudgeSettings, model: Artifact | None, work: Path, role: str
) -> Resources:
    source = judge_source(settings)
    return Resources(
        model=None if source is None else str(model_folder(model, source, role)),
        cache=str(work.parents[2] / JUDGEMENTS),
        progress=_with_progress,
    )


def _fitted(judge: Any, records: RecordTable, split: str, work: Path, role: str) -> Judge:
    """Fit the threshold on each image's first reference caption and the objects of the split.

    The truth is that a caption names the objects of its image. Labels of latents, which a judge
    mostly reads, are shorter than captions: `vista.metrics.judge_agreement` measures how well
    the threshold carries over.
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
    _write(work, role, {"judge": fitted.name, "threshold": asdict(threshold)})
    return fitted  # type: ignore[no-any-return]


def _write(work: Path, role: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False)
    (work / f"{role}.json").write_text(text + "\n", encoding="utf-8")


def _with_progress(items: Any, total: int) -> Any:
    return progress(items, total=total, desc="judge", unit="question")
