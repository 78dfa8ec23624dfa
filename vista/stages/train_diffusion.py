"""Stage: train a small stand-in text-to-image pipeline on the drawn images and their captions."""

from __future__ import annotations

from vista.config.pipeline import StandinPipeline
from vista.data.records import read_records
from vista.engine.artifacts import Job
from vista.stages.features import read_images
from vista.stages.image_files import image_files

# The colour that images are padded to squares with.
FILL = (127, 127, 127)


def run(job: Job) -> None:
    """Read records and images; write model/ (save_pretrained) and curve.parquet.

    Raises UserError where the split has no image, or an image has no caption.
    """
    import pyarrow as pa
    import torch

    from vista.diffusion.attributes import in_templates
    from vista.stages.results import write_parquet
    from vista.standins.diffusion import train_standin_pipeline

    torch.set_num_threads(job.threads)
    settings = StandinPipeline.model_validate(job.settings["recipe"])
    table = read_records(job.input("records").file("records.parquet"))
    records = table.select(table.rows_of(settings.split))
    pixels = read_images(image_files(job), records, settings.image_size, "pad", FILL)
    captions = [record.captions[0] if record.captions else "" for record in records]
    told = in_templates(captions, job.settings["templates"], settings.split)
    curve = train_standin_pipeline(settings, pixels, told, job.work / "model")
    write_parquet(job.work / "curve.parquet", pa.table(curve))
