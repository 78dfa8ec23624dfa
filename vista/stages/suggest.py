"""Stage: a first guess for the settings of a projector's training, from short runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.projector import AggregatorSettings, Kind, SaeTermSettings, TrainingStage
from vista.config.suggest import SuggestSettings
from vista.data.records import RecordTable, read_records
from vista.engine.artifacts import Artifact, canonical_json
from vista.engine.forecast import formulas
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import text_tokens
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUGGESTION = "suggest.json"


class SuggestOrder(Settings):
    """The models, the first stage of training, and what is tried."""

    llm: LanguageSettings
    training: TrainingStage
    kind: Kind
    sae_dtype: Literal["float32", "bfloat16"]
    sae_term: SaeTermSettings
    suggest: SuggestSettings
    aggregator: AggregatorSettings | None = None


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The data to learn from and the models. `checks` are not read: runs wait for them."""

    features: Artifact
    records: Artifact
    llm: Artifact | None = None
    saes: list[Artifact] = field(default_factory=list)
    checks: list[Artifact] = field(default_factory=list)


@stage(SuggestOrder, Inputs)
def run(job: StageJob[SuggestOrder, Inputs]) -> None:
    """Make short runs; write suggest.json, with all of them, and print the table.

    Raises UserError where there are no images to learn from or to compare on.
    """
    import torch

    from vista.inputs.models import load_llm, load_saes
    from vista.inputs.windows import aggregator_of
    from vista.projector.passes import TrainingData
    from vista.projector.suggest import Trials, suggest, table

    torch.set_num_threads(job.threads)
    order, inputs = job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    reader = FeatureReader(inputs.features.store("features.zarr"))
    image_of = records.feature_rows()[1]

    def data(split: str, most: int | None) -> TrainingData:
        rows = _rows(records, split)[:most]
        return TrainingData(
            turns=records.turns(rows),
            n_visual=reader.shape[1],
            read=lambda chosen: reader.read(image_of[rows[chosen]]),
        )

    train = data(order.training.split, None)
    held_out = data(order.suggest.split, order.suggest.images)
    llm = load_llm(order.llm, inputs.llm)
    trials = Trials(
        llm=llm,
        saes=load_saes(inputs.saes, llm, order.sae_dtype),
        kind=order.kind,
        d_vision=reader.shape[-1],
        aggregator=aggregator_of(inputs.features, reader, order.aggregator),
        train=train,
        held_out=held_out,
        stage=order.training,
        normalise=order.sae_term.normalise,
        settings=order.suggest,
    )
    suggestion = suggest(trials)
    (job.work / SUGGESTION).write_text(canonical_json(suggestion) + "\n", encoding="utf-8")
    for line in table(suggestion):
        print(line)


def _rows(records: RecordTable, split: str) -> NDArray[np.int64]:
    rows = records.rows_with_turns(split)
    if not len(rows):
        raise UserError(
            f"suggest: no image of split {split!r} has a conversation or a caption; name another "
            "`suggest.split`, or give the data captions."
        )
    return rows


def need(node: Node, shapes: Shapes) -> Need:
    """Forward and backward of each step of all runs."""
    shape, vision, saes = shapes.llm(node), shapes.features(node), shapes.saes(node)
    if shape is None or vision is None or saes is None:
        return UNKNOWN
    order = SuggestOrder.model_validate(node.order)
    device = shapes.llm_device(node)
    settings, training = order.suggest, order.training
    size = formulas.projector_parameters(order.kind, vision.d_vision, shape.d_model)
    if sizes := order.aggregator:
        own = (sizes.hidden, sizes.depth)
        size = formulas.aggregator_parameters(vision.d_vision, shape.d_model, *own)
    visual, length = vision.patches, training.max_length
    micro = min(training.micro_batch or training.batch_size, training.batch_size)
    memory = formulas.training_memory(shape, device, saes, micro, length, visual, size)
    samples = settings.n_runs * (settings.steps * training.batch_size + 2 * settings.images)
    words = text_tokens(node, shapes, length, visual)
    flops = 2 * samples * formulas.forward_flops(shape, visual + words, words)
    return Need(4096, device.memory(memory), TORCH_START + device.seconds(flops))
