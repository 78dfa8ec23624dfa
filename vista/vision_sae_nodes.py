"""The artifacts of a vision SAE: training, gate, labels. They belong to an encoder and are shared
by all that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vista.node import Node, dump

if TYPE_CHECKING:
    from vista.nodes import Builder


class VisionSaeNodes(NamedTuple):
    """What trains, checks and labels one SAE."""

    sae: Node
    check: Node
    labels: Node


def vision_sae_nodes(builder: Builder, encoder: str, name: str) -> VisionSaeNodes:
    """Return the nodes of the config's vision SAE `name` on the features of `encoder`."""
    entry, where = builder.config.vision_saes[name], f"{encoder}-{name}"
    read = {"features": builder.features[encoder], "records": builder.data.records}
    trained = builder.encoders[encoder]
    with_model = {**read, "encoder": trained} if trained else read
    own = {"sae": dump(entry.train), "name": where}
    sae = Node("train_vision_sae", where, own, with_model)
    inputs = {**read, "sae": sae}
    on = {"sae": {"device": entry.train.device}}
    check = Node("check_vision_sae", where, {"check": dump(entry.check), **on}, inputs)
    gated = {**inputs, "check": check}
    labels = Node("label_vision_latents", where, {"labels": dump(entry.labels), **on}, gated)
    return VisionSaeNodes(sae, check, labels)
