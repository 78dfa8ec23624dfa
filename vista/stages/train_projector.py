"""Stage: run one stage of a projector's training on cached features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.projector import TrainingStage
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.engine.processes import is_rank, run_ranks
from vista.errors import UserError
from vista.store.features import FeatureReader


class FreshProjector(Settings):
    """A projector that training starts with."""

    kind: Literal["linear", "mlp"]
    init_scale: float


class TrainProjectorOrder(Settings):
    """The language model, the stage of training, the weight of the SAE term and the seed.

    Attributes:
        projector: None where the input `start` is trained further.
        sae_dtype: Number format of the SAE term; without the term there are no SAEs.
    """

    llm: LanguageSettings
    training: TrainingStage
    sae_weight: float
    seed: int
    projector: FreshProjector | None = None
    sae_dtype: Literal["float32", "bfloat16"] = "float32"


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
    projector.safetensors, projector.json and curve.parquet.

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
    from vista.projector.module import load_projector, make_projector, save_projector
    from vista.projector.ranks import join_ranks
    from vista.projector.train import TrainingData, train_projector

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
            fresh.kind, reader.shape[-1], llm.d_model, order.seed, fresh.init_scale
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
    curve = train_projector(
        projector.to(llm.device),
        llm,
        saes,
        data,
        settings,
        sae_weight=order.sae_weight,
        seed=order.seed,
        checkpoints=job.checkpoints,
        ranks=ranks,
    )
    ranks.end_training()
    if not ranks.is_main_process:
        return
    save_projector(job.work, projector)
    pq.write_table(pa.table(curve), job.work / "curve.parquet")
