"""Checks of a run's probing experiments against the other parts of its config.

Every function raises ValueError with the whole keys.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from vista.config.data import AnyData, FileData
from vista.config.encoders import CombinedEncoder, EncoderSettings
from vista.config.intervention_checks import refuse_unknown
from vista.config.probing import MonosemanticitySettings, ProbingSettings
from vista.config.rivals import VisionSaeEntry


def judge_of(
    settings: MonosemanticitySettings, encoders: Mapping[str, EncoderSettings], encoder: str
) -> str | None:
    """Name the encoder that judges the latents of another one; None where there is none.

    Two ways to read one model are no two models: of its own features, none judges.
    """
    own = _models(encoders, encoder)
    others = [settings.judged_by] if settings.judged_by else encoders
    return next((o for o in others if not any(m in own for m in _models(encoders, o))), None)


def _models(encoders: Mapping[str, EncoderSettings], name: str) -> list[Any]:
    source = encoders[name].source
    if isinstance(source, CombinedEncoder):
        return [encoders[part].source for part in source.encoders]
    return [source]


def refuse_unfit_probing(
    settings: ProbingSettings,
    data: AnyData,
    encoders: Mapping[str, EncoderSettings],
    saes: Mapping[str, VisionSaeEntry],
    llms: Collection[str],
) -> None:
    """Refuse names that the config has not, experiments without a model to be made on, splits
    without images, and SAEs that learnt from the images that figures are reported on."""
    for each in ("shared_latents", "logit_lens"):
        if getattr(settings, each) is not None and not llms:
            raise ValueError(f"probing.{each} reads language models, but there are no `llms`")
    for kind, entries in (("encoders", encoders), ("vision_saes", saes)):
        for key, names in (("probing", settings), ("probing.ontology", settings.ontology)):
            for name in getattr(names, kind, None) or ():
                refuse_unknown(f"{key}.{kind} names", name, kind, entries)
    if settings.of_saes() and not saes:
        raise ValueError(
            f"probing.{settings.of_saes()[0]} probes SAEs of the encoders' features, but there are "
            "no `vision_saes`"
        )
    if (mono := settings.monosemanticity) is not None:
        if mono.judged_by is not None:
            key = "probing.monosemanticity.judged_by is"
            refuse_unknown(key, mono.judged_by, "encoders", encoders)
        probed = settings.encoders or tuple(encoders)
        lonely = [each for each in probed if judge_of(mono, encoders, each) is None]
        # Whoever names the judge knows that it has no say on its own model.
        if lonely and (mono.judged_by is None or len(lonely) == len(probed)):
            raise ValueError(
                "probing.monosemanticity judges a latent's images by another model than its own, "
                f"and {lonely[0]!r} has none; add one to `encoders`, or set judged_by"
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
