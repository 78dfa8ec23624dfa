"""The nodes of a vision SAE: training or import, check, labels. They depend on the encoder alone,
so all experiments share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel

from vista.config.guided import GuideSettings
from vista.config.sae import architecture_modules
from vista.config.vision_sae import VisionSaeEntry
from vista.engine.node import Inputs, Node, dump, pick
from vista.engine.nodes import Builder


class VisionSaeNodes(NamedTuple):
    """The nodes that train or import, check and label one SAE."""

    sae: Node
    check: Node
    labels: Node


def vision_sae_nodes(builder: Builder, encoder: str, name: str) -> VisionSaeNodes:
    """Return the nodes of the config's vision SAE `name` on the features of `encoder`."""
    read = {"features": builder.features[encoder], "records": builder.data.records}
    entry = builder.config.vision_saes[name]
    return sae_nodes(f"{encoder}-{name}", entry, read, builder.encoders[encoder])


def sae_nodes(
    name: str, entry: VisionSaeEntry, read: Mapping[str, Node], model: Node | None = None
) -> VisionSaeNodes:
    """Return the nodes of an SAE.

    Args:
        name: Readable name of the SAE.
        entry: Its settings, as an entry of `vision_saes`.
        read: The features that it is trained on, and their records.
        model: The encoder of the features, if it is an artifact; training reads its block.
    """
    settings = dump(entry)
    learnt = {**read, "encoder": model} if model else read
    label = "label_vision_latents"
    if entry.imported is not None:
        order = {"sae": dump(entry.imported), "name": name}
        # The architecture is known when the SAE is imported: all of them count.
        modules, files = architecture_modules(), entry.imported.files
        if entry.imported.repo is not None:
            weights = pick(entry.imported, "repo", "revision", "file")
            fetched = Node("fetch_model", entry.imported.repo.rpartition("/")[2], weights)
            learnt = {**learnt, "fetched": fetched}
        sae = Node("import_vision_sae", name, order, learnt, modules, files)
    else:
        train = settings["train"]
        modules = architecture_modules(train["architecture"])
        order = {"sae": train, "name": name}
        if guide := settings.get("guide"):
            # How latents are named does not concern training.
            named = guide.pop("name_latents")
            order["guide"] = guide
            files = GuideSettings.model_validate(guide).files
            sae = Node("train_guided_sae", name, order, learnt, modules, files)
            label = "label_guided_latents" if named else label
        else:
            sae = Node("train_vision_sae", name, order, learnt, modules)
    device = {"sae": {"device": entry.device}}
    inputs = {**read, "sae": sae}
    check = Node("check_vision_sae", name, {"check": settings["check"], **device}, inputs)
    checked = {**inputs, "check": check}
    labels = Node(label, name, {"labels": settings["labels"], **device}, checked)
    return VisionSaeNodes(sae, check, labels)


def steering_labels(
    builder: Builder, name: str, llm: str, place: Inputs, settings: BaseModel
) -> Node:
    """Return the labels that a language model gives to the latents of a vision SAE by steering.

    Args:
        builder: The nodes that the SAE and the point share with others.
        name: Readable name of the SAE at the point.
        llm: Name of the language model.
        place: SAE, labels, features, records, projector and encoder, by role.
        settings: How latents are steered.
    """
    order, model = builder.read(llm)
    roles = ("sae", "labels", "features", "records", "projector", "encoder")
    inputs = {role: place[role] for role in roles if role in place}
    features, labels = inputs["features"], inputs["labels"]
    assert isinstance(features, Node) and isinstance(labels, Node)
    order |= {
        "encoder": features.order["encoder"],
        "sae": labels.order["sae"],
        "steer": dump(settings),
    }
    return Node(
        "label_by_steering",
        name,
        order,
        {**inputs, **model},
        features.modules,
        builder.template_files(llm),
    )
