"""Stage: count the names of objects in the text of the SAEs."""

from __future__ import annotations

from dataclasses import dataclass

from vista.data.records import read_records, read_text
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.metrics.results import write_result
from vista.metrics.text_coverage import TextCoverageSettings
from vista.metrics.text_coverage.measure import text_coverage


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The images' objects, and the text."""

    records: Artifact
    text: Artifact


@stage(TextCoverageSettings, Inputs)
def run(job: StageJob[TextCoverageSettings, Inputs]) -> None:
    """Write the result, and print the names that are rare.

    Raises UserError where the images have no object.
    """
    path = job.inputs.records.file("records.parquet")
    names = read_records(path).categories()
    if not names:
        raise UserError(
            f"{path} has no object whose name could be counted; set metrics.text_coverage to null"
        )
    documents = read_text(job.inputs.text.file("text.parquet"), "train")
    result = text_coverage(names, documents, job.settings.min_occurrences)
    write_result(job.work, result)
    if rare := result.rare:
        listed = ", ".join(f"{name} ({n})" for name, n in rare.items())
        print(
            f"{len(rare)} of {len(names)} object names occur fewer than {result.min_occurrences} "
            f"times in the text, so that no latent may be theirs: {listed}"
        )
