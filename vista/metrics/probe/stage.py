"""Stage: measure the linear-probe patch accuracy of an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.data.records import RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.latents import read_geometry
from vista.inputs.patch_classes import patch_classes
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
    write_result(
        job.work,
        linear_probe(
            fitted[:2],
            judged,
            regularisation=settings.regularisation,
            iterations=settings.iterations,
            level=settings.bootstrap.level,
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
    """Return features [n, d], classes [n] and images [n] of the patches that an object covers.

    Images are read until `limit` patches are there; None: all.
    """
    features: list[NDArray[Any]] = []
    classes: list[str] = []
    images: list[int] = []
    image_of = records.feature_rows()[1]
    for i in records.rows_of(split).tolist():
        record = records[i]
        if not record.objects:
            continue
        class_p = patch_classes(record, placing, settings.mask_cover)
        covered = [p for p, name in enumerate(class_p) if name is not None]
        if covered:
            features.append(reader.read([image_of[i]])[0][covered])
            classes += [str(class_p[p]) for p in covered]
            images += [int(image_of[i])] * len(covered)
        if limit is not None and len(classes) >= limit:
            break
    if not classes:
        raise UserError(
            f"metrics.probe: no object covers {settings.mask_cover:g} of a patch in any image of "
            f"split {split!r}; lower mask_cover, name another split, or set metrics.probe to null"
        )
    return np.concatenate(features), np.array(classes), np.array(images)
