"""Stage: train one projector from cached features."""

from __future__ import annotations

import shutil

from vista.artifacts import Job
from vista.config.projector import ProjectorSettings
from vista.data.records import read_records
from vista.errors import UserError
from vista.store.features import FeatureReader


def run(job: Job) -> None:
    """Read features, records, LLM and SAEs; write projector.safetensors, .json, curve.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from vista.projector.module import make_projector, save_projector
    from vista.projector.train import TrainingData, train_projector
    from vista.stages.loading import load_llm, load_saes

    torch.set_num_threads(job.threads)
    settings = ProjectorSettings.model_validate(job.settings["projector"])
    seed = int(job.settings["seed"])
    records = read_records(job.input("records").file("records.parquet"))
    reader = FeatureReader(job.input("features").store("features.zarr"))
    chosen = [i for i, each in enumerate(records) if each.split == settings.split and each.turns]
    if not chosen:
        raise UserError(
            f"projector.split {settings.split!r}: no image of that split has a conversation or a "
            "caption to learn from; name another split or give the data captions."
        )
    llm = load_llm(job)
    saes = load_saes(job, llm)
    projector = make_projector(
        settings.kind, reader.shape[-1], llm.d_model, seed, settings.init_scale
    ).to(llm.device)
    indices = torch.tensor(chosen).numpy()
    data = TrainingData(
        turns=[records[i].turns for i in chosen], read=lambda rows: reader.read(indices[rows])
    )
    checkpoints = job.work / "checkpoints"
    curve = train_projector(
        projector,
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
