"""Stage: convert a vision SAE that another program trained to the neutral form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vista.config.base import Settings
from vista.config.vision_sae import ImportVisionSaeSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.vision import encoder_block, split_images, write_group_ends
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    import torch

# Patches that are read at once.
_PATCHES = 2**14


class ImportVisionSaeOrder(Settings):
    """Where the SAE comes from, and its name."""

    sae: ImportVisionSaeSettings
    name: str


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Features with their records, the encoder that they are of, if it is an artifact, and the
    files of a repository, if the SAE comes from one."""

    features: Artifact
    records: Artifact
    encoder: Artifact | None = None
    fetched: Artifact | None = None


@stage(ImportVisionSaeOrder, Inputs)
def run(job: StageJob[ImportVisionSaeOrder, Inputs]) -> None:
    """Read the SAE's file, features and records; write sae.safetensors and sae.json, and of a
    Matryoshka SAE where its groups end.

    Raises UserError where the file is no SAE that is run here, or reads features of another width
    or block.
    """
    import torch

    from vista.sae.neutral import save_sae
    from vista.sae.patches import read_patches
    from vista.sae.released import read_released, scaled_to

    torch.set_num_threads(job.threads)
    settings, name, inputs = job.settings.sae, job.settings.name, job.inputs
    features = FeatureReader(inputs.features.store("features.zarr"))
    sae, ends = read_released(
        settings.format,
        _weights(settings, inputs.fetched),
        name=name,
        d_in=features.shape[2],
        layer=encoder_block(inputs.features, inputs.encoder),
        subtract_decoder_bias=settings.subtract_decoder_bias,
    )
    if settings.standardise:
        records = read_records(inputs.records.file("records.parquet"))
        images, _ = split_images(records, features, settings.split, f"SAE {name}, import.split")
        sae = scaled_to(sae, *_moments(lambda: read_patches(features, images, _PATCHES)))
    save_sae(job.work, sae)
    if ends:
        write_group_ends(job.work, ends)


def _weights(settings: ImportVisionSaeSettings, fetched: Artifact | None) -> Path:
    if fetched is None:
        assert settings.path is not None
        return Path(settings.path)
    assert settings.file is not None
    return fetched.folder("model") / settings.file


def _moments(read: Callable[[], Iterator[torch.Tensor]]) -> tuple[torch.Tensor, float]:
    """Mean [d] of the patches that `read` yields, and their mean distance from it over sqrt(d)."""
    sums = [(x_nd.double().sum(dim=0), len(x_nd)) for x_nd in read()]
    patches = sum(part for _, part in sums)
    mean_d = sum((sum_d for sum_d, _ in sums[1:]), start=sums[0][0]) / patches
    distance = sum(float((x_nd.double() - mean_d).norm(dim=1).sum()) for x_nd in read())
    return mean_d.float(), distance / patches / float(len(mean_d)) ** 0.5


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: encoder and decoder in float32, about what the file has."""
    sae, fetched = node.settings["sae"], one(node, "fetched")
    if fetched is None:
        path = Path(sae["path"])
    else:
        path = shapes.results / fetched.path / "model" / sae["file"]
    return Need(disk=float(path.stat().st_size) if path.is_file() else None)
