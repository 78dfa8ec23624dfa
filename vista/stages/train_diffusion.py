"""Stage: train a small stand-in text-to-image pipeline on the drawn images and their captions."""

from __future__ import annotations

from dataclasses import dataclass

from vista.config.base import Settings
from vista.config.pipeline import StandinPipeline
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import TORCH_START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.image_files import image_files
from vista.stages.features import read_images

# The colour that images are padded to squares with.
FILL = (127, 127, 127)


class TrainDiffusionOrder(Settings):
    """How the pipeline is trained, and the templates of its prompts."""

    recipe: StandinPipeline
    templates: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images and captions."""

    records: Artifact
    world: Artifact | None = None
    fetched: Artifact | None = None


@stage(TrainDiffusionOrder, Inputs)
def run(job: StageJob[TrainDiffusionOrder, Inputs]) -> None:
    """Read records and images; write model/ (save_pretrained) and curve.parquet.

    Raises UserError where the split has no image, or an image has no caption.
    """
    import pyarrow as pa
    import torch

    from vista.diffusion.attributes import in_templates
    from vista.metrics.results import write_parquet
    from vista.standins.diffusion import train_standin_pipeline

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.recipe, job.inputs
    table = read_records(inputs.records.file("records.parquet"))
    records = table.select(table.rows_of(settings.split))
    images = image_files(inputs.records, inputs.world, inputs.fetched)
    pixels = read_images(images, records, settings.image_size, "pad", FILL)
    captions = [record.captions[0] if record.captions else "" for record in records]
    prompts = in_templates(captions, job.settings.templates, settings.split)
    curve = train_standin_pipeline(settings, pixels, prompts, job.work / "model")
    write_parquet(job.work / "curve.parquet", pa.table(curve))


def need(node: Node, shapes: Shapes) -> Need:
    """Forward and backward of the autoencoder, then of the denoiser. Disk: four bytes a parameter
    of the denoiser, and a quarter more for the other parts."""
    recipe = node.settings["recipe"]
    autoencoder = recipe["autoencoder_steps"] * recipe["autoencoder_batch"]
    flops = 3 * formulas.autoencoder_flops(recipe) * autoencoder
    flops += 3 * formulas.denoiser_flops(recipe) * recipe["steps"] * recipe["batch_size"]
    seconds = TORCH_START + shapes.cpu.seconds(flops)
    return Need(5 * formulas.denoiser_parameters(recipe), 0.0, seconds)
