"""Stage: do the labels of an image's strongest latents name what the image shows?"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vista.artifacts import Job
from vista.config.metrics import MatchingSettings
from vista.metrics.matching_rate import LayerInput, MatchingItems, matching_rate
from vista.metrics.ranking import Ranked
from vista.stages.judging import stage_judge, write_tally
from vista.stages.latent_inputs import (
    rank_layer,
    read_image_records,
    read_latents,
    read_layer_labels,
)
from vista.stages.results import write_result


def run(job: Job) -> None:
    """Read latents, labels and records; write the result and each image's latents."""
    settings = MatchingSettings.model_validate(job.settings)
    judge = stage_judge(job, settings.judge)
    latents = read_latents(job)
    records = read_image_records(job, latents)
    # Images without objects still count for the frequency mask, but nobody can judge them.
    judged = np.flatnonzero([bool(record.objects) for record in records])
    layers: dict[int, LayerInput] = {}
    for layer, labels in read_layer_labels(job, latents).items():
        ranked, mask = rank_layer(latents, layer, labels, settings.mask, max(settings.ks))
        chosen = Ranked(ranked.latent_bn[judged], ranked.token_bn[judged], ranked.value_bn[judged])
        layers[layer] = LayerInput(chosen, labels.label_s, mask)
    result, items = matching_rate(
        layers,
        [records[i].categories for i in judged],
        judge.judge,
        judge_name=judge.name,
        top_k=settings.top_k,
        ks=settings.ks,
        max_image_share=settings.mask.max_image_share,
        max_label_density=settings.mask.max_label_density,
        n_without_objects=len(records) - len(judged),
        seed=settings.bootstrap.seed,
        resamples=settings.bootstrap.resamples,
        level=settings.bootstrap.level,
    )
    image_ids = [records[i].image_id for i in judged]
    write_result(job, result, _items_table(image_ids, layers, items))
    write_tally(job, judge)


def _items_table(
    image_ids: list[str], layers: dict[int, LayerInput], items: MatchingItems
) -> pa.Table:
    """One row an image and layer: its latents, strongest first, and what they matched."""
    tables = []
    for layer, given in sorted(layers.items()):
        columns: dict[str, object] = {
            "image_id": pa.array(image_ids, pa.string()),
            "layer": pa.array([layer] * len(image_ids), pa.int32()),
        }
        kept = [row[row >= 0] for row in given.ranked.latent_bn]
        columns["latents"] = pa.array([row.tolist() for row in kept], pa.list_(pa.int32()))
        columns["labels"] = pa.array(
            [[given.labels[s] for s in row] for row in kept], pa.list_(pa.string())
        )
        for name, values, kind in (
            ("tokens", given.ranked.token_bn, pa.int32()),
            ("activations", given.ranked.value_bn, pa.float32()),
            ("named", items.named_bn[layer], pa.bool_()),
        ):
            cut = [row[: len(k)].tolist() for row, k in zip(values, kept, strict=True)]
            columns[name] = pa.array(cut, pa.list_(kind))
        for k, matched in sorted(items.matched[layer].items()):
            columns[f"matched@{k}"] = pa.array(matched > 0.5, pa.bool_())
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)
