"""Checks of a run's probing experiments against the other parts of its config.

Every function raises ValueError with the whole keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.config.data import AnyData, FileData
from vista.config.intervention_checks import refuse_unknown
from vista.config.probing import ProbingSettings
from vista.config.rivals import VisionSaeEntry


def refuse_unfit_probing(
    settings: ProbingSettings,
    data: AnyData,
    encoders: Mapping[str, Any],
    saes: Mapping[str, VisionSaeEntry],
) -> None:
    """Refuse names that the config has not, splits without images, and SAEs that learnt from the
    images that figures are reported on."""
    for kind, entries in (("encoders", encoders), ("vision_saes", saes)):
        for name in getattr(settings, kind) or ():
            refuse_unknown(f"probing.{kind} names", name, kind, entries)
    if settings.of_saes() and not saes:
        raise ValueError(
            f"probing.{settings.of_saes()[0]} probes SAEs of the encoders' features, but there are "
            "no `vision_saes`"
        )
    if (mono := settings.monosemanticity) is not None:
        if mono.judged_by is not None:
            key = "probing.monosemanticity.judged_by is"
            refuse_unknown(key, mono.judged_by, "encoders", encoders)
        if {mono.judged_by} >= set(settings.encoders or encoders) or len(encoders) < 2:
            raise ValueError(
                "probing.monosemanticity judges a latent's images by another encoder than its own; "
                "add one to `encoders`, or set judged_by"
            )
    if (diffusion := settings.diffusion) is not None and diffusion.judged_by is not None:
        key = "probing.diffusion.judged_by is"
        refuse_unknown(key, diffusion.judged_by, "encoders", encoders)
        if encoders[diffusion.judged_by].source.kind == "combined":
            raise ValueError(f"{key} {diffusion.judged_by!r}, which is combined: name its part")
    for key, name, split in settings.splits_read():
        images = data if name is None else settings.data[name]
        if isinstance(images, FileData) and not images.holds(split):
            where = "data" if name is None else f"probing.data.{name}"
            raise ValueError(f"{key} reads split {split!r}, but {where} has no such images")
    judged = {
        split
        for key, name, split in settings.splits_read()
        if name is None and not key.endswith("fit_split")
    }
    for name in settings.vision_saes or saes:
        if saes[name].train.split in judged:
            raise ValueError(
                f"vision_saes.{name}.train.split and images that `probing` judges on are both "
                f"{saes[name].train.split!r}; choose another split"
            )
