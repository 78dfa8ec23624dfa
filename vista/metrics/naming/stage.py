"""Stage: measure which of the data's classes have a latent of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.metrics.naming import NamingSettings
from vista.metrics.naming.measure import Label, naming
from vista.metrics.results import write_result
from vista.sae.label_table import FILE, read_labels


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Labels of an SAE's latents, and the records that name the classes."""

    labels: Artifact
    records: Artifact


@stage(NamingSettings, Inputs)
def run(job: StageJob[NamingSettings, Inputs]) -> None:
    """Read labels and records; write the result.

    Raises UserError where the records name no class.
    """
    settings = job.settings
    path = job.inputs.records.file("records.parquet")
    classes = read_records(path).categories()
    if not classes:
        raise UserError(f"{path} has no objects, so no classes to name; set metrics.naming to null")
    labels = read_labels(job.inputs.labels.file(FILE))
    scores = [math.nan] * len(labels.label_s) if labels.auroc_s is None else labels.auroc_s.tolist()
    latents = list(map(Label, labels.label_s, labels.share_s.tolist(), scores))
    bootstrap = settings.bootstrap
    write_result(
        job.work,
        naming(
            sorted(classes),
            {labels.layer: latents},
            settings.min_share,
            bootstrap.seed,
            bootstrap.resamples,
            bootstrap.level,
        ),
    )
