"""What metrics over latents read: the store, its images' records, the labels of each layer."""

from __future__ import annotations

import numpy as np

from vista.artifacts import Job
from vista.config.metrics import LatentMaskSettings
from vista.data.records import Record, read_records
from vista.errors import UserError
from vista.metrics.ranking import LatentMask, Ranked, join_ranked, mask_latents, rank_latents
from vista.sae.label_table import FILE, LatentLabels, read_labels
from vista.store.latents import LatentReader


def read_latents(job: Job) -> LatentReader:
    """Open the latents of the job's input `latents`."""
    return LatentReader(job.input("latents").store("latents.zarr"))


def read_image_records(job: Job, latents: LatentReader) -> list[Record]:
    """Return the record of each image of the store, in the store's order.

    Raises:
        UserError: An image of the store has no record.
    """
    path = job.input("records").file("records.parquet")
    by_id = {record.image_id: record for record in read_records(path)}
    missing = [image for image in latents.image_ids if image not in by_id]
    if missing:
        raise UserError(
            f"{path} has no image {missing[0]!r}, which the latents were made from; "
            "run the workflow again so that both come from the same data"
        )
    return [by_id[image] for image in latents.image_ids]


def read_layer_labels(job: Job, latents: LatentReader) -> dict[int, LatentLabels]:
    """Return the labels of every layer that the store holds.

    Raises:
        UserError: A layer has no labels or two, or labels are of a dictionary of another size.
    """
    labels: dict[int, LatentLabels] = {}
    for artifact in job.input_list("labels"):
        path = artifact.file(FILE)
        table = read_labels(path)
        if table.layer in labels:
            raise UserError(f"{path} labels layer {table.layer}, which has labels already")
        size = latents.layers.get(table.layer)
        if size is not None and size != len(table.label_s):
            raise UserError(
                f"{path} labels {len(table.label_s)} latents; the SAE of layer {table.layer} "
                f"behind the latents has {size}: label that SAE"
            )
        labels[table.layer] = table
    missing = sorted(set(latents.layers) - set(labels))
    if missing:
        raise UserError(f"layer {missing[0]} has latents but no labels; add label_latents for it")
    return {layer: labels[layer] for layer in sorted(latents.layers)}


def rank_layer(
    latents: LatentReader,
    layer: int,
    labels: LatentLabels,
    settings: LatentMaskSettings,
    n_top: int,
) -> tuple[Ranked, LatentMask]:
    """Mask the latents of one layer and rank the rest in every image of the store."""
    mask = mask_latents(
        latents.image_frequency(layer),
        labels.density_s,
        settings.max_image_share,
        settings.max_label_density,
    )
    parts = []
    for images in latents.slices():
        tokens = latents.tokens(layer, "image", images)
        nnz_bt = np.where(tokens.valid, tokens.nnz, 0)
        parts.append(rank_latents(tokens.index, tokens.value, nnz_bt, mask.eligible_s, n_top))
    return join_ranked(parts), mask
