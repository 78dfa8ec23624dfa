"""Stage: train one projector from cached features, one stage of training an artifact."""

from __future__ import annotations

import shutil

from vista.artifacts import Job
from vista.config.projector import TrainingStage
from vista.data.records import read_records
from vista.errors import UserError
from vista.store.features import FeatureReader


def run(job: Job) -> None:
    """Read features, records, LLM, SAEs and the projector to go on from, if any; write
    projector.safetensors, projector.json and curve.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from vista.projector.module import load_projector, make_projector, save_projector
    from vista.projector.train import TrainingData, train_projector
    from vista.stages.loading import load_llm, load_saes

    torch.set_num_threads(job.threads)
    settings = TrainingStage.model_validate(job.settings["training"])
    seed = int(job.settings["seed"])
    records = read_records(job.input("records").file("records.parquet"))
    reader = FeatureReader(job.input("features").store("features.zarr"))
    rows = records.rows_with_turns(settings.split)
    if not len(rows):
        raise UserError(
            f"projector.stages: no image of split {settings.split!r} has a conversation or a "
            "caption to learn from; name another split or give the data captions."
        )
    llm = load_llm(job)
    saes = load_saes(job, llm)
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
    checkpoints = job.work / "checkpoints"
    curve = train_projector(
        projector.to(llm.device),
        llm,
        saes,
        data,
        settings,
        sae_weight=float(job.settings["sae_weight"]),
        seed=seed,
        checkpoints=checkpoints,
    )
    save_projector(job.work, projector)
    pq.write_table(pa.table(curve), job.work / "curve.parquet")
    shutil.rmtree(checkpoints, ignore_errors=True)
