"""Stage: train an SAE on an encoder's cached patch features, with sae_lens' own trainer."""

from __future__ import annotations

from vista.config.vision_sae import TrainVisionSaeSettings
from vista.data.records import read_records
from vista.engine.artifacts import Job
from vista.stages.vision_inputs import encoder_block, split_images
from vista.store.features import FeatureReader


def run(job: Job) -> None:
    """Read features and records; write the neutral form, sae/ in sae_lens' format, curve.parquet.

    Raises UserError where the split has no image or the dictionary is too small for its settings.
    """
    import pyarrow as pa
    import torch

    from vista.sae.convert import from_folder
    from vista.sae.neutral import save_sae
    from vista.sae.vision_train import train_vision_sae
    from vista.stages.results import write_parquet

    torch.set_num_threads(job.threads)
    settings = TrainVisionSaeSettings.model_validate(job.settings["sae"])
    name = str(job.settings["name"])
    records = read_records(job.input("records").file("records.parquet"))
    features = FeatureReader(job.input("features").store("features.zarr"))
    images, _ = split_images(records, features, settings.split, f"SAE {name}, train.split")
    curve = train_vision_sae(features, images, settings, name, job.work / "sae")
    save_sae(job.work, from_folder(job.work / "sae", encoder_block(job), name=name))
    write_parquet(job.work / "curve.parquet", pa.table(curve))
