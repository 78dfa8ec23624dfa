"""Stage: choose the scale of visual tokens in which labelled latents name most.

Legend of shape suffixes: b image, p patch token, d LLM width, k slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.projector import LatentsSettings
from vista.controls.kinds.best_scale import Settings as BestScaleSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.inputs.judge import stage_judge, write_tally
from vista.metrics.matching_rate import MatchingSettings
from vista.metrics.matching_rate.measure import JudgeFunction, LayerInput, object_scores
from vista.metrics.ranking import mask_latents, rank_latents
from vista.metrics.results import write_parquet
from vista.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from vista.language.model import LanguageModel
    from vista.sae.label_table import LatentLabels
    from vista.sae.neutral import SparseAutoencoder

_BATCH = 64


class ChooseScaleOrder(Settings):
    """The language model, the scales that are tried, and how each is judged."""

    llm: LanguageSettings
    scale: BestScaleSettings
    matching: MatchingSettings
    latents: LatentsSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, the models, and the labels of the latents.

    `checks` are not read: the stage waits until they have passed.
    """

    features: Artifact
    records: Artifact
    projector: Artifact
    llm: Artifact | None = None
    saes: list[Artifact]
    checks: list[Artifact] = field(default_factory=list)
    labels: list[Artifact]
    judge: Artifact | None = None


@stage(ChooseScaleOrder, Inputs)
def run(job: StageJob[ChooseScaleOrder, Inputs]) -> None:
    """Read projector, features, records, LLM, SAEs and labels; write the scaled projector,
    control.json and scales.parquet, one row a scale that was tried.

    Raises UserError where the split has no image with an object.
    """
    import torch

    from vista.controls.sources import scaled
    from vista.inputs.models import load_llm, load_saes
    from vista.inputs.visual_tokens import read_visual_tokens
    from vista.projector.control_tokens import ControlTokens, save_control
    from vista.sae.label_table import FILE, read_labels

    torch.set_num_threads(job.threads)
    order, inputs = job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    rows = np.array(
        [row for row in records.rows_of(order.scale.split) if records[int(row)].categories],
        dtype=np.int64,
    )[: order.scale.images]
    if not len(rows):
        raise UserError(
            f"sweep.controls.best_scale.split {order.scale.split!r}: no image of that split has an "
            "object to choose a scale by; name another split"
        )
    llm = load_llm(order.llm, inputs.llm)
    saes = load_saes(inputs.saes, llm)
    labels = {table.layer: table for table in (read_labels(a.file(FILE)) for a in inputs.labels)}
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    judge = stage_judge(order.matching.judge, inputs.judge, inputs.records, job.work)
    shown = records.select(rows)
    with torch.no_grad():
        tokens = [visual.of(rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)]
        own = _rms([part.flatten(0, 1) for part in tokens])
        batch = llm.batch([record.turns[:1] for record in shown], 0, order.latents.max_length)
        batch = batch.to(llm.device)
        text = _rms([llm.embed(batch.input_ids)[batch.text_mask]])
        factors = [1.0, *(norm * text / own for norm in order.scale.norms if own > 0)]
        rates = []
        for factor in progress(factors, desc="scales", unit="scale"):
            layers = _latents(llm, saes, [part * factor for part in tokens], order.latents)
            rates.append(
                matching(layers, labels, [r.categories for r in shown], judge.judge, order.matching)
            )
    # The first of equal ones: the point's own scale stands first.
    best = int(np.argmax([rate for rate, _ in rates]))
    assert visual.projector is not None
    chosen = ControlTokens(
        scaled(visual.projector, factors[best]),
        {"factor": factors[best], "norm": own, "text_norm": text, "matching_rate": rates[best][0]},
    )
    save_control(job.work, "best_scale", chosen, records, rows)
    write_parquet(
        job.work / "scales.parquet",
        pa.table(
            {
                "factor": factors,
                "norm_of_text": [factor * own / text for factor in factors],
                "matching_rate": [rate for rate, _ in rates],
                "shuffled": [level for _, level in rates],
                "n": [len(rows)] * len(factors),
            }
        ),
    )
    write_tally(job.work, judge)


def matching(
    layers: Mapping[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    labels: Mapping[int, LatentLabels],
    objects: Sequence[Sequence[str]],
    judge: JudgeFunction,
    settings: MatchingSettings,
) -> tuple[float, float]:
    """Return the matching rate at `top_k` and its shuffled level, means over layers.

    Args:
        layers: Latents of the visual tokens by layer: index and value [b, p, k], and the number of
            active ones [b, p].
        labels: Labels by layer.
        objects: Names of the objects of each image.
        judge: Decides which names a label holds.
        settings: Masks and k.
    """
    k, entries = settings.top_k, {}
    for layer, (index_bpk, value_bpk, nnz_bp) in layers.items():
        table = labels[layer]
        fires_bs = np.zeros((len(index_bpk), len(table.label_s)), dtype=bool)
        used_bpk = np.arange(index_bpk.shape[2]) < nnz_bp[..., None]
        image, patch, slot = np.nonzero(used_bpk)
        fires_bs[image, index_bpk[image, patch, slot]] = True
        mask = mask_latents(
            fires_bs.mean(axis=0),
            table.density_s,
            settings.mask.max_image_share,
            settings.mask.max_label_density,
            table.label_s,
        )
        ranked = rank_latents(index_bpk, value_bpk, nnz_bp, mask.eligible_s, k)
        entries[layer] = LayerInput(ranked, table.label_s, mask)
    scores = object_scores(entries, objects, judge, [k])
    levels = [layer.matching[k] for layer in scores.layers.values()]
    return (
        float(np.mean([level.own_b.mean() for level in levels])),
        float(np.mean([level.shuffled for level in levels])),
    )


def _latents(
    llm: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    tokens: Sequence[Tensor],
    settings: LatentsSettings,
) -> dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Return index, value and number of the latents of visual tokens by layer."""
    from vista.inputs.visual_tokens import visual_streams

    slots = min(settings.max_active, max(sae.config.d_sae for sae in saes.values()))
    parts: dict[int, list[list[NDArray[Any]]]] = {layer: [] for layer in saes}
    for visual_bpd in tokens:
        b, n_visual, _ = visual_bpd.shape
        streams = visual_streams(llm, visual_bpd, list(saes))
        for layer, sae in saes.items():
            x_nd = streams[layer].flatten(0, 1).float()
            codes = sae.encode_sparse(x_nd, slots, "latents.max_active")
            parts[layer].append(
                [column.cpu().numpy().reshape(b, n_visual, *column.shape[1:]) for column in codes]
            )
    return {
        layer: tuple(np.concatenate(column) for column in zip(*batches, strict=True))  # type: ignore[misc]
        for layer, batches in parts.items()
    }


def _rms(parts: Sequence[Tensor]) -> float:
    """Return the root of the mean squared norm of vectors [n, d]."""
    total = sum(float(part.double().square().sum()) for part in parts)
    return float((total / max(1, sum(len(part) for part in parts))) ** 0.5)


def need(node: Node, shapes: Shapes) -> Need:
    """A pass up to the last layer with an SAE for each scale."""
    shape, vision, saes = shapes.llm(node), shapes.features(node), shapes.saes(node)
    if shape is None or vision is None or saes is None:
        return UNKNOWN
    settings, device = node.order["scale"], shapes.llm_device(node)
    tokens = settings["images"] * vision.patches * (len(settings["norms"]) + 1)
    flops = formulas.forward_flops(shape, tokens, 0, blocks=max(saes.layers) + 1)
    sae_flops = formulas.sae_flops(shape.d_model, saes, tokens, decoded=False)
    memory = formulas.reading_memory(shape, device, saes, _BATCH, vision.patches)
    size = formulas.projector_parameters("linear", vision.d_vision, shape.d_model)
    return Need(4 * size, device.memory(memory), TORCH_START + device.seconds(flops, sae_flops))
