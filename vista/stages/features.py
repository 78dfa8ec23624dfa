"""Stage: encode images into dense patch features of one encoder, shard by shard."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.config.base import Settings
from vista.config.encoders import EncoderSettings
from vista.data.geometry import prepare_image
from vista.data.images import ImageSource, UnusableImage
from vista.data.records import Record, read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, job_count, one
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.inputs.image_files import image_files
from vista.inputs.models import load_vision_encoder
from vista.progress import progress
from vista.store.features import FeatureWriter

if TYPE_CHECKING:
    from vista.encoders.contract import VisionEncoder

Pixels = NDArray[np.uint8]

# Patches of a forward pass on a CPU: activations of more do not fit its cache (DINOv2-small on two
# cores: 64 images at once take 12 % longer than 16).
_CPU_PATCHES = 4096


class FeaturesOrder(Settings):
    """The encoder, and how it is read."""

    encoder: EncoderSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images, and the encoder unless its settings name a folder."""

    records: Artifact
    world: Artifact | None = None
    fetched: Artifact | None = None
    encoder: Artifact | None = None


@stage(FeaturesOrder, Inputs)
def run(job: StageJob[FeaturesOrder, Inputs]) -> None:
    """Read encoder, records and images; write features.zarr and geometry.json.

    A resumed run starts after the last finished shard; a job with a part writes only the shards of
    its range. Raises UserError where an image cannot be read, or where the encoder gives
    values that are not finite or beyond 6e4.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.encoder, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    # An image of several records has one row of features, that of its first record.
    firsts = np.unique(records.feature_rows()[1], return_index=True)[1]
    images = image_files(inputs.records, inputs.world, inputs.fetched)
    encoder = load_vision_encoder(settings, inputs.encoder)
    writer = FeatureWriter(
        job.work / "features.zarr",
        records.image_ids(firsts),
        grid=encoder.grid,
        d_vision=encoder.d_vision,
    )
    shards = range(writer.shards)
    if job.part is not None:
        part, jobs = job.part
        shards = range((part - 1) * len(shards) // jobs, part * len(shards) // jobs)
    # Where `max_unreadable` is 0 the stage records reads headers only: a file that is cut off is
    # noticed here.
    remedy = (
        f"draw it again (rm -r '{inputs.world.path}')"
        if inputs.world is not None
        else "put a whole image there; or set `max_unreadable` in the data and make the records "
        f"again (rm -r '{inputs.records.path}')"
    )

    def read(record: Record) -> Pixels:
        try:
            return read_image(images, record, encoder, settings.fit)
        except UnusableImage as error:
            raise UserError(f"{error}: {remedy}") from error

    start = time.monotonic()
    encoded = write_features(
        writer,
        shards,
        encoder,
        lambda images: records.select(firsts[images.start : images.stop]),
        read,
        settings.batch_size,
        job.threads,
    )
    if job.part is None:
        writer.close()
        geometry = {"size": encoder.size, "patch": encoder.patch, "fit": settings.fit}
        if encoder.pool is not None:
            geometry["pool"] = encoder.pool
        if encoder.per_patch > 1:
            geometry |= {"per_patch": encoder.per_patch, "frames": encoder.per_patch}
        (job.work / "geometry.json").write_text(json.dumps(geometry, sort_keys=True) + "\n")
    rate = encoded / max(time.monotonic() - start, 1e-9)
    print(f"features: {encoded} images, {rate:.0f} images/s", file=sys.stderr)


def write_features(
    writer: FeatureWriter,
    shards: Sequence[int],
    encoder: VisionEncoder,
    records: Callable[[range], Iterable[Record]],
    read: Callable[[Record], Pixels],
    batch_size: int,
    threads: int,
) -> int:
    """Encode the images of the shards that are not done; return the number of these images.

    `records` gives the records of a range of the writer's images, `read` the pixels of a record; up
    to `threads` threads call it.
    """
    pending = sorted(set(shards) - writer.done_shards(shards))
    wanted = itertools.chain.from_iterable(records(writer.shard_images(shard)) for shard in pending)
    if encoder.device.type == "cpu":
        batch_size = min(batch_size, max(1, _CPU_PATCHES // encoder.n_patches))
    else:
        # A model on a GPU waits for images that one thread decodes.
        threads = max(2, threads)
    encoded = 0
    with closing(read_ahead(read, wanted, threads, 2 * batch_size)) as images_hwc:
        for shard in progress(pending, desc="features", unit="shard"):
            rows = writer.shard_images(shard)
            parts = []
            for first in range(0, len(rows), batch_size):
                size = min(batch_size, len(rows) - first)
                pixels = np.stack(list(itertools.islice(images_hwc, size)))
                parts.append(encoder.encode(pixels).cpu().numpy())
            writer.write_shard(shard, np.concatenate(parts))
            encoded += len(rows)
    return encoded


def read_ahead(
    read: Callable[[Record], Pixels], records: Iterator[Record], threads: int, ahead: int
) -> Generator[Pixels, None, None]:
    """Yield `read` of each record, in their order, while threads read up to `ahead` more.

    What `read` raises is raised at its record's place. `records` is walked in the caller's thread.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Pixels]] = deque()
    try:
        while True:
            waiting.extend(
                pool.submit(read, record)
                for record in itertools.islice(records, 1 + ahead - len(waiting))
            )
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_image(
    images: ImageSource, record: Record, encoder: VisionEncoder, fit: Literal["pad", "crop"]
) -> Pixels:
    """Return the image of a record as the encoder takes it, [size, size, 3]."""
    return prepare_image(
        images.open(record), encoder.size, fit, encoder.mean_colour, encoder.resample
    )


def read_images(
    images: ImageSource,
    records: Sequence[Record],
    size: int,
    fit: Literal["pad", "crop"],
    fill: tuple[int, int, int],
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Pixels:
    """Return the images of some records as squares, [b, size, size, 3]."""
    return np.stack(
        [prepare_image(images.open(record), size, fit, fill, resample) for record in records]
    )


def need(node: Node, shapes: Shapes) -> Need:
    """One pass over every different image."""
    shape, settings = shapes.vision(node), node.order["encoder"]
    images, device = shapes.images(one(node, "records")), shapes.device(settings)
    memory = formulas.features_memory(shape, device, settings["batch_size"]) if shape else None
    if shape is None or images is None:
        return Need(None, device.memory(memory), None)
    flops = formulas.features_flops(shape) * images.images
    disk = formulas.feature_bytes(images.images, shape)
    seconds = TORCH_START * job_count(node) + device.seconds(flops)
    return Need(disk, device.memory(memory), seconds)
