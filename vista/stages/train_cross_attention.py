"""Stage: train gated cross-attention from a frozen language model to an encoder's patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.cross_attention import CrossAttentionSettings
from vista.config.language import LanguageSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import NONE
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import text_tokens
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.store.features import FeatureReader


class TrainCrossAttentionOrder(Settings):
    """The language model, how cross-attention is trained, the weight of the attention loss and the
    seed."""

    llm: LanguageSettings
    cross_attention: CrossAttentionSettings
    weight: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The data to learn from, and the language model."""

    features: Artifact
    records: Artifact
    llm: Artifact | None = None


@stage(TrainCrossAttentionOrder, Inputs)
def run(job: StageJob[TrainCrossAttentionOrder, Inputs]) -> None:
    """Read features, records and LLM; write the cross-attention and curve.parquet.

    Raises UserError where no caption names an object, or the settings do not fit the model.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from vista.inputs.latents import read_geometry
    from vista.inputs.models import load_llm
    from vista.metrics.grounding_attention.mentions import Placing, captions_of, no_mention
    from vista.projector.cross_attention import (
        WordTokens,
        make_cross_attention,
        save_cross_attention,
    )
    from vista.projector.cross_training import Step, train_cross_attention

    torch.set_num_threads(job.threads)
    order, inputs = job.settings, job.inputs
    settings = order.cross_attention
    records = read_records(inputs.records.file("records.parquet"))
    reader = FeatureReader(inputs.features.store("features.zarr"))
    llm = load_llm(order.llm, inputs.llm)
    placing = Placing(
        read_geometry(inputs.features),
        reader.shape[1],
        0,
        settings.max_length,
        settings.region,
        settings.mask_cover,
    )
    captions = captions_of(llm, records, settings.split, settings.images, placing)
    if not captions:
        raise UserError(no_mention("cross_attention.train.split", settings.split))
    image_of = records.feature_rows()[1]

    def read(rows: NDArray[np.int64]) -> Step:
        chosen = [captions[i] for i in rows]
        turns = [caption.record.turns[:1] for caption in chosen]
        tokens = [
            (b, place, mention.region_p)
            for b, caption in enumerate(chosen)
            for mention in caption.mentions
            for place in mention.tokens
        ]
        sample, place, region = zip(*tokens, strict=True)
        features_bpv = reader.read(image_of[[caption.row for caption in chosen]])
        return Step(
            llm.batch(turns, 0, settings.max_length).to(llm.device),
            torch.from_numpy(features_bpv.astype(np.float32)).to(llm.device),
            WordTokens(
                torch.tensor(sample, device=llm.device),
                torch.tensor(place, device=llm.device),
                torch.from_numpy(np.stack(region)).to(llm.device),
            ),
        )

    module = make_cross_attention(
        reader.shape[-1], llm, settings.blocks, settings.heads, order.seed
    )
    curve = train_cross_attention(
        module, llm, len(captions), read, settings, weight=order.weight, seed=order.seed
    )
    save_cross_attention(job.work, module)
    pq.write_table(pa.table(dict(curve)), job.work / "curve.parquet")


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: four matrices a block. Time: forward and backward of each step over captions; the
    language model is frozen, so its backward takes as long as its forward. GPU: as training a
    projector without visual tokens, and the activations of the cross-attention. Held: its matrices,
    which are made in main memory."""
    shape, vision = shapes.llm(node), shapes.features(node)
    settings = CrossAttentionSettings.model_validate(node.order["cross_attention"])
    if shape is None or vision is None:
        return UNKNOWN
    batch, patches, d = settings.batch_size, vision.patches, shape.d_model
    blocks = len(settings.blocks) if settings.blocks else max(1, shape.blocks - 1)
    weights = formulas.cross_attention_parameters(blocks, d, vision.d_vision)
    device, most = shapes.llm_device(node), formulas.text_tokens(settings.max_length, 0)
    memory = formulas.training_memory(shape, device, NONE, batch, most, 0, weights)
    memory += formulas.cross_attention_memory(blocks, settings.heads, d, batch, most, patches)
    captions = settings.steps * batch
    text = captions * text_tokens(node, shapes, settings.max_length, 0, first=True)
    flops = 2 * formulas.forward_flops(shape, text, text)
    read = formulas.cross_attention_flops(blocks, d, vision.d_vision, text, captions * patches)
    seconds = TORCH_START + device.seconds(flops, 3 * read)
    return Need(4.0 * weights, device.memory(memory), seconds, 4.0 * weights)
