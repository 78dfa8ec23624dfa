"""Stage: a pretrained model's files, from a repository of the Hugging Face hub."""

from __future__ import annotations

import re

from vista.config.base import Settings
from vista.config.published import STORED_FLOAT32
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import NoInputs, StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.fetch.hub import Listing, fetch, pinned_listing

# Weights only as safetensors, and only under the names that transformers loads: repositories hold
# the same weights in other formats and precisions too.
_WHOLE = "model.safetensors"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_INDEX = "model.safetensors.index.json"
_SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")


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


def wanted(listing: Listing) -> list[str]:
    """Return the files of a repository that `from_pretrained` reads, sorted.

    Raises UserError where there are no safetensors weights or no configuration.
    """
    names = sorted(listing.files)
    weights = [_WHOLE] if _WHOLE in names else [name for name in names if _SHARD.fullmatch(name)]
    if len(weights) > 1 or (weights and weights[0] != _WHOLE):
        weights.append(_INDEX)
    if not weights or not {"config.json", *weights} <= set(names):
        raise UserError(
            f"{listing.repo} has no config.json with safetensors weights at {listing.commit}, and "
            "other formats may run code; take a revision or a repository that has them"
        )
    small = [
        name
        for name in names
        if name.endswith(_SMALL)
        and not name.endswith(".index.json")
        and ("/" not in name or name.startswith("additional_chat_templates/"))
    ]
    return sorted({*weights, *small})


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: parameters x the bytes of each as published."""
    shape = shapes.vision(node) or shapes.llm(node)
    item = 4 if node.settings["repo"] in STORED_FLOAT32 else 2
    return Need(disk=None if shape is None else shape.loaded * item, seconds=0.0)
