"""Stage: a pretrained model's files, from a repository of the Hugging Face hub."""

from __future__ import annotations

from vista.config.base import Settings
from vista.config.published import STORED_FLOAT32
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import NoInputs, StageJob, stage
from vista.engine.node import Node
from vista.fetch.hub import fetch, pinned_listing
from vista.fetch.model_files import wanted


class FetchModelOrder(Settings):
    """A repository at a revision."""

    repo: str
    revision: str


@stage(FetchModelOrder, NoInputs)
def run(job: StageJob[FetchModelOrder, NoInputs]) -> None:
    """Write model/ (configuration, safetensors weights, tokenizer and processor files) and
    source.json (repository, revision, commit).

    Raises UserError where the repository has no safetensors weights, and as `fetch`.
    """
    listing = pinned_listing(job.settings.repo, job.settings.revision, job.work)
    fetch(listing, wanted(listing), job.work / "model")


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: parameters x the bytes of each as published."""
    shape = shapes.vision(node) or shapes.llm(node)
    item = 4 if node.settings["repo"] in STORED_FLOAT32 else 2
    return Need(disk=None if shape is None else shape.loaded * item, seconds=0.0)
