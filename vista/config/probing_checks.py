"""Checks of a run's probing experiments against the other parts of its config.

Every function raises ValueError with the whole keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from vista.config.base import Settings
from vista.config.data import AnyData, refuse_empty_split
from vista.config.encoders import CombinedEncoder, EncoderSettings
from vista.config.intervention_checks import refuse_unknown
from vista.config.probing import ProbingSettings
from vista.config.sweep import Point
from vista.config.vision_sae import VisionSaeEntry


def judge_of(
    judged_by: str | None, encoders: Mapping[str, EncoderSettings], encoder: str
) -> str | None:
    """Return the name of the encoder that judges the latents of another one, if there is one.

    Args:
        judged_by: The judge that the config names; None: the first that reads another model.

    Encoders that read the same model do not judge each other.
    """
    models = _models(encoders, encoder)
    judges = [judged_by] if judged_by else encoders
    return next((j for j in judges if not any(m in models for m in _models(encoders, j))), None)


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
    points: Collection[Point],
) -> None:
    """Refuse unknown names, experiments without a model, splits without images, and SAEs that were
    trained on the images that figures are reported on."""
    _refuse_wrong_names(settings, encoders, saes)
    _refuse_missing_models(settings, saes, llms)
    _refuse_missing_points(settings, encoders, points)
    _refuse_unfit_judges(settings, encoders)
    _refuse_missing_images(settings, data)
    _refuse_leaks(settings, saes)


def refuse_without_head(settings: ProbingSettings, weights: Iterable[float]) -> None:
    """Refuse metrics of visual words where no projector is trained with a head of them.

    `weights` are those of the terms of visual words of the projectors that are trained.
    """
    if any(weights):
        return
    for metric, _ in settings.chosen():
        if metric.name in ("visual_words", "pseudo_images"):
            raise ValueError(
                f"probing.{metric.name} reads the head of visual words, and no projector trains "
                "one; give `projector`, or `recipe` of a block of the sweep, `visual_words`"
            )


def _refuse_wrong_names(
    settings: ProbingSettings,
    encoders: Mapping[str, EncoderSettings],
    saes: Mapping[str, VisionSaeEntry],
) -> None:
    parts: dict[str, Settings | None] = {
        "probing": settings,
        **{f"probing.{metric.name}": part for metric, part in settings.chosen()},
        "probing.diffusion": settings.diffusion,
    }
    for kind, entries in (("encoders", encoders), ("vision_saes", saes)):
        for key, part in parts.items():
            for name in getattr(part, kind, None) or ():
                refuse_unknown(f"{key}.{kind} names", name, kind, entries)
    for key, part in parts.items():
        if (judge := getattr(part, "judged_by", None)) is not None:
            refuse_unknown(f"{key}.judged_by is", judge, "encoders", encoders)


def _refuse_missing_models(
    settings: ProbingSettings, saes: Collection[str], llms: Collection[str]
) -> None:
    for metric, _ in settings.chosen():
        if metric.per in ("point", "vision_sae_point") and not llms:
            raise ValueError(
                f"probing.{metric.name} reads language models, but there are no `llms`"
            )
        if metric.per in ("vision_sae", "vision_sae_point") and not saes:
            raise ValueError(
                f"probing.{metric.name} probes SAEs of the encoders' features, but there are "
                "no `vision_saes`"
            )


def _refuse_missing_points(
    settings: ProbingSettings,
    encoders: Mapping[str, EncoderSettings],
    points: Collection[Point],
) -> None:
    """Refuse metrics of vision SAEs at points that have none, and combined encoders: what they
    measure shows an encoder a picture."""
    for metric, part in settings.chosen():
        if metric.per != "vision_sae_point":
            continue
        key, named = f"probing.{metric.name}", getattr(part, "encoders", None)
        probed = named or settings.encoders or tuple(encoders)
        for name in probed:
            if encoders[name].source.kind == "combined":
                raise ValueError(
                    f"{key} shows encoders a picture, and {name!r} is combined; name others in "
                    f"{key}.encoders"
                )
        weights, seeds = (getattr(part, field, None) for field in ("sae_weights", "seeds"))
        read = {
            point.encoder
            for point in points
            if (weights is None or point.sae_weight in weights)
            and (seeds is None or point.seed in seeds)
        }
        lacking = [name for name in probed if name not in read]
        # Encoders that all experiments probe need no projector each.
        if lacking and (named is not None or len(lacking) == len(probed)):
            raise ValueError(
                f"{key} reads a projector of encoder {lacking[0]!r}, and the sweep has no such "
                f"point; add one, or correct {key}.encoders, sae_weights and seeds"
            )


def _refuse_unfit_judges(
    settings: ProbingSettings, encoders: Mapping[str, EncoderSettings]
) -> None:
    for metric, part in settings.chosen():
        if not hasattr(part, "judged_by"):
            continue
        probed = settings.encoders or tuple(encoders)
        lonely = [name for name in probed if judge_of(part.judged_by, encoders, name) is None]
        # A judge that the config names is known not to judge its own model.
        if lonely and (part.judged_by is None or len(lonely) == len(probed)):
            raise ValueError(
                f"probing.{metric.name} judges a latent's images by another model than its own, "
                f"and {lonely[0]!r} has none; add one to `encoders`, or set judged_by"
            )
    judge = settings.diffusion.judged_by if settings.diffusion else None
    if judge is not None and encoders[judge].source.kind == "combined":
        raise ValueError(
            f"probing.diffusion.judged_by is {judge!r}, which is combined: name its part"
        )


def _refuse_missing_images(settings: ProbingSettings, data: AnyData) -> None:
    for key, name, split in settings.splits_read():
        images = data if name is None else settings.data[name]
        holder = "data" if name is None else f"probing.data.{name}"
        refuse_empty_split(images, holder, key, split)


def _refuse_leaks(settings: ProbingSettings, saes: Mapping[str, VisionSaeEntry]) -> None:
    judged = {
        split
        for key, name, split in settings.splits_read()
        if name is None and not key.endswith("fit_split")
    }
    for name in settings.vision_saes or saes:
        if (split := saes[name].split) in judged:
            key = "train" if saes[name].imported is None else "import"
            raise ValueError(
                f"vision_saes.{name}.{key}.split and images that `probing` judges on are both "
                f"{split!r}; choose another split"
            )
