"""Stage: measure the linear-probe patch accuracy of an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.data.geometry import ImageGeometry
from vista.data.records import Record, RecordTable, decode_mask, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.latents import read_geometry
from vista.metrics.probe import ProbeSettings
from vista.metrics.probe.measure import linear_probe
from vista.metrics.results import write_result
from vista.store.features import FeatureReader


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Features with their records."""

    features: Artifact
    records: Artifact


@stage(ProbeSettings, Inputs)
def run(job: StageJob[ProbeSettings, Inputs]) -> None:
    """Read features and records; write the result.

    Raises UserError where no object covers a patch of the images that it needs.
    """
    settings, inputs = job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    reader = FeatureReader(inputs.features.store("features.zarr"))
    placing = read_geometry(inputs.features)
    fitted = _patches(records, reader, placing, settings, settings.split, settings.max_patches)
    judged = _patches(records, reader, placing, settings, settings.test_split, None)
    bootstrap = settings.bootstrap
    write_result(
        job.work,
        linear_probe(
            fitted[:2],
            judged,
            regularisation=settings.regularisation,
            iterations=settings.iterations,
            seed=bootstrap.seed,
            resamples=bootstrap.resamples,
            level=bootstrap.level,
        ),
    )


def _patches(
    records: RecordTable,
    reader: FeatureReader,
    placing: dict[str, Any],
    settings: ProbeSettings,
    split: str,
    limit: int | None,
) -> tuple[NDArray[Any], NDArray[np.str_], NDArray[np.int64]]:
    """Features [n, d], classes [n] and images [n] of the patches that one object covers."""
    features: list[NDArray[Any]] = []
    classes: list[str] = []
    images: list[int] = []
    image_of = records.feature_rows()[1]
    for i in records.rows_of(split).tolist():
        record = records[i]
        if not record.objects:
            continue
        named = patch_classes(record, placing, settings.mask_cover)
        places = [p for p, name in enumerate(named) if name is not None]
        if places:
            features.append(reader.read([image_of[i]])[0][places])
            classes += [str(named[p]) for p in places]
            images += [int(image_of[i])] * len(places)
        if limit is not None and len(classes) >= limit:
            break
    if not classes:
        raise UserError(
            f"metrics.probe: no object covers {settings.mask_cover:g} of a patch in any image of "
            f"split {split!r}; lower mask_cover, name another split, or set metrics.probe to null"
        )
    return np.concatenate(features), np.array(classes), np.array(images)


def patch_classes(record: Record, placing: dict[str, Any], mask_cover: float) -> list[str | None]:
    """Return for each patch the class of the object that covers it most, None below the share.

    Where an object has no mask, its box is its mask.
    """
    geometry = ImageGeometry(record.width, record.height, **placing)
    best = np.zeros(geometry.n_patches)
    named: list[str | None] = [None] * geometry.n_patches
    for item in record.objects:
        if item.crowd:
            continue
        if item.rle is not None:
            cover = geometry.mask_to_patches(decode_mask(item.rle))
        else:
            cover = geometry.box_to_patches(item.box, min_overlap=mask_cover).astype(float)
        for p in np.flatnonzero((cover >= mask_cover) & (cover > best)):
            best[p], named[p] = cover[p], item.category
    return named
