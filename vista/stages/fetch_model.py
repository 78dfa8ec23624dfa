"""Stage: a pretrained model's files, or those of an SAE in another program's format, from a
repository of the Hugging Face hub."""

from __future__ import annotations

from vista.config.base import Settings, later
from vista.config.published import STORED_FLOAT32
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import NoInputs, StageJob, stage
from vista.engine.node import Node
from vista.fetch.hub import fetch, pinned_listing
from vista.fetch.model_files import wanted, with_config


class FetchModelOrder(Settings):
    """A repository at a revision."""

    repo: str
    revision: str
    file: str | None = later(
        None, description="weights in another format than transformers', fetched with their config"
    )


@stage(FetchModelOrder, NoInputs)
def run(job: StageJob[FetchModelOrder, NoInputs]) -> None:
    """Write model/ (configuration, safetensors weights, tokenizer and processor files; or `file`
    and its config.json) and source.json (repository, revision, commit).

    Raises UserError where the repository has no safetensors weights or no such file, and as
    `fetch`.
    """
    listing = pinned_listing(job.settings.repo, job.settings.revision, job.work)
    file = job.settings.file
    names = wanted(listing) if file is None else with_config(listing, file)
    fetch(listing, names, job.work / "model")


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: parameters x the bytes of each as published; unknown of another format."""
    if node.settings.get("file") is not None:
        return Need(disk=None, seconds=0.0)
    shape = shapes.vision(node) or shapes.llm(node)
    item = 4 if node.settings["repo"] in STORED_FLOAT32 else 2
    return Need(disk=None if shape is None else shape.loaded * item, seconds=0.0)
