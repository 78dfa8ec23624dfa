"""Stage: train a small stand-in vision encoder on the drawn images."""

from __future__ import annotations

from dataclasses import dataclass

from vista.config.encoders import StandinEncoder
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.image_files import image_files
from vista.stages.features import read_images


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images and captions."""

    records: Artifact
    world: Artifact | None = None


@stage(StandinEncoder, Inputs)
def run(job: StageJob[StandinEncoder, Inputs]) -> None:
    """Read records and images; write model/ (save_pretrained) and curve.parquet."""
    import pyarrow as pa
    import torch

    from vista.metrics.results import write_parquet
    from vista.standins.encoder import FILL, train_standin_encoder

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    table = read_records(inputs.records.file("records.parquet"))
    records = table.select(table.rows_of("train"))
    images = image_files(inputs.records, inputs.world, None)
    pixels = read_images(images, records, settings.image_size, "pad", FILL)
    captions = [record.captions[0] if record.captions else "" for record in records]
    curve = train_standin_encoder(settings, pixels, captions, job.work / "model")
    write_parquet(job.work / "curve.parquet", pa.table(curve))


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: weights in float32. Time: 6 FLOP a parameter and token of each step."""
    shape, settings = shapes.vision(node), node.settings
    if shape is None:
        return UNKNOWN
    tokens = settings["steps"] * settings["batch_size"] * (shape.patches + shape.prefix)
    seconds = TORCH_START + shapes.cpu.seconds(6 * shape.parameters * tokens)
    return Need(shape.loaded * 4, 0.0, seconds)
