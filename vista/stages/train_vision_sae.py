"""Stage: train an SAE on an encoder's cached patch features, with sae_lens' own trainer."""

from __future__ import annotations

from dataclasses import dataclass

from vista.config.base import Settings
from vista.config.vision_sae import TrainVisionSaeSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import vision_sae
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.vision import encoder_block, split_images
from vista.store.features import FeatureReader


class TrainVisionSaeOrder(Settings):
    """How the SAE is trained, and its name."""

    sae: TrainVisionSaeSettings
    name: str


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Features with their records, and the encoder that they are of, if it is an artifact."""

    features: Artifact
    records: Artifact
    encoder: Artifact | None = None


@stage(TrainVisionSaeOrder, Inputs)
def run(job: StageJob[TrainVisionSaeOrder, Inputs]) -> None:
    """Read features and records; write the neutral form, sae/ in sae_lens' format, curve.parquet.

    Raises UserError where the split has no image or the dictionary is too small for its settings.
    """
    import pyarrow as pa
    import torch

    from vista.metrics.results import write_parquet
    from vista.sae.convert import from_folder
    from vista.sae.neutral import save_sae
    from vista.sae.vision_train import train_vision_sae

    torch.set_num_threads(job.threads)
    settings, name, inputs = job.settings.sae, job.settings.name, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    features = FeatureReader(inputs.features.store("features.zarr"))
    images, _ = split_images(records, features, settings.split, f"SAE {name}, train.split")
    curve = train_vision_sae(features, images, settings, name, job.work / "sae")
    block = encoder_block(inputs.features, inputs.encoder)
    save_sae(job.work, from_folder(job.work / "sae", block, name=name))
    write_parquet(job.work / "curve.parquet", pa.table(curve))


def need(node: Node, shapes: Shapes) -> Need:
    """12 d s FLOP a patch and step, decoders of every Matryoshka width counted; 2 d s of k-means,
    which projects patches on its directions. Disk: the SAE in two forms. Held: the buffer twice.
    GPU: weights, gradients, AdamW's moments, and four copies of a batch's latents."""
    size, settings = vision_sae(node, shapes), node.order["sae"]
    if size is None:
        return UNKNOWN
    d, s, _ = size
    batch, device = settings["batch_patches"], shapes.device(settings)
    nested = settings["architecture"] == "matryoshka_batchtopk"
    decoders = sum(settings["widths"]) if nested else 1.0
    passes = 2.0 if settings["architecture"] == "kmeans" else 6.0 * (1 + decoders)
    flops = passes * d * s * settings["steps"] * batch
    memory = device.memory(formulas.vision_sae_memory(d, s, batch))
    held = 8.0 * settings["buffer_patches"] * d
    seconds = TORCH_START + device.seconds(0, flops)
    return Need(2 * formulas.sae_bytes(d, s), memory, seconds, held)
