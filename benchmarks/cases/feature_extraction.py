"""Feature extraction from image files against the bare model on pixels in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import Case, Size, seconds
from benchmarks.models import (
    MEAN,
    SHAPES,
    STD,
    Shapes,
    flops_limit,
    make_encoder,
    require_same,
)
from benchmarks.profiles import python_shares, torch_shares

MIDDLE = Shapes(
    {
        "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
        "image_size": 224, "patch_size": 14,
    },
    {},
    d_sae=0,
)  # fmt: skip
"""DINOv2-small."""
BATCH_SIZES = (1, 4, 16, 64, 128)


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Yield the embedded encoder on small PNG files, and a middle-sized one on photo-like JPEG."""
    if size == "tiny":
        yield _case(SHAPES["tiny"], folder, 8, (48, 48), "png")
        return
    yield _case(SHAPES["embedded"], folder, 1024, (48, 48), "png")
    yield _case(MIDDLE, folder, 64, (640, 480), "jpg")


def _case(shapes: Shapes, folder: Path, images: int, pixels: tuple[int, int], suffix: str) -> Case:
    both = _Both(shapes, folder, images, pixels, suffix)
    check(both)

    def usual(batch_size: int) -> float:
        return seconds(lambda: both.usual(batch_size))

    best = min(BATCH_SIZES, key=usual)
    return Case(
        f"feature extraction, width {shapes.vision['hidden_size']}",
        f"{images} {suffix.upper()} files of {pixels[0]} x {pixels[1]}: decode, resize, encode, "
        f"write; usual: the bare forward on ready pixels, {best} at once, its best batch size",
        ours=lambda: seconds(both.ours),
        usual=lambda: usual(best),
        bar=0.9,
        limit=flops_limit(lambda: both.usual(best), "the vision model"),
        profile=lambda: (torch_shares(lambda: both.usual(best)), python_shares(both.ours)),
    )


def check(both: _Both) -> None:
    """Raise unless both give the same features."""
    from vista.store.features import FeatureReader

    both.ours()
    found = FeatureReader(both.folder / "features.zarr").read(range(both.images))
    # The store holds float16.
    require_same("features", found, np.concatenate(both.usual(16)), 1e-3)


class _Both:
    """The stage's loop on image files, and the bare model on their pixels."""

    def __init__(
        self, shapes: Shapes, folder: Path, images: int, pixels: tuple[int, int], suffix: str
    ) -> None:
        from PIL import Image

        from benchmarks.usual.models import normalised
        from vista.data.images import ImageSource
        from vista.data.records import Record, read_records, write_records
        from vista.stages.features import read_image

        self.folder, self.images = folder / suffix, images
        self.folder.mkdir()
        self.encoder = make_encoder(shapes)
        rng = np.random.default_rng(0)
        records = []
        for i in range(images):
            name = f"{i:06d}"
            # Smooth as photos are, so that files are as large: noise of a sixteenth of the size.
            small = rng.integers(0, 256, (pixels[1] // 16, pixels[0] // 16, 3), dtype=np.uint8)
            image = Image.fromarray(small).resize(pixels, Image.Resampling.BICUBIC)
            image.save(self.folder / f"{name}.{suffix}")
            records.append(Record(name, "test", f"{name}.{suffix}", *pixels))
        write_records(self.folder / "records.parquet", records)
        self.records = read_records(self.folder / "records.parquet")
        self.source = ImageSource(self.folder)
        ready = np.stack([read_image(self.source, each, self.encoder, "pad") for each in records])
        self.pixels = normalised(ready, MEAN, STD)

    def ours(self) -> None:
        """Write features.zarr."""
        import torch

        from vista.stages.features import read_image, write_features
        from vista.store.features import FeatureWriter

        path, encoder = self.folder / "features.zarr", self.encoder
        shutil.rmtree(path, ignore_errors=True)
        names = [f"{i:06d}" for i in range(self.images)]
        writer = FeatureWriter(path, names, encoder.grid, encoder.d_vision)
        write_features(
            writer,
            range(writer.shards),
            encoder,
            self.records.select,
            lambda record: read_image(self.source, record, encoder, "pad"),
            batch_size=64,
            threads=torch.get_num_threads(),
        )
        writer.close()

    def usual(self, batch_size: int) -> list[Any]:
        """The patch tokens, batch by batch."""
        from benchmarks.usual.encode_images import encode

        return [part.numpy() for part in encode(self.encoder.model, self.pixels, batch_size)]
