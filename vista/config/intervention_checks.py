"""Checks of a run's interventions against the other parts of its config.

What is accepted and then ignored, or measured on what it was chosen on, would be a wrong result.
Every function raises ValueError with the whole keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.config.data import Split
from vista.config.rivals import InterventionsSettings, MethodEntry, VisionSaeEntry
from vista.config.sweep import Point

VisionSaes = Mapping[str, VisionSaeEntry]
_TASKS = ("removal", "replacement")


def splits_read(settings: InterventionsSettings, saes: VisionSaes) -> list[tuple[str, Split]]:
    """Return which key reads which split of the data."""
    named = (("development", settings.development), ("test", settings.test))
    asked = [(f"interventions.{key}", split) for key, split in named]
    for name, entry in settings.methods.items():
        asked += _chosen_on(name, entry, saes)
        if entry.vision_sae is not None:
            check = saes[entry.vision_sae].check
            asked.append((f"vision_saes.{entry.vision_sae}.check.split", check.split))
    return asked


def refuse_unknown(what: str, name: str, kind: str, entries: Mapping[str, Any]) -> None:
    """Raise ValueError where `name` is no entry of the part `kind` of the config."""
    if name not in entries:
        known = ", ".join(sorted(entries)) or "no entry"
        raise ValueError(f"{what} {name!r}; {kind} has {known}")


def refuse_wrong_names(
    settings: InterventionsSettings,
    encoders: Mapping[str, Any],
    llms: Mapping[str, Any],
    saes: VisionSaes,
) -> None:
    """Refuse names of encoders, language models and vision SAEs that the config has not."""
    for name, entry in settings.methods.items():
        where = f"interventions.methods.{name}"
        if entry.vision_sae is not None:
            refuse_unknown(f"{where}.vision_sae is", entry.vision_sae, "vision_saes", saes)
        for encoder in entry.encoders or ():
            refuse_unknown(f"{where}.encoders names", encoder, "encoders", encoders)
    for kind, entries in (("encoders", encoders), ("llms", llms)):
        for name in getattr(settings, kind) or ():
            refuse_unknown(f"interventions.{kind} names", name, kind, entries)


def refuse_leaks(settings: InterventionsSettings, saes: VisionSaes) -> None:
    """Refuse what is learnt or chosen on the images that figures are reported on."""
    for name, entry in settings.methods.items():
        for key, split in _chosen_on(name, entry, saes):
            if split == settings.test:
                raise ValueError(
                    f"{key} and interventions.test are both {split!r}: figures are not reported "
                    "on what was learnt or chosen on; choose another split"
                )


def _chosen_on(name: str, entry: MethodEntry, saes: VisionSaes) -> list[tuple[str, Split]]:
    found = [(f"interventions.methods.{name}.directions.split", entry.directions.split)]
    if entry.vision_sae is not None:
        sae, where = saes[entry.vision_sae], f"vision_saes.{entry.vision_sae}"
        found.append((f"{where}.train.split", sae.train.split))
        found.append((f"{where}.labels.split", sae.labels.split))
    return found


def refuse_unmeasured(settings: InterventionsSettings, points: list[Point]) -> None:
    """Refuse methods, and keys of theirs, that no projector of the sweep is measured with."""
    for kind, of in (("encoders", "encoder"), ("llms", "llm")):
        there = {getattr(point, of) for point in points}
        for each in getattr(settings, kind) or ():
            if each not in there:
                raise ValueError(f"interventions.{kind} names {each!r}, which is not in the sweep")
    measured = [point for point in points if settings.includes(point)]
    if not measured:
        raise ValueError(
            "interventions.encoders and interventions.llms leave no projector of the sweep"
        )
    for name, entry in settings.methods.items():
        where = f"interventions.methods.{name}"
        for task in _TASKS:
            if getattr(settings, task) is None and getattr(entry, task):
                raise ValueError(
                    f"{where}.{task} is set, but interventions.{task} is null: nothing is "
                    "measured; remove one of the two"
                )
        if all(settings.edit(name, task) is None for task in _TASKS):
            raise ValueError(f"{where} is measured in neither removal nor replacement; remove it")
        own = [point for point in measured if entry.includes(point)]
        weights = sorted(set(entry.sae_weights or ()) - {point.sae_weight for point in own})
        encoders = sorted(set(entry.encoders or ()) - {point.encoder for point in own})
        for key, unused in (("sae_weights", weights), ("encoders", encoders)):
            if unused:
                raise ValueError(
                    f"{where}.{key} names {unused[0]!r}, but interventions are measured on no such "
                    "projector of the sweep; remove it, or add it to `sweep` and "
                    "interventions.encoders"
                )
