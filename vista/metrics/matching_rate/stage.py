"""Stage: measure whether the labels of an image's strongest latents name what the image shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import pyarrow as pa

from vista.config.metrics import MaskBounds
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
from vista.metrics.matching_rate.masks import HiddenLatents, hidden_latents
from vista.metrics.matching_rate.measure import LayerInput, matching_rate, object_scores
from vista.metrics.matching_rate.scores import Scores, VerdictArray
from vista.metrics.results import write_result

_VERDICTS = {YES: True, NO: False, UNANSWERED: None}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Latents with the labels of their layers, records, and, with `evidence: image`, images.

    The frequency mask is estimated on `mask_latents`, or without these on `latents`.
    """

    latents: Artifact
    mask_latents: Artifact | None = None
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
    mask_images = read_latents(inputs.mask_latents) if inputs.mask_latents else latents
    without, curve = settings.without_bounds, settings.curve_bounds
    bounds = [settings.mask.bounds, *without.values(), *curve.values()]
    bootstrap = settings.bootstrap
    draws = (bootstrap.seed, bootstrap.resamples, bootstrap.level)
    by_bounds: dict[MaskBounds, dict[int, LayerInput]] = {pair: {} for pair in bounds}
    hidden: dict[int, list[HiddenLatents]] = {}
    for layer, labels in read_layer_labels(inputs.labels, inputs.latents, latents).items():
        top = rank_layer(latents, layer, labels, bounds, max(settings.ks), mask_images)
        for pair, layers in by_bounds.items():
            ranked = top.ranked[pair].of(judged)
            layers[layer] = LayerInput(ranked, labels.label_s, top.masks[pair])
        masks = top.masks[settings.mask.bounds]
        hidden[layer] = hidden_latents(masks, top.fires_s, top.activation_bm, draws)
    groups = [records[i].group for i in judged]
    if by_image:
        images = image_files(inputs.records, inputs.world, inputs.fetched)
        look = _look(images, judge, records)
        score = partial(
            image_scores,
            n_images=len(records),
            look=look,
            ks=settings.ks,
            seed=settings.shuffle_seed,
            groups=groups,
        )
    else:
        objects = [records[i].categories for i in judged]
        score = partial(
            object_scores, objects=objects, judge=judge.judge, ks=settings.ks, groups=groups
        )
    scores = _scores(by_bounds, score)
    masked = settings.mask.bounds
    result = matching_rate(
        by_bounds[masked],
        scores[masked],
        judge_name=judge.name,
        top_k=settings.top_k,
        ks=settings.ks,
        bounds=masked,
        mask_images="validation" if inputs.mask_latents else "evaluated",
        n_mask_images=len(mask_images.image_ids),
        n_without_objects=len(records) - len(judged),
        nouns=sorted({name for record in records for name in record.categories}),
        hidden=hidden,
        without={name: scores[pair] for name, pair in without.items()},
        curve={share: scores[pair] for share, pair in curve.items()},
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    image_ids = [records[i].image_id for i in judged]
    write_result(job.work, result, _items_table(image_ids, by_bounds[masked], scores[masked]))
    write_tally(job.work, judge)


def _scores(
    by_bounds: Mapping[MaskBounds, dict[int, LayerInput]],
    score: Callable[[dict[int, LayerInput]], Scores],
) -> dict[MaskBounds, Scores]:
    """Return the judge's verdicts under all bounds; equal rankings are put to it once."""
    by_ranking: dict[bytes, Scores] = {}
    scores = {}
    for bounds, layers in by_bounds.items():
        ranking = b"".join(entry.ranked.latent_bn.tobytes() for entry in layers.values())
        if ranking not in by_ranking:
            by_ranking[ranking] = score(layers)
        scores[bounds] = by_ranking[ranking]
    return scores


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
