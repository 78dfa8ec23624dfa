"""What nodes hold of the settings of models and of text passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vista.config.encoders import (
    AnyEncoder,
    CheckpointEncoder,
    CombinedEncoder,
    EncoderSettings,
    OnnxEncoder,
)
from vista.config.language import LanguageSettings
from vista.config.plugins import FAMILIES, refuse_clash
from vista.config.projector import ProjectorSettings, SaeTermSettings
from vista.config.sae import CheckSaeSettings, LabelSettings, TokenFilter, TrainSaeSettings
from vista.engine.node import Node, dump, pick


def combined(name: str, source: CombinedEncoder, parts: Sequence[Node]) -> Node:
    """Return the combined features of encoders; their order says nothing of their names."""
    order = {"encoder": {"source": pick(source, "kind", "how", "grid")}}
    return Node("combine_features", name, order, {"features": tuple(parts)})


def aggregator(recipe: ProjectorSettings) -> dict[str, Any]:
    """Return the sizes of a projector's aggregator, if it has one."""
    if recipe.kind != "spatial_aggregator":
        return {}
    return {"aggregator": dump(recipe.aggregator)}


def sae_term(recipe: ProjectorSettings, control: str | None) -> dict[str, Any]:
    """Return the settings of the SAE term, of which some are left out while they are the defaults.

    `control`, if any, is one that trains with the squared stream in place of the term.
    """
    term = recipe.sae_term if control is None else SaeTermSettings(penalises="stream")
    changed = {} if term == SaeTermSettings() else {"sae_term": dump(term)}
    return {"sae_dtype": recipe.sae_dtype, **changed}


def filtered(
    settings: TrainSaeSettings | CheckSaeSettings | LabelSettings, tokens: TokenFilter
) -> dict[str, Any]:
    """Return the settings of a stage that reads text without some tokens, unless its own `text`
    says which."""
    whole = dump(settings)
    return whole | {"text": dump(tokens) | whole["text"]}


def family_module(family: str) -> tuple[str, ...]:
    """Return the module of an encoder family, as modules of a node.

    Raises UserError if a plug-in has the name of a family of this package.
    """
    if family in FAMILIES.own():
        refuse_clash(FAMILIES.group, family)
    return (FAMILIES.module(family),)


def model_settings(settings: EncoderSettings | LanguageSettings) -> dict[str, Any]:
    """Return a model's settings, without a stand-in's recipe, which is part of its own node."""
    whole = dump(settings)
    if settings.source.kind == "standin":
        whole["source"] = {"kind": "standin", "family": settings.source.family}
    # The name of a package in the config is none of the model's: its content is an input.
    return {**whole, "source": without_package(whole["source"])}


def without_package(source: dict[str, Any]) -> dict[str, Any]:
    """Return a source without the name of its package."""
    return {key: value for key, value in source.items() if key != "package"}


def as_published(source: AnyEncoder) -> AnyEncoder:
    """Return an encoder's source with its own weights: random ones need the same files."""
    if isinstance(source, CheckpointEncoder | OnnxEncoder):
        return source.model_copy(update={"random_weights": None})
    return source
