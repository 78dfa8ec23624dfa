"""Stage: measure whether latents that are named after a class fire where the class is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vista.data.records import Record
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.inputs.judge import stage_judge, write_tally
from vista.inputs.latents import (
    class_boxes,
    class_patches,
    rank_layer,
    read_image_records,
    read_latents,
    read_layer_labels,
)
from vista.inputs.maps import LatentMaps, MapGrid, read_map_grid, salient_tokens
from vista.metrics.localization import LocalizationSettings
from vista.metrics.localization.measure import LayerMaps, localization, own_latents
from vista.metrics.localization.pointing import Play, Target, scaled_limits
from vista.metrics.results import write_result


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Latents with the labels of their layers, records, and the features' geometry.

    The frequency mask is estimated on `mask_latents`, or without these on `latents`.
    """

    latents: Artifact
    mask_latents: Artifact | None = None
    labels: list[Artifact]
    records: Artifact
    features: Artifact
    judge: Artifact | None = None


@stage(LocalizationSettings, Inputs)
def run(job: StageJob[LocalizationSettings, Inputs]) -> None:
    """Read latents, labels, records and the features' geometry; write result and turns.

    Of video models, all places are patches: a patch has the mean over its frames.
    """
    settings, inputs = job.settings, job.inputs
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    latents = read_latents(inputs.latents)
    records = read_image_records(inputs.records, latents)
    grid = read_map_grid(inputs.features)
    n_patches = latents.kinds["image"] // grid.frames
    targets = _targets(records, grid, latents.grid, settings.mask_cover)
    categories = sorted({target.category for target in targets})
    mask_images = read_latents(inputs.mask_latents) if inputs.mask_latents else latents
    masked = settings.mask.bounds
    unmasked = masked.without("unmasked")
    layers: dict[int, LayerMaps] = {}
    for layer, labels in read_layer_labels(inputs.labels, inputs.latents, latents).items():
        top = rank_layer(latents, layer, labels, [masked, unmasked], settings.top_k, mask_images)
        latent_of = own_latents(labels.label_s, labels.share_s, categories, judge.judge)
        maps = LatentMaps(latents, layer, grid.frames)
        layers[layer] = LayerMaps(
            ranked=maps.pointed(top.ranked[masked]),
            labels=labels.label_s,
            own_latent=latent_of,
            activation=maps,
            unmasked=maps.pointed(top.ranked[unmasked]),
            salient_b=salient_tokens(latents, layer, grid.frames),
        )
    min_patches, max_patches = scaled_limits(settings.min_patches, settings.max_patches, n_patches)
    result, plays = localization(
        layers,
        targets,
        judge.judge,
        judge_name=judge.name,
        n_images=len(records),
        n_patches=n_patches,
        min_patches=min_patches,
        max_patches=max_patches,
        mask_images="validation" if inputs.mask_latents else "evaluated",
        n_mask_images=len(mask_images.image_ids),
        permutations=settings.permutations,
        seed=settings.bootstrap.seed,
        resamples=settings.bootstrap.resamples,
        level=settings.bootstrap.level,
        groups=[record.group for record in records],
    )
    write_result(job.work, result, _items(records, plays))
    write_tally(job.work, judge)


def _targets(
    records: list[Record], grid: MapGrid, tokens: tuple[int, int], mask_cover: float
) -> list[Target]:
    """Return each class of each image that the encoded image shows, with its patches."""
    targets = []
    for image, record in enumerate(records):
        geometry = grid.geometry(record, tokens)
        for category, box_p, mask_p in class_patches(record, geometry, mask_cover):
            # A crop may cut the whole object off; the encoded image does not show it then.
            if box_p.any():
                boxes_xp = class_boxes(record, geometry, category)
                targets.append(Target(image, category, box_p, mask_p, boxes_xp))
    return targets


def _items(records: list[Record], plays: list[Play]) -> pa.Table:
    """Every turn of the pointing game."""
    columns: dict[str, tuple[list[Any], pa.DataType]] = {
        "image_id": ([records[play.image].image_id for play in plays], pa.string()),
        "layer": ([play.layer for play in plays], pa.int32()),
        "category": ([play.category for play in plays], pa.string()),
        "latent": ([play.latent for play in plays], pa.int32()),
        "token": ([play.token for play in plays], pa.int32()),
        "hit": ([play.hit for play in plays], pa.bool_()),
        "salient": ([play.salient for play in plays], pa.int32()),
        "salient_hit": ([play.salient_hit for play in plays], pa.bool_()),
        "covered": ([play.covered for play in plays], pa.float64()),
    }
    return pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})
