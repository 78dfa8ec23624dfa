"""Stage: measure whether the labels of an image's strongest latents name what the image shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import pyarrow as pa

from vista.data.images import ImageSource, UnusableImage
from vista.data.records import Record
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.image_files import image_files
from vista.inputs.judge import stage_judge, write_tally
from vista.inputs.latents import (
    rank_layer,
    read_image_records,
    read_latents,
    read_layer_labels,
)
from vista.judges import NO, UNANSWERED, YES, Judge, LookingJudge, Shown
from vista.metrics.matching_rate import MatchingSettings
from vista.metrics.matching_rate.images import LookFunction, image_scores
from vista.metrics.matching_rate.measure import (
    LayerInput,
    Scores,
    VerdictArray,
    matching_rate,
    object_scores,
)
from vista.metrics.ranking import Ranked
from vista.metrics.results import write_result

_VERDICTS = {YES: True, NO: False, UNANSWERED: None}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Latents with the labels of their layers, records, and, with `evidence: image`, images."""

    latents: Artifact
    labels: list[Artifact]
    records: Artifact
    world: Artifact | None = None
    fetched: Artifact | None = None
    judge: Artifact | None = None


@stage(MatchingSettings, Inputs)
def run(job: StageJob[MatchingSettings, Inputs]) -> None:
    """Read latents, labels and records; write the result and each image's latents."""
    settings, inputs = job.settings, job.inputs
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    latents = read_latents(inputs.latents)
    records = read_image_records(inputs.records, latents)
    by_image = settings.evidence == "image"
    # Images without objects count for the frequency mask, but only a judge that is shown them can
    # tell what they show.
    judged = np.flatnonzero([by_image or bool(record.objects) for record in records])
    layers: dict[int, LayerInput] = {}
    for layer, labels in read_layer_labels(inputs.labels, inputs.latents, latents).items():
        ranked, mask = rank_layer(latents, layer, labels, settings.mask, max(settings.ks))
        chosen = Ranked(ranked.latent_bn[judged], ranked.token_bn[judged], ranked.value_bn[judged])
        layers[layer] = LayerInput(chosen, labels.label_s, mask)
    groups = [records[i].group for i in judged]
    if by_image:
        images = image_files(inputs.records, inputs.world, inputs.fetched)
        look = _look(images, judge, records)
        scores = image_scores(
            layers, len(records), look, settings.ks, settings.shuffle_seed, groups
        )
    else:
        objects = [records[i].categories for i in judged]
        scores = object_scores(layers, objects, judge.judge, settings.ks, groups)
    result = matching_rate(
        layers,
        scores,
        judge_name=judge.name,
        top_k=settings.top_k,
        ks=settings.ks,
        max_image_share=settings.mask.max_image_share,
        max_label_density=settings.mask.max_label_density,
        n_without_objects=len(records) - len(judged),
        nouns=sorted({name for record in records for name in record.categories}),
        seed=settings.bootstrap.seed,
        resamples=settings.bootstrap.resamples,
        level=settings.bootstrap.level,
    )
    image_ids = [records[i].image_id for i in judged]
    write_result(job.work, result, _items_table(image_ids, layers, scores))
    write_tally(job.work, judge)


def _look(images: ImageSource, judge: Judge, records: list[Record]) -> LookFunction:
    """Return a function that shows the files of images to the judge."""

    def look(shown: Sequence[int], labels: Sequence[Sequence[str | None]]) -> VerdictArray:
        items = [
            Shown(partial(images.read, records[b]), row)
            for b, row in zip(shown, labels, strict=True)
        ]
        try:
            # The settings refuse a judge that cannot be shown images.
            return cast(LookingJudge, judge).judge_images(items)
        except UnusableImage as error:
            raise UserError(
                f"{error}: put it back, or set metrics.matching_rate.evidence to objects"
            ) from error

    return look


def _items_table(image_ids: list[str], layers: dict[int, LayerInput], scores: Scores) -> pa.Table:
    """One row an image and layer: its latents, strongest first, and which of them match."""
    tables = []
    for layer, entry in sorted(layers.items()):
        columns: dict[str, object] = {
            "image_id": pa.array(image_ids, pa.string()),
            "layer": pa.array([layer] * len(image_ids), pa.int32()),
        }
        kept = [row[row >= 0] for row in entry.ranked.latent_bn]
        columns["latents"] = pa.array([row.tolist() for row in kept], pa.list_(pa.int32()))
        columns["labels"] = pa.array(
            [[entry.labels[s] for s in row] for row in kept], pa.list_(pa.string())
        )
        for name, values, kind in (
            ("tokens", entry.ranked.token_bn, pa.int32()),
            ("activations", entry.ranked.value_bn, pa.float32()),
        ):
            cut = [row[: len(k)].tolist() for row, k in zip(values, kept, strict=True)]
            columns[name] = pa.array(cut, pa.list_(kind))
        columns["named"] = pa.array(
            [
                [_VERDICTS[verdict] for verdict in row[: len(k)].tolist()]
                for row, k in zip(scores.layers[layer].named_bn, kept, strict=True)
            ],
            pa.list_(pa.bool_()),
        )
        for k, level in sorted(scores.layers[layer].matching.items()):
            columns[f"matched@{k}"] = pa.array(level.own_b > 0.5, pa.bool_(), np.isnan(level.own_b))
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)
