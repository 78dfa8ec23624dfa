"""What metrics over masked latents ask for: latents of the images that the mask is estimated on."""

from __future__ import annotations

from dataclasses import replace

from vista.config.data import FileData, Split
from vista.config.metric import Metric
from vista.config.metrics import MaskImages
from vista.config.sweep import Point
from vista.engine.node import Node
from vista.engine.places import Place, Request, default_request
from vista.metrics.labelled_latents import LabelledLatentsSettings
from vista.metrics.localization import LocalizationSettings
from vista.metrics.matching_rate import MatchingSettings

_SPLIT: Split = "validation"


def masked_request(
    metric: Metric,
    settings: MatchingSettings | LocalizationSettings | LabelledLatentsSettings,
    place: Place,
) -> Request:
    """Return the default request, with the latents of the validation images where the frequency
    mask is estimated on them.

    A job knows by its inputs which images these are, so `mask.images` is no part of its settings.
    """
    default = default_request(metric, settings, place)
    mask = {key: value for key, value in default.settings["mask"].items() if key != "images"}
    inputs = dict(default.inputs)
    if mask_images(settings.mask.images, place) == "validation":
        projector = place.inputs["projector"]
        assert isinstance(projector, Node)
        inputs["mask_latents"] = place.builder.latents(Point(**place.columns), projector, _SPLIT)
    return replace(default, settings={**default.settings, "mask": mask}, inputs=inputs)


def mask_images(chosen: MaskImages, place: Place) -> MaskImages:
    """Return the images that the frequency mask is estimated on: those of the settings, or the
    evaluated ones where the run evaluates as published or has no other validation images."""
    config = place.builder.config
    without = isinstance(config.data, FileData) and not config.data.holds(_SPLIT)
    if config.paper_faithful or without or config.judged_split(config.latents.split) == _SPLIT:
        return "evaluated"
    return chosen
