"""Stage: train one projector from cached features, one stage of training an artifact."""

from __future__ import annotations

from vista.config.language import LanguageSettings
from vista.config.projector import TrainingStage
from vista.data.records import read_records
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.stages.processes import is_rank, run_ranks
from vista.store.features import FeatureReader


def run(job: Job) -> None:
    """Read features, records, LLM, SAEs and the projector to go on from, if any; write
    projector.safetensors, projector.json and curve.parquet.

    Raises UserError where there is nothing to learn from, or where several processes are asked for
    and cannot be had.
    """
    settings = TrainingStage.model_validate(job.settings["training"])
    if settings.processes * settings.machines > 1 and not is_rank():
        _whole_model(LanguageSettings.model_validate(job.settings["llm"]))
        run_ranks(job, settings.processes, settings.machines)
    else:
        _train(job, settings)


def _whole_model(llm: LanguageSettings) -> None:
    """Refuse a placement that several processes cannot share."""
    if llm.device_map is not None or ":" in llm.device:
        key = "device_map" if llm.device_map is not None else "device"
        raise UserError(
            f"projector.stages: with several processes each holds a whole language model on a "
            f"device of its own, and its `{key}: {getattr(llm, key)}` says otherwise; use "
            "`device: cuda` or `processes: 1`."
        )


def _train(job: Job, settings: TrainingStage) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from vista.device import find_device
    from vista.projector.module import load_projector, make_projector, save_projector
    from vista.projector.ranks import join_ranks
    from vista.projector.train import TrainingData, train_projector
    from vista.stages.loading import load_llm, load_saes

    torch.set_num_threads(job.threads)
    seed = int(job.settings["seed"])
    records = read_records(job.input("records").file("records.parquet"))
    reader = FeatureReader(job.input("features").store("features.zarr"))
    rows = records.rows_with_turns(settings.split)
    if not len(rows):
        raise UserError(
            f"projector.stages: no image of split {settings.split!r} has a conversation or a "
            "caption to learn from; name another split or give the data captions."
        )
    ranks = join_ranks(find_device(job.settings["llm"]["device"]))
    llm = load_llm(job)
    # Without the term there are no SAEs.
    saes = load_saes(job, llm, job.settings.get("sae_dtype", "float32"))
    start = job.optional("start")
    if start is None:
        made = job.settings["projector"]
        projector = make_projector(
            made["kind"], reader.shape[-1], llm.d_model, seed, made["init_scale"]
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
        sae_weight=float(job.settings["sae_weight"]),
        seed=seed,
        checkpoints=job.checkpoints,
        ranks=ranks,
    )
    ranks.end_training()
    if not ranks.is_main_process:
        return
    save_projector(job.work, projector)
    pq.write_table(pa.table(curve), job.work / "curve.parquet")
