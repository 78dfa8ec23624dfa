"""What the metric asks for: the SAE without a guide, and the one with shuffled annotation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vista.config.metric import Metric
from vista.config.vision_sae import VisionSaeEntry
from vista.engine.node import Node
from vista.engine.places import Place, Request, default_request
from vista.engine.vision_sae_nodes import vision_sae_nodes
from vista.errors import UserError
from vista.metrics.guided_latents import GuidedLatentsSettings


def request(metric: Metric, settings: GuidedLatentsSettings, place: Place) -> Request | None:
    """Return the default request with the two SAEs; None of an SAE that no annotation guides.

    Raises:
        UserError: A named SAE is not there or is no counterpart, or none without a guide is.
    """
    entries = place.builder.config.vision_saes
    name = str(place.columns["method"])
    guided = entries[name]
    if guided.guide is None or guided.guide.shuffle_labels:
        return None
    plain = counterpart(entries, name, settings.plain, "plain")
    if plain is None:
        raise UserError(
            f"probing.guided_latents compares {name!r} with the same SAE without a guide: add an "
            f"entry to `vision_saes` whose `train` is that of {name!r}"
        )
    shuffled = counterpart(entries, name, settings.shuffled, "shuffled")
    saes: dict[str, Node] = {
        role: vision_sae_nodes(place.builder, place.encoder, other).sae
        for role, other in (("plain", plain), ("shuffled", shuffled))
        if other is not None
    }
    default = default_request(metric, settings, place)
    return replace(default, inputs={**default.inputs, **saes})


def counterpart(
    entries: Mapping[str, VisionSaeEntry], name: str, named: str | None, role: str
) -> str | None:
    """Return the SAE that differs from `name` in nothing but its guide, as the role asks.

    Args:
        entries: The config's vision SAEs.
        name: The guided one.
        named: The one that the settings name; None: the first that fits, if one does.
        role: plain: without a guide; shuffled: with the same guide and shuffled annotation.

    Raises:
        UserError: The named one does not fit.
    """
    guided = entries[name]
    assert guided.guide is not None
    # How latents are named does not concern training.
    shuffled = guided.guide.model_copy(update={"shuffle_labels": True})

    def fits(entry: VisionSaeEntry) -> bool:
        if entry.train != guided.train:
            return False
        if role == "plain" or entry.guide is None:
            return role == "plain" and entry.guide is None
        return entry.guide.model_copy(update={"name_latents": shuffled.name_latents}) == shuffled

    if named is None:
        return next((other for other, entry in entries.items() if fits(entry)), None)
    if named not in entries or not fits(entries[named]):
        raise UserError(
            f"probing.guided_latents.{role} is {named!r}, which is no entry of `vision_saes` that "
            f"differs from {name!r} in its guide alone; name such an entry"
        )
    return named
