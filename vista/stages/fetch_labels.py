"""Stage: labels of an SAE's latents, from Neuronpedia's public export."""

from __future__ import annotations

from vista.engine.artifacts import Job
from vista.fetch.neuronpedia import fetch_export


def run(job: Job) -> None:
    """Write export/ with explanations/ and features/, and source.json: what the export held.

    Raises UserError as `fetch_export`.
    """
    model, source = job.settings["model"], job.settings["source"]
    fetch_export(model, source, job.work / "export", job.work / "source.json")
