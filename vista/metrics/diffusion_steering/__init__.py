"""Steering: does a latent of the text encoder steer what images show?"""

from __future__ import annotations

from vista.config.diffusion import SteeringSettings
from vista.config.metric import Metric

METRIC = Metric(
    name="diffusion_steering",
    makes="does a latent of the text encoder steer what images show",
    settings=SteeringSettings,
    per="pipeline",
    reads=("pipeline", "prompts", "sae", "check", "labels", "features", "records", "encoder"),
    section=None,
    position=180,
    gpu=True,
    message="steering images of",
)
