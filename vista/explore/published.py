"""What the catalogue says of an SAE beside its lineage: whether it has decoder rows to compare,
and under which name its latents are published at Neuronpedia."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# Stages whose artifacts are SAEs in the neutral form: of language models, then of encoders.
SAES = ("import_sae", "train_vision_sae", "train_guided_sae", "import_vision_sae")
# The config of an SAE in the neutral form, as vista.sae.neutral writes it.
CONFIG = "sae.json"
LARGEST_CONFIG = 100_000  # bytes
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def neuronpedia_id(text: Any) -> str | None:
    """Return "MODEL/SOURCE" if that is what a text is: names that need no escape in an address."""
    return text if isinstance(text, str) and _ID.fullmatch(text) else None


def sae_facts(config: bytes) -> dict[str, Any]:
    """Return `neighbours`, true for an SAE of several latents, and its `neuronpedia`.

    Args:
        config: The content of sae.json; nothing is said of what is none.
    """
    try:
        content = json.loads(config)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    facts: dict[str, Any] = {}
    latents = content.get("d_sae")
    if isinstance(latents, int) and latents > 1:
        facts["neighbours"] = True
    published = neuronpedia_id(content.get("neuronpedia"))
    return facts if published is None else {**facts, "neuronpedia": published}


def label_facts(settings: Any) -> dict[str, Any]:
    """Return the `neuronpedia` of imported labels that name their model and source there."""
    labels = settings.get("labels") if isinstance(settings, Mapping) else None
    if not isinstance(labels, Mapping):
        return {}
    published = neuronpedia_id(f"{labels.get('model')}/{labels.get('source')}")
    named = all(isinstance(labels.get(key), str) for key in ("model", "source"))
    return {"neuronpedia": published} if named and published is not None else {}
