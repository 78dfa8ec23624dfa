"""Checks of a run's interventions against the other parts of its config.

They refuse settings without effect, and figures on images that something was learnt or chosen on.
Every function that refuses raises ValueError with the whole keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vista.config.data import Split
from vista.config.interventions import EDIT_TASKS, InterventionsSettings, MethodEntry
from vista.config.sweep import Point
from vista.config.vision_sae import VisionSaeEntry

VisionSaes = Mapping[str, VisionSaeEntry]


def splits_read(settings: InterventionsSettings, saes: VisionSaes) -> Iterator[tuple[str, Split]]:
    """Yield the keys that name a split of the run's data, each with the split."""
    yield "interventions.development", settings.development
    yield "interventions.test", settings.test
    for name, method in settings.methods.items():
        yield from _learnt_on(name, method, saes)
        if method.vision_sae is not None:
            check = saes[method.vision_sae].check
            yield f"vision_saes.{method.vision_sae}.check.split", check.split


def refuse_unknown(what: str, name: str, part: str, entries: Mapping[str, Any]) -> None:
    """Refuse a name that is no entry of a part of the config; `what` opens the sentence."""
    if name not in entries:
        known = ", ".join(sorted(entries)) or "no entry"
        raise ValueError(f"{what} {name!r}; {part} has {known}")


def refuse_wrong_names(
    settings: InterventionsSettings,
    encoders: Mapping[str, Any],
    llms: Mapping[str, Any],
    saes: VisionSaes,
) -> None:
    """Refuse names of encoders, language models and vision SAEs that the config does not have."""
    for name, method in settings.methods.items():
        key = f"interventions.methods.{name}"
        if method.vision_sae is not None:
            refuse_unknown(f"{key}.vision_sae is", method.vision_sae, "vision_saes", saes)
        for encoder in method.encoders or ():
            refuse_unknown(f"{key}.encoders names", encoder, "encoders", encoders)
    for part, entries in (("encoders", encoders), ("llms", llms)):
        for name in getattr(settings, part) or ():
            refuse_unknown(f"interventions.{part} names", name, part, entries)


def refuse_leaks(settings: InterventionsSettings, saes: VisionSaes) -> None:
    """Refuse methods that learn or choose on the images that figures are reported on."""
    for name, method in settings.methods.items():
        for key, split in _learnt_on(name, method, saes):
            if split == settings.test:
                raise ValueError(
                    f"{key} and interventions.test are both {split!r}: figures are not reported "
                    "on what was learnt or chosen on; choose another split"
                )


def _learnt_on(name: str, method: MethodEntry, saes: VisionSaes) -> Iterator[tuple[str, Split]]:
    """Yield the keys that name the splits of a method's directions and vision SAE."""
    yield f"interventions.methods.{name}.directions.split", method.directions.split
    if method.vision_sae is not None:
        sae, key = saes[method.vision_sae], f"vision_saes.{method.vision_sae}"
        if sae.split is not None:
            source = "train" if sae.imported is None else "import"
            yield f"{key}.{source}.split", sae.split
        yield f"{key}.labels.split", sae.labels.split


def refuse_unmeasured(settings: InterventionsSettings, points: list[Point]) -> None:
    """Refuse methods and keys of methods that no projector of the sweep is measured with."""
    for part, column in (("encoders", "encoder"), ("llms", "llm")):
        swept = {getattr(point, column) for point in points}
        for name in getattr(settings, part) or ():
            if name not in swept:
                raise ValueError(f"interventions.{part} names {name!r}, which is not in the sweep")
    measured = [point for point in points if settings.includes(point)]
    if not measured:
        raise ValueError(
            "interventions.encoders and interventions.llms leave no projector of the sweep"
        )
    for name, method in settings.methods.items():
        key = f"interventions.methods.{name}"
        for task in EDIT_TASKS:
            if getattr(settings, task) is None and getattr(method, task):
                raise ValueError(
                    f"{key}.{task} is set, but interventions.{task} is null: nothing is "
                    "measured; remove one of the two"
                )
        if not any(settings.edits(name)):
            raise ValueError(f"{key} is measured in neither removal nor replacement; remove it")
        _refuse_unswept(key, method, [point for point in measured if method.includes(point)])


def _refuse_unswept(key: str, method: MethodEntry, points: list[Point]) -> None:
    """Refuse weights and encoders of a method that none of its points has."""
    weights = sorted(set(method.sae_weights or ()) - {point.sae_weight for point in points})
    encoders = sorted(set(method.encoders or ()) - {point.encoder for point in points})
    for field, unswept in (("sae_weights", weights), ("encoders", encoders)):
        if unswept:
            raise ValueError(
                f"{key}.{field} names {unswept[0]!r}, but interventions are measured on no such "
                "projector of the sweep; remove it, or add it to `sweep` and "
                "interventions.encoders"
            )
