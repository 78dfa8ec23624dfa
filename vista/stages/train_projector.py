"""Stage: run one stage of a projector's training on cached features."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.projector import (
    WORDS_TERM,
    AggregatorSettings,
    Kind,
    SaeTermSettings,
    TrainingStage,
)
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.model_shapes import LanguageShape
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import text_tokens
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.engine.processes import is_rank, run_ranks
from vista.errors import UserError
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from torch import nn

    from vista.language.model import LanguageModel


class FreshProjector(Settings):
    """A projector that training starts with."""

    kind: Kind
    init_scale: float
    aggregator: AggregatorSettings | None = None


class TrainProjectorOrder(Settings):
    """The language model, the stage of training, the weight of the SAE term and the seed.

    Attributes:
        projector: None where the input `start` is trained further.
        sae_dtype: Number format of the SAE term; without the term there are no SAEs.
        words_weight: Weight of the term of visual words; 0: the projector has no head.
    """

    llm: LanguageSettings
    training: TrainingStage
    sae_weight: float
    seed: int
    projector: FreshProjector | None = None
    sae_dtype: Literal["float32", "bfloat16"] = "float32"
    sae_term: SaeTermSettings = SaeTermSettings()
    words_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The data to learn from, the models, and the projector to train further.

    `checks` are not read: training waits until they have passed.
    """

    features: Artifact
    records: Artifact
    llm: Artifact | None = None
    start: Artifact | None = None
    saes: list[Artifact] = field(default_factory=list)
    checks: list[Artifact] = field(default_factory=list)


@stage(TrainProjectorOrder, Inputs)
def run(job: StageJob[TrainProjectorOrder, Inputs]) -> None:
    """Read features, records, LLM, SAEs and the projector to train further, if any; write
    projector.safetensors, projector.json and curve.parquet, and visual_words.safetensors where it
    has a head.

    Raises UserError where there is nothing to learn from, or where the settings ask for several
    processes that cannot be started.
    """
    settings = job.settings.training
    if settings.processes * settings.machines > 1 and not is_rank():
        _refuse_shared_devices(job.settings.llm)
        run_ranks(job.order, settings.processes, settings.machines)
    else:
        _train(job)


def _refuse_shared_devices(llm: LanguageSettings) -> None:
    """Refuse a placement of the language model that several processes cannot each have."""
    if llm.device_map is not None or ":" in llm.device:
        key = "device_map" if llm.device_map is not None else "device"
        raise UserError(
            f"projector.stages: with several processes each holds a whole language model on a "
            f"device of its own, and its `{key}: {getattr(llm, key)}` says otherwise; use "
            "`device: cuda` or `processes: 1`."
        )


def _train(job: StageJob[TrainProjectorOrder, Inputs]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from vista.device import find_device
    from vista.inputs.models import load_llm, load_saes
    from vista.inputs.windows import aggregator_of
    from vista.language.prompt import sample_text
    from vista.projector.module import load_projector, make_projector, save_projector
    from vista.projector.passes import TrainingData
    from vista.projector.ranks import join_ranks
    from vista.projector.train import train_projector

    torch.set_num_threads(job.threads)
    settings, order, inputs = job.settings.training, job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    reader = FeatureReader(inputs.features.store("features.zarr"))
    rows = records.rows_with_turns(settings.split)
    if not len(rows):
        raise UserError(
            f"projector.stages: no image of split {settings.split!r} has a conversation or a "
            "caption to learn from; name another split or give the data captions."
        )
    ranks = join_ranks(find_device(order.llm.device))
    llm = load_llm(order.llm, inputs.llm)
    saes = load_saes(inputs.saes, llm, order.sae_dtype)
    start = inputs.start
    if start is None:
        fresh = order.projector
        assert fresh is not None
        projector = make_projector(
            fresh.kind,
            reader.shape[-1],
            llm.d_model,
            order.seed,
            fresh.init_scale,
            aggregator_of(inputs.features, reader, fresh.aggregator),
        )
    else:
        start.verify()
        projector = load_projector(start.path, d_vision=reader.shape[-1], d_model=llm.d_model)
        projector.requires_grad_(True).train()
    image_of = records.feature_rows()[1]
    data = TrainingData(
        turns=records.turns(rows),
        n_visual=reader.shape[1],
        read=lambda chosen: reader.read(image_of[rows[chosen]]),
    )
    sample = llm.batch(data.turns[:1], data.n_visual, settings.max_length)
    print(f"first sample: {sample_text(llm.tokenizer, sample)}", file=sys.stderr)
    head = _head(order, start, llm) if order.words_weight else None
    curve = train_projector(
        projector.to(llm.device),
        llm,
        saes,
        data,
        settings,
        sae_weight=order.sae_weight,
        seed=order.seed,
        checkpoints=job.checkpoints,
        normalise=order.sae_term.normalise,
        penalises=order.sae_term.penalises,
        head=head,
        words_weight=order.words_weight,
        ranks=ranks,
    )
    ranks.end_training()
    if not ranks.is_main_process:
        return
    save_projector(job.work, projector)
    if head is not None:
        importlib.import_module(WORDS_TERM).save_head(job.work, head)
    pq.write_table(pa.table(curve), job.work / "curve.parquet")


def _head(order: TrainProjectorOrder, start: Artifact | None, llm: LanguageModel) -> nn.Linear:
    """Return the head of visual words: a fresh one, or that of the projector to train further."""
    # By name, so that a projector without a head does not depend on its code.
    words = importlib.import_module(WORDS_TERM)
    vocabulary = llm.model.get_output_embeddings().weight.shape[0]
    if start is None:
        head: nn.Linear = words.make_head(llm.d_model, vocabulary, order.seed)
    else:
        head = words.load_head(start.path, d_model=llm.d_model, vocabulary=vocabulary)
        head.requires_grad_(True).train()
    return head.to(llm.device)


def need(node: Node, shapes: Shapes) -> Need:
    """Forward and backward of each step. The backward pass goes through the frozen model to the
    visual tokens without gradients of its weights, so it costs as much as the forward. Of several
    processes, which share each batch and a machine's threads, one is counted."""
    shape, vision, saes = shapes.llm(node), shapes.features(node), shapes.saes(node)
    stage = TrainingStage.model_validate(node.order["training"])
    device = shapes.llm_device(node, stage.processes)
    if shape is None or vision is None:
        return UNKNOWN
    size = _parameters(node, vision.d_vision, shape)
    if saes is None:
        return Need(4 * size, None, None)
    visual, length = vision.patches, stage.max_length
    batch = -(-stage.batch_size // (stage.processes * stage.machines))
    micro = min(stage.micro_batch or batch, batch)
    memory = formulas.training_memory(shape, device, saes, micro, length, visual, size)
    rows = shapes.rows(one(node, "records"), stage.split)
    seconds = None
    if rows or stage.steps:
        samples = stage.total_steps(rows or stage.batch_size) * batch
        words = text_tokens(node, shapes, length, visual)
        flops = 2 * samples * formulas.forward_flops(shape, visual + words, words)
        # The rest of the term visits active latents alone.
        term = formulas.sae_flops(shape.d_model, saes, samples * visual, decoded=False)
        coarse = node.settings.get("sae_dtype") == "bfloat16"
        spent = device.seconds(flops + term) if coarse else device.seconds(flops, term)
        seconds = TORCH_START + spent
    return Need(4 * size, device.memory(memory), seconds)


def _parameters(node: Node, d_vision: int, shape: LanguageShape) -> float:
    """Parameters of a projector, whose kind the first stage of its training has in its settings,
    and of its head."""
    first = node
    while "projector" not in first.settings and (start := one(first, "start")):
        first = start
    projector: Mapping[str, Any] = first.settings.get("projector", {"kind": "linear"})
    head = shape.vocabulary * shape.d_model if node.settings.get("words_weight") else 0
    if sizes := projector.get("aggregator"):
        own = (sizes["hidden"], sizes["depth"])
        return head + formulas.aggregator_parameters(d_vision, shape.d_model, *own)
    return head + formulas.projector_parameters(projector["kind"], d_vision, shape.d_model)
