"""Stage: train a small stand-in vision encoder on the drawn images."""

from __future__ import annotations

from vista.config.encoders import StandinEncoder
from vista.data.images import ImageSource
from vista.data.records import read_records
from vista.data.source import images_root
from vista.engine.artifacts import Job
from vista.stages.features import read_images


def run(job: Job) -> None:
    """Read records and images; write model/ (save_pretrained) and curve.parquet."""
    import pyarrow as pa
    import torch

    from vista.stages.results import write_parquet
    from vista.standins.encoder import FILL, train_standin_encoder

    torch.set_num_threads(job.threads)
    settings = StandinEncoder.model_validate(job.settings)
    records_input = job.input("records")
    table = read_records(records_input.file("records.parquet"))
    records = table.select(table.rows_of("train"))
    world = job.optional("world")
    images = ImageSource(images_root(records_input.settings, world.path if world else None))
    pixels = read_images(images, records, settings.image_size, "pad", FILL)
    captions = [record.captions[0] if record.captions else "" for record in records]
    curve = train_standin_encoder(settings, pixels, captions, job.work / "model")
    write_parquet(job.work / "curve.parquet", pa.table(curve))
