"""Stage: measure where gated cross-attention looks, and how well captions are predicted with it.

Legend of shape suffixes: b caption, t token, l layer, h head, p patch, v encoder width, n token
whose successor is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.config.base import Settings
from vista.config.data import Split
from vista.config.language import LanguageSettings
from vista.config.metrics import BootstrapSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.maps import read_map_grid
from vista.metrics.cross_attention.measure import cross_attention_result
from vista.metrics.grounding_attention.measure import Measured, grounding_attention
from vista.metrics.grounding_attention.mentions import Caption, Placing, captions_of, no_mention
from vista.metrics.grounding_attention.passes import Passed, measure_captions, mention_tokens
from vista.metrics.results import write_result
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from vista.language.model import LanguageModel
    from vista.projector.cross_attention import CrossAttention


class MeasuredSettings(Settings):
    """What is measured of the trainings; the region is that of the training."""

    weights: tuple[float, ...]
    split: Split
    fit_split: Split
    max_images: int
    batch_size: int
    max_length: int
    region: Literal["mask", "box"]
    mask_cover: float
    bootstrap: BootstrapSettings = Field(default_factory=BootstrapSettings)


class CrossAttentionOrder(Settings):
    """The language model, and what is measured."""

    llm: LanguageSettings
    cross_attention: MeasuredSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, the language model, and cross-attention of each weight."""

    features: Artifact
    records: Artifact
    llm: Artifact | None = None
    trained: list[Artifact]


@stage(CrossAttentionOrder, Inputs)
def run(job: StageJob[CrossAttentionOrder, Inputs]) -> None:
    """Read features, records, LLM and cross-attention; write the result.

    Raises UserError where no reference answer of a split names an object that its image shows.
    """
    import torch

    from vista.inputs.models import load_llm
    from vista.projector.cross_attention import load_cross_attention

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.cross_attention, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    reader = FeatureReader(inputs.features.store("features.zarr"))
    llm = load_llm(job.settings.llm, inputs.llm)
    grid = read_map_grid(inputs.features)
    placing = Placing(
        grid.placing,
        reader.shape[1] // grid.frames,
        0,
        settings.max_length,
        settings.region,
        settings.mask_cover,
    )
    captions: dict[str, list[Caption]] = {}
    for field in ("fit_split", "split"):
        split = getattr(settings, field)
        captions[field] = captions_of(llm, records, split, settings.max_images, placing)
        if not captions[field]:
            raise UserError(no_mention(f"cross_attention.{field}", split))
    image_of = records.feature_rows()[1]
    draws = settings.bootstrap
    trainings = []
    for weight, artifact in zip(settings.weights, inputs.trained, strict=True):
        artifact.verify()
        module = load_cross_attention(artifact.path, d_vision=reader.shape[-1], llm=llm)

        def read(
            some: Sequence[Caption], rows: Sequence[int], module: CrossAttention = module
        ) -> Passed:
            features_bpv = reader.read(image_of[list(rows)]).astype(np.float32)
            return _pass(module, llm, some, features_bpv, settings.max_length)

        measured: dict[str, Measured] = {}
        for field, some in captions.items():
            measured[field], readings = measure_captions(
                some,
                read,
                frames=grid.frames,
                n_visual=0,
                batch_size=settings.batch_size,
                seed=draws.seed,
            )
        attention = grounding_attention(
            readings,
            measured["split"],
            measured["fit_split"],
            region=settings.region,
            seed=draws.seed,
            resamples=draws.resamples,
            level=draws.level,
        )
        gates = dict(zip(module.blocks, module.gates(), strict=True))
        nats_b = -measured["split"].own["cross_entropy"][:, 0]
        trainings.append((weight, gates, attention, nats_b))
    result = cross_attention_result(
        trainings,
        _plain(llm, captions["split"], settings),
        seed=draws.seed,
        resamples=draws.resamples,
        level=draws.level,
    )
    write_result(job.work, result)


def _pass(
    module: CrossAttention,
    llm: LanguageModel,
    captions: Sequence[Caption],
    features_bpv: NDArray[np.float32],
    max_length: int,
) -> Passed:
    """Read captions with the images of some features."""
    import torch

    from vista.language.loss import sample_cross_entropy

    with torch.no_grad():
        turns = [caption.record.turns[:1] for caption in captions]
        batch = llm.batch(turns, 0, max_length).to(llm.device)
        at_bt = mention_tokens(captions, batch.input_ids)
        x_bpv = torch.from_numpy(features_bpv).to(llm.device)
        logits_nv, weights_btlhp = module.read(llm, batch, x_bpv)
        loss_b, tokens_b = sample_cross_entropy(logits_nv, batch)
    nats_b = (loss_b.double() / tokens_b).cpu().numpy()
    return Passed(weights_btlhp[at_bt].cpu(), at_bt, nats_b)


def _plain(
    llm: LanguageModel, captions: Sequence[Caption], settings: MeasuredSettings
) -> NDArray[np.float64]:
    """Return the nats a token of captions [b] by the language model alone."""
    import torch

    from vista.language.loss import sample_cross_entropy

    parts = []
    for start in range(0, len(captions), settings.batch_size):
        some = captions[start : start + settings.batch_size]
        turns = [caption.record.turns[:1] for caption in some]
        batch = llm.batch(turns, 0, settings.max_length).to(llm.device)
        with torch.no_grad():
            logits_nv = llm.forward(
                batch.input_ids, batch.attention_mask, logits_at=batch.predict_mask
            ).logits
        assert logits_nv is not None
        loss_b, tokens_b = sample_cross_entropy(logits_nv, batch)
        parts.append((loss_b.double() / tokens_b).cpu().numpy())
    return np.concatenate(parts)
