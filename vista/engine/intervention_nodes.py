"""The artifacts behind removal and replacement at one point of the sweep.

A chain a method: latents of the selection split -> directions -> edited captions of the
development and the test split -> the metric. Vision SAEs belong to an encoder and are shared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from vista.config.interventions import READS_LATENT, EditSettings, method_module
from vista.config.rivals import InterventionsSettings, MethodEntry
from vista.config.sweep import Point
from vista.engine.node import Node, dump, point_name, with_judge, with_judges
from vista.engine.nodes import Builder
from vista.engine.vision_sae_nodes import vision_sae_nodes
from vista.interventions.method import Role, load_method
from vista.interventions.method_checks import refuse_unfit_methods


class InterventionBuilder:
    """Makes the nodes of a run's interventions.

    Raises UserError where a method lacks what it reads, or is asked for edits that it cannot make.
    """

    def __init__(self, builder: Builder, settings: InterventionsSettings) -> None:
        refuse_unfit_methods(settings, builder.config.llms)
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
        reads = load_method(settings.method).reads
        own: dict[str, Any] = {"directions": dump(settings)}
        inputs: dict[str, Any] = {
            "records": builder.data.records,
            "features": builder.evaluated(point.encoder),
        }
        if "latents" in reads:
            inputs["latents"] = builder.latents(point, projector, settings.split)
        if "labels" in reads:
            inputs["labels"] = builder.labels_of(point.llm)
        if "saes" in reads:
            inputs |= builder.gated(point.llm, builder.config.llms[point.llm].saes.layers)
        if "vision_sae" in reads:
            assert entry.vision_sae is not None
            sae, check, labels = vision_sae_nodes(builder, point.encoder, entry.vision_sae)
            inputs |= {"vision_sae": sae, "check": check}
            if "labels" in reads:
                inputs["labels"] = labels
        if "llm" in reads:
            llm, model = builder.read(point.llm)
            own |= llm
            inputs |= model
        if "projector" in reads:
            inputs["projector"] = projector
        name = f"{_direction_name(point, reads)}-{method}"
        files = (settings.path,) if settings.path else ()
        modules = (method_module(settings.method),)
        return with_judges(
            "directions", name, own, inputs, {"judge": settings.judge}, files, modules
        )

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


def _direction_name(point: Point, reads: Collection[Role]) -> str:
    """What a direction belongs to: the projector, where the method reads any; else the encoder,
    with the LLM where it reads that."""
    if {"latents", "projector"} & set(reads):
        return point_name(point)
    return f"{point.encoder}-{point.llm}" if {"llm", "saes"} & set(reads) else point.encoder
