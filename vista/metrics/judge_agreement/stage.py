"""Stage: measure judges against annotated captions, labels and images, and against each other.

Suffixes: as in vista.metrics.judge_agreement.measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from vista.data.records import Record, read_records, reference_captions
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, roles_beginning, stage
from vista.errors import UserError
from vista.inputs.image_files import image_files
from vista.inputs.judge import stage_judge, write_tally
from vista.judges import NO, UNANSWERED, YES, Judge, LookingJudge, Shown
from vista.judges.asking import AskingJudge
from vista.metrics.judge_agreement import JudgeAgreementSettings
from vista.metrics.judge_agreement.measure import (
    Judged,
    Kind,
    Verdicts,
    judge_agreement,
    label_truth,
)
from vista.metrics.results import write_result
from vista.sae.label_table import FILE, read_labels


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Records, labels of latents, images, and the fetched models of judges by `judge_<name>`."""

    records: Artifact
    labels: list[Artifact] = field(default_factory=list)
    world: Artifact | None = None
    fetched: Artifact | None = None
    judges: Mapping[str, Artifact] = roles_beginning("judge_")


@stage(JudgeAgreementSettings, Inputs)
def run(job: StageJob[JudgeAgreementSettings, Inputs]) -> None:
    """Ask every judge about every item; write the result, and judge_<name>.json of some judges.

    Verdicts that a judge fails to give are counted and left out; in other metrics such a verdict
    on a text counts as no.

    Raises UserError where the split has no image, no object, or nothing that a judge could read.
    """
    settings, inputs = job.settings, job.inputs
    path = inputs.records.file("records.parquet")
    records = read_records(path)
    split = records.select(records.rows_of(settings.split).tolist())
    categories = sorted({name for record in split for name in record.categories})
    if not categories:
        raise UserError(
            f"judge_agreement.split: {path} has no object in split {settings.split!r}; take "
            "another split, or set metrics.judge_agreement to null"
        )
    shown = [split[i] for i in _drawn(len(split), settings.max_images, settings.seed)]
    captions = [text for record in shown for text in reference_captions(record)]
    image_i = np.array(
        [b for b, record in enumerate(shown) for _ in reference_captions(record)], dtype=np.int64
    )
    labels, truth_io, compared_i = _labels(inputs.labels, settings, categories)
    if not captions and not labels:
        raise UserError(
            f"judge_agreement: {path} has no caption in split {settings.split!r} and there are no "
            "labels; set metrics.judge_agreement to null"
        )
    pictures: list[Shown] = []
    if settings.show_images:
        images = image_files(inputs.records, inputs.world, inputs.fetched)
        pictures = [Shown(partial(images.read, record), categories) for record in shown]
    verdicts: dict[Kind, dict[str, Verdicts]] = {"captions": {}, "labels": {}, "images": {}}
    names = {}
    # One judge after the other, so that one model at a time is in memory.
    for name, choice in sorted(settings.judges.items()):
        role = f"judge_{name}"
        judge = stage_judge(choice, inputs.judges.get(role), inputs.records, job.work, role)
        names[name] = judge.name
        verdicts["captions"][name] = _verdicts(judge, captions, categories)
        verdicts["labels"][name] = _verdicts(judge, labels, categories)
        if pictures and judge.looks:
            verdicts["images"][name] = cast(LookingJudge, judge).judge_images(pictures)
        write_tally(job.work, judge, role)
    present_bo = _present(shown, categories)
    bootstrap = settings.bootstrap
    result = judge_agreement(
        Judged("captions", image_i, present_bo[image_i], verdicts["captions"], _all(captions)),
        Judged("labels", np.arange(len(labels)), truth_io, verdicts["labels"], compared_i),
        Judged(
            "images",
            np.arange(len(pictures)),
            present_bo[: len(pictures)],
            verdicts["images"],
            _all(pictures),
        ),
        judges=names,
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    write_result(job.work, result)


def _verdicts(judge: Judge, texts: Sequence[str], categories: Sequence[str]) -> Verdicts:
    """Return a judge's verdicts on texts, [i, o]; only a judge that asks a model may fail to."""
    if isinstance(judge, AskingJudge):
        return judge.verdicts(texts, categories)
    return judge.judge(texts, categories).astype(np.int8)


def _drawn(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """Return `most` of n places at random, or all of them, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


def _present(records: Sequence[Record], categories: Sequence[str]) -> Verdicts:
    """Return which categories are annotated in each image, [b, o]."""
    rows = [[YES if name in r.categories else NO for name in categories] for r in records]
    return np.array(rows, dtype=np.int8)


def _all(items: Sequence[object]) -> NDArray[np.bool_]:
    return np.ones(len(items), dtype=bool)


def _labels(
    artifacts: Sequence[Artifact], settings: JudgeAgreementSettings, categories: Sequence[str]
) -> tuple[list[str], Verdicts, NDArray[np.bool_]]:
    """Return the labels to judge, the truth about them [i, o], and which were drawn [i]."""
    tables = [read_labels(artifact.file(FILE)) for artifact in artifacts]
    distinct = sorted({text for table in tables for text in table.label_s if text and text.strip()})
    truth_io = label_truth(distinct, categories)
    drawn_i = np.zeros(len(distinct), dtype=bool)
    drawn_i[_drawn(len(distinct), settings.max_labels, settings.seed)] = True
    kept = np.flatnonzero(drawn_i | (truth_io != UNANSWERED).any(axis=1))
    return [distinct[i] for i in kept], truth_io[kept], drawn_i[kept]
