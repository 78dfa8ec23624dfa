"""Stage: name each latent of a vision SAE by the classes of its top images."""

from __future__ import annotations

from collections.abc import Callable, Collection

from vista.artifacts import Job
from vista.config.vision_sae import LabelVisionSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, read_records
from vista.stages.latent_inputs import class_patches, read_geometry
from vista.stages.vision_inputs import load_vision_sae, split_images
from vista.store.features import FeatureReader

TOP_FILE = "top.parquet"


def run(job: Job) -> None:
    """Read vision SAE, features and records; write labels.parquet (see vista.sae.label_table) and
    top.parquet: latent, rank, image_id, patch, activation, classes.

    Raises UserError where the split has no image, and where the SAE reads features of another
    width.
    """
    import pyarrow as pa
    import torch

    from vista.sae.label_table import FILE, write_labels
    from vista.sae.vision_labels import label_places, top_columns, top_patches, vision_labels
    from vista.stages.results import write_parquet

    torch.set_num_threads(job.threads)
    settings = LabelVisionSettings.model_validate(job.settings["labels"])
    records = read_records(job.input("records").file("records.parquet"))
    features = FeatureReader(job.input("features").store("features.zarr"))
    placing = read_geometry(job.input("features"))
    sae = load_vision_sae(job.input("sae"), features)
    images, rows = split_images(records, features, settings.split, "label_vision_latents.split")
    row_of = dict(zip(images.tolist(), rows.tolist(), strict=True))

    def classes_at(image: int) -> Callable[[int], Collection[str]]:
        record = records[row_of[image]]
        if settings.by == "image":
            return lambda patch: named(record)
        geometry = ImageGeometry(record.width, record.height, **placing)
        held = {
            category: box_p if mask_p is None else mask_p
            for category, box_p, mask_p in class_patches(record, geometry, settings.mask_cover)
        }
        return lambda patch: {category for category, in_p in held.items() if in_p[patch]}

    top = top_patches(sae, features, images, settings.top_k)
    classes = label_places(top, classes_at)
    ids = dict(zip(images.tolist(), records.image_ids(rows), strict=True))
    write_labels(job.work / FILE, vision_labels(sae, top, classes, ids.__getitem__, settings))
    kinds = {
        "latent": pa.int32(),
        "rank": pa.int32(),
        "image_id": pa.string(),
        "patch": pa.int32(),
        "activation": pa.float32(),
        "classes": pa.list_(pa.string()),
    }
    columns = top_columns(top, classes, ids.__getitem__)
    table = {name: pa.array(columns[name], kind) for name, kind in kinds.items()}
    write_parquet(job.work / TOP_FILE, pa.table(table))


def named(record: Record) -> set[str]:
    """The classes of an image's objects."""
    return set(record.categories)
