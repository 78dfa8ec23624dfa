"""The artifacts behind removal and replacement at one point of the sweep.

A chain a method: latents of the selection split -> directions -> edited captions of the
development and the test split -> the metric. Vision SAEs belong to an encoder and are shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vista.config.interventions import (
    FITTED,
    READS_LATENT,
    TEXT_LATENTS,
    DirectionSettings,
    EditSettings,
)
from vista.config.rivals import InterventionsSettings, MethodEntry
from vista.config.run import Point
from vista.node import Node, dump, point_name, with_judge
from vista.vision_sae_nodes import vision_sae_nodes

if TYPE_CHECKING:
    from vista.nodes import Builder


class InterventionBuilder:
    """Makes the nodes of a run's interventions."""

    def __init__(self, builder: Builder, settings: InterventionsSettings) -> None:
        self.builder, self.settings = builder, settings

    def measured(self, point: Point, projector: Node) -> Iterator[tuple[str, Node]]:
        """Yield each method's metric nodes at one point, with the method's name."""
        settings = self.settings
        if not settings.includes(point):
            return
        for method, entry in settings.methods.items():
            if not entry.includes(point):
                continue
            directions = self._directions(point, projector, method, entry)
            for metric in settings.tasks():
                edit = settings.edit(method, metric)
                if edit is None:
                    continue
                captions = {
                    role: self._captions(point, projector, method, directions, edit, split)
                    for role, split in (
                        ("development", settings.development),
                        ("test", settings.test),
                    )
                }
                scores = dump(settings.scores)
                inputs: dict[str, Node] = {**captions, "records": self.builder.data.records}
                name = f"{point_name(point)}-{method}"
                yield method, with_judge(metric, name, scores, inputs, settings.scores.judge)

    def _directions(self, point: Point, projector: Node, method: str, entry: MethodEntry) -> Node:
        builder, settings = self.builder, entry.directions
        inputs: dict[str, Any] = {
            "records": builder.data.records,
            "features": builder.evaluated(point.encoder),
        }
        own: dict[str, Any] = {"directions": dump(settings)}
        if settings.method in TEXT_LATENTS:
            layers = builder.config.llms[point.llm].saes.layers
            inputs |= {
                "latents": builder.latents(point, projector, settings.split),
                "labels": builder.labels_of(point.llm),
                **builder.gated(point.llm, layers),
            }
        elif settings.method == "vision_latent":
            assert entry.vision_sae is not None
            sae, check, labels = vision_sae_nodes(builder, point.encoder, entry.vision_sae)
            inputs |= {"vision_sae": sae, "check": check, "labels": labels}
        else:
            llm, model = builder.read(point.llm)
            own |= llm
            inputs |= model
        if settings.method in FITTED:
            inputs["projector"] = projector
        name = f"{_direction_name(point, settings)}-{method}"
        files = (settings.path,) if settings.path else ()
        return with_judge("directions", name, own, inputs, settings.judge, files)

    def _captions(
        self,
        point: Point,
        projector: Node,
        method: str,
        directions: Node,
        edit: EditSettings,
        split: str,
    ) -> Node:
        builder = self.builder
        own, inputs = builder.read(point.llm)
        own["edit"] = {**dump(edit), "split": split}
        read: dict[str, Any] = {
            **inputs,
            "projector": projector,
            "features": builder.evaluated(point.encoder),
            "records": builder.data.records,
            "directions": directions,
        }
        if edit.how in READS_LATENT or "active" in edit.tokens:
            if "vision_sae" in directions.inputs:
                read["vision_sae"] = directions.inputs["vision_sae"]
            elif "saes" in directions.inputs:
                read["saes"] = directions.inputs["saes"]
        name = f"{point_name(point)}-{method}-{edit.task}-{split}"
        return with_judge("edit_captions", name, own, read, edit.judge)


def _direction_name(point: Point, settings: DirectionSettings) -> str:
    """What a direction belongs to: a vision SAE's to the encoder, a random one to the LLM."""
    if settings.method == "vision_latent":
        return point.encoder
    return f"{point.encoder}-{point.llm}" if settings.method == "random" else point_name(point)
