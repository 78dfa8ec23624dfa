"""Stage: images -> dense patch features of one encoder, shard by shard."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.artifacts import Job
from vista.config.encoders import CheckpointEncoder, EncoderSettings
from vista.data.geometry import prepare_image
from vista.data.records import ImageSource, Record, read_records
from vista.data.source import images_root
from vista.progress import progress
from vista.store.features import FeatureWriter


def run(job: Job) -> None:
    """Read encoder, records and images; write features.zarr and geometry.json.

    A killed run goes on after the last finished shard. Raises UserError where an image cannot be
    read, or where the encoder gives values that are not finite or beyond 6e4.
    """
    import torch

    from vista.encoders.contract import load_encoder

    torch.set_num_threads(job.threads)
    settings = EncoderSettings.model_validate(job.settings["encoder"])
    records_input = job.input("records")
    records = read_records(records_input.file("records.parquet"))
    # An image that several records are about has one row of features: its first record's.
    firsts = np.unique(records.feature_rows()[1], return_index=True)[1]
    world, fetched = job.optional("world"), job.optional("fetched")
    root = images_root(
        records_input.settings,
        world.path if world else None,
        fetched.store("data") if fetched else None,
    )
    images = ImageSource(root)
    trained = job.optional("encoder")
    source = settings.source
    if trained is not None:
        location, revision = str(trained.folder("model")), None
    else:
        assert isinstance(source, CheckpointEncoder)
        location, revision = source.location, source.revision
    encoder = load_encoder(
        location,
        source.family,
        settings.layer,
        settings.final_norm,
        settings.device,
        settings.dtype,
        revision,
        source.prefix_tokens if isinstance(source, CheckpointEncoder) else None,
    )
    writer = FeatureWriter(
        job.work / "features.zarr",
        records.image_ids(firsts),
        grid=encoder.grid,
        d_vision=encoder.d_vision,
    )
    start, seen = time.monotonic(), 0
    pending = sorted(set(range(writer.shards)) - writer.done_shards())
    for shard in progress(pending, desc="features", unit="shard"):
        rows = writer.shard_images(shard)
        parts = []
        for first in range(rows.start, rows.stop, settings.batch_size):
            batch = records.select(firsts[first : min(first + settings.batch_size, rows.stop)])
            pixels = read_images(
                images, batch, encoder.size, settings.fit, encoder.mean_colour, encoder.resample
            )
            parts.append(encoder.encode(pixels).cpu().numpy())
        writer.write_shard(shard, np.concatenate(parts))
        seen += len(rows)
    writer.close()
    geometry = {"size": encoder.size, "patch": encoder.patch, "fit": settings.fit}
    (job.work / "geometry.json").write_text(json.dumps(geometry, sort_keys=True) + "\n")
    rate = seen / max(time.monotonic() - start, 1e-9)
    print(f"features: {seen} images, {rate:.0f} images/s", file=sys.stderr)


def read_images(
    images: ImageSource,
    records: Sequence[Record],
    size: int,
    fit: Literal["pad", "crop"],
    fill: tuple[int, int, int],
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> NDArray[np.uint8]:
    """Return the images of some records as squares, [b, size, size, 3]."""
    return np.stack(
        [prepare_image(images.open(record), size, fit, fill, resample) for record in records]
    )
