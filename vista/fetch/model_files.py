"""Which files of a repository make up a pretrained model."""

from __future__ import annotations

import re
from difflib import get_close_matches

from vista.config.vision_sae import config_places
from vista.errors import UserError
from vista.fetch.hub import Listing
from vista.fetch.packages import listed

# Weights only as safetensors, and only under the names that transformers loads: repositories hold
# the same weights in other formats and precisions too.
_WHOLE = "model.safetensors"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_INDEX = "model.safetensors.index.json"
# A pipeline of diffusers has its parts in folders of their own.
_PIPELINE = "model_index.json"
_PART = re.compile(r"\w+/(?:model|diffusion_pytorch_model)\.safetensors")
_SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")


def wanted(listing: Listing) -> list[str]:
    """Return the files of a repository that `from_pretrained` reads, sorted; of a pipeline of
    diffusers those of its parts.

    Raises UserError where there are no safetensors weights or no configuration.
    """
    names = sorted(listing.files)
    parts = [name for name in names if _PART.fullmatch(name)] if _PIPELINE in names else []
    if parts:
        small = [name for name in names if _is_small(name) and name.count("/") == 1]
        return sorted({_PIPELINE, *parts, *small})
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
        if _is_small(name) and ("/" not in name or name.startswith("additional_chat_templates/"))
    ]
    return sorted({*weights, *small})


def with_config(listing: Listing, file: str) -> list[str]:
    """Return a file of weights, and the config.json that belongs to it, if there is one.

    Raises UserError, with the names that are most alike, where the repository lacks the file.
    """
    names = list(listing.files)
    if file not in listing.files:
        alike = get_close_matches(file, names, n=max(len(names), 1), cutoff=0.0)
        raise UserError(
            f"{listing.repo} has no file {file!r} at {listing.commit}; it has {listed(alike)}: "
            "correct `file` or `revision`"
        )
    return [file, *[place for place in config_places(file) if place in listing.files][:1]]


def _is_small(name: str) -> bool:
    return name.endswith(_SMALL) and not name.endswith(".index.json")
