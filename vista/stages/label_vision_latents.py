"""Stage: name each latent of a vision SAE by the classes of its top images."""

from __future__ import annotations

from dataclasses import dataclass

from vista.config.base import Settings
from vista.config.vision_sae import LabelVisionSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import encoding_need, vision_sae
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.patch_classes import classes_of_patches
from vista.inputs.vision import TOP_FILE, SaeDevice, load_vision_sae, split_images
from vista.store.features import FeatureReader

_PER_TOP_IMAGE = 20.0  # bytes of a row of top.parquet, twice (the labels tell it too)


class LabelVisionLatentsOrder(Settings):
    """How the latents are named, and the SAE's device."""

    labels: LabelVisionSettings
    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE, and the features that it reads with their records.

    `check` is not read: the stage waits until it has passed.
    """

    sae: Artifact
    features: Artifact
    records: Artifact
    check: Artifact | None = None


@stage(LabelVisionLatentsOrder, Inputs)
def run(job: StageJob[LabelVisionLatentsOrder, Inputs]) -> None:
    """Read vision SAE, features and records; write labels.parquet (see vista.sae.label_table) and
    top.parquet (see vista.sae.top_table).

    Raises UserError where the split has no image, and where the SAE reads features of another
    width.
    """
    import torch

    from vista.sae.label_table import FILE, write_labels
    from vista.sae.top_table import write_top
    from vista.sae.vision_labels import label_places, top_columns, top_patches, vision_labels

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.labels, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    features = FeatureReader(inputs.features.store("features.zarr"))
    sae = load_vision_sae(inputs.sae, features, job.settings.sae.device)
    images, rows = split_images(
        records, features, settings.split, f"SAE {sae.config.name}, labels.split"
    )
    classes_at = classes_of_patches(records, images, rows, inputs.features, settings)
    top = top_patches(sae, features, images, settings.top_k)
    classes = label_places(top, classes_at)
    ids = dict(zip(images.tolist(), records.image_ids(rows), strict=True))
    write_labels(job.work / FILE, vision_labels(sae, top, classes, ids.__getitem__, settings))
    write_top(job.work / TOP_FILE, top_columns(top, classes, ids.__getitem__))


def need(node: Node, shapes: Shapes) -> Need:
    """Every patch of the split encoded once. Disk: a row a latent and top image, in two tables."""
    size, settings = vision_sae(node, shapes), node.settings["labels"]
    images = shapes.rows(one(node, "records"), settings["split"])
    if size is None or images is None:
        return UNKNOWN
    d, s, patches = size
    disk = SMALL + 2 * _PER_TOP_IMAGE * s * settings["top_k"]
    return encoding_need(node, shapes, disk, 2.0 * d * s * patches * images)
