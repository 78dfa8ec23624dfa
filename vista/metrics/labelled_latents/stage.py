"""Stage: read words at the visual tokens by the labels of the latents that fire there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.judge import stage_judge, write_tally
from vista.inputs.latents import (
    rank_layer,
    read_geometry,
    read_image_records,
    read_latents,
    read_layer_labels,
)
from vista.inputs.patch_classes import patch_classes
from vista.metrics.labelled_latents import LabelledLatentsSettings
from vista.metrics.labelled_latents.measure import strongest_latents
from vista.metrics.results import write_result
from vista.metrics.word_readout import ReadLayer, word_readout_figures


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Latents with the labels of their layers, the features' geometry, and records."""

    latents: Artifact
    mask_latents: Artifact | None = None
    labels: list[Artifact]
    features: Artifact
    records: Artifact
    judge: Artifact | None = None


@stage(LabelledLatentsSettings, Inputs)
def run(job: StageJob[LabelledLatentsSettings, Inputs]) -> None:
    """Read latents, labels, records and the features' geometry; write the result.

    Raises UserError where no image has an object, or labels are of another SAE.
    """
    settings, inputs = job.settings, job.inputs
    latents = read_latents(inputs.latents)
    records = read_image_records(inputs.records, latents)
    if not any(record.objects for record in records):
        raise UserError("probing.labelled_latents: no image of the latents' split has an object")
    ks, mask = sorted(set(settings.ks)), settings.mask
    bounds = (mask.bounds, mask.bounds._replace(image_share=1.0))
    mask_images = read_latents(inputs.mask_latents) if inputs.mask_latents else latents
    layers = {}
    for layer, labels in read_layer_labels(inputs.labels, inputs.latents, latents).items():
        top = rank_layer(latents, layer, labels, bounds, max(ks), mask_images)
        masked, unmasked = ((top.ranked[pair], top.masks[pair]) for pair in bounds)
        parts = []
        for images in latents.slices():
            tokens = latents.tokens(layer, "image", images)
            nnz_bt = np.where(tokens.valid, tokens.nnz, 0)
            eligible_s = unmasked[1].eligible_s
            parts.append(strongest_latents(tokens.index, tokens.value, nnz_bt, eligible_s, max(ks)))
        layers[layer] = ReadLayer(labels.label_s, np.concatenate(parts), masked, unmasked)
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    placing, bootstrap = read_geometry(inputs.features), settings.bootstrap
    result = word_readout_figures(
        layers,
        [patch_classes(record, placing, settings.mask_cover) for record in records],
        [record.categories for record in records],
        judge.judge,
        readout="labelled_latents",
        judge_name=judge.name,
        n_one_token=None,
        ks=ks,
        max_image_share=mask.max_image_share,
        max_label_density=mask.max_label_density,
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    write_result(job.work, result)
    write_tally(job.work, judge)
