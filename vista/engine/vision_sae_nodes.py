"""The artifacts of a vision SAE: training, gate, labels. They belong to an encoder and are shared
by all that read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel

from vista.config.sae import architecture_modules
from vista.engine.node import Node, dump
from vista.engine.nodes import Builder


class VisionSaeNodes(NamedTuple):
    """What trains, checks and labels one SAE."""

    sae: Node
    check: Node
    labels: Node


def vision_sae_nodes(builder: Builder, encoder: str, name: str) -> VisionSaeNodes:
    """Return the nodes of the config's vision SAE `name` on the features of `encoder`."""
    read = {"features": builder.features[encoder], "records": builder.data.records}
    entry = builder.config.vision_saes[name]
    return sae_nodes(f"{encoder}-{name}", entry, read, builder.encoders[encoder])


def sae_nodes(
    where: str, entry: BaseModel, read: Mapping[str, Node], model: Node | None = None
) -> VisionSaeNodes:
    """Return the nodes of an SAE, an entry of `vision_saes`, on what `read` holds: features, and
    the records that tell of them.

    `model` is what the features came from, where it is an artifact: training asks it for its block.
    """
    own = dump(entry)
    trained = {"sae": own["train"], "name": where}
    learnt = {**read, "encoder": model} if model else read
    modules = architecture_modules(own["train"]["architecture"])
    sae = Node("train_vision_sae", where, trained, learnt, modules)
    inputs = {**read, "sae": sae}
    on = {"sae": {"device": own["train"]["device"]}}
    check = Node("check_vision_sae", where, {"check": own["check"], **on}, inputs)
    gated = {**inputs, "check": check}
    labels = Node("label_vision_latents", where, {"labels": own["labels"], **on}, gated)
    return VisionSaeNodes(sae, check, labels)
