"""Attributes that latents of the text encoder find by themselves."""

from __future__ import annotations

from vista.config.diffusion import AttributeSettings
from vista.config.metric import Metric

METRIC = Metric(
    name="attribute_discovery",
    makes="attributes that latents of the text encoder find by themselves",
    settings=AttributeSettings,
    per="pipeline",
    reads=(
        "pipeline",
        "prompts",
        "sae",
        "check",
        "labels",
        "features",
        "records",
        "encoder",
        "judge",
    ),
    section=None,
    position=190,
    gpu=True,
    message="looking for attributes in",
)
