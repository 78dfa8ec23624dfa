"""The artifacts behind removal and replacement at one point of the sweep.

A chain for each method: latents of the selection split -> directions -> edited captions of the
development and the test split -> the metric. Vision SAEs belong to an encoder and are shared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from vista.config.edits import READS_LATENT, EditSettings, method_module
from vista.config.interventions import InterventionsSettings, MethodEntry
from vista.config.sweep import Point
from vista.engine.node import Inputs, Node, dump, point_name, with_judge, with_judges
from vista.engine.nodes import Builder
from vista.engine.vision_sae_nodes import vision_sae_nodes
from vista.interventions.method import Role, load_method
from vista.interventions.method_checks import refuse_unfit_methods

METRIC = "intervention"


class InterventionBuilder:
    """Makes the nodes of a run's interventions.

    Raises UserError where a method lacks what it reads, or has edits that it cannot make.
    """

    def __init__(self, builder: Builder, settings: InterventionsSettings) -> None:
        refuse_unfit_methods(settings, builder.config.llms)
        self.builder, self.settings = builder, settings

    def measured(self, point: Point, projector: Node) -> Iterator[tuple[str, Node]]:
        """Yield the metric's nodes at one point, one a method and task, with the method's name."""
        settings, scores = self.settings, self.settings.scores
        if not settings.includes(point):
            return
        for method, entry in settings.methods.items():
            if not entry.includes(point):
                continue
            directions = self._directions(point, projector, method, entry)
            for task, edit in settings.edits(method):
                name = f"{point_name(point)}-{method}"
                inputs: Inputs = {
                    "development": self._captions(
                        point, projector, name, directions, edit, settings.development
                    ),
                    "test": self._captions(point, projector, name, directions, edit, settings.test),
                    "records": self.builder.data.records,
                }
                order = {**dump(scores), "task": task}
                yield method, with_judge(METRIC, f"{name}-{task}", order, inputs, scores.judge)

    def _directions(self, point: Point, projector: Node, method: str, entry: MethodEntry) -> Node:
        """Return the directions of a method: its settings, and the inputs that it declares."""
        builder, settings = self.builder, entry.directions
        reads = load_method(settings.method).reads
        files: tuple[str, ...] = (settings.path,) if settings.path else ()
        order: dict[str, Any] = {"directions": dump(settings)}
        inputs: dict[str, Node | tuple[Node, ...]] = {
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
            order |= llm
            inputs |= model
            files += builder.template_files(point.llm)
        if "projector" in reads:
            inputs["projector"] = projector
        return with_judges(
            "directions",
            f"{_owner_name(point, reads)}-{method}",
            order,
            inputs,
            {"judge": settings.judge},
            files,
            (method_module(settings.method),),
        )

    def _captions(
        self,
        point: Point,
        projector: Node,
        name: str,
        directions: Node,
        edit: EditSettings,
        split: str,
    ) -> Node:
        """Return the captions of one split after an edit along the directions."""
        builder = self.builder
        order, model = builder.read(point.llm)
        order["edit"] = {**dump(edit), "split": split}
        inputs: dict[str, Node | tuple[Node, ...]] = {
            **model,
            "projector": projector,
            "features": builder.evaluated(point.encoder),
            "records": builder.data.records,
            "directions": directions,
        }
        if edit.how in READS_LATENT or "active" in edit.tokens:
            role = "vision_sae" if "vision_sae" in directions.inputs else "saes"
            if role in directions.inputs:
                inputs[role] = directions.inputs[role]
        name = f"{name}-{edit.task}-{split}"
        files = builder.template_files(point.llm)
        return with_judges("edit_captions", name, order, inputs, {"judge": edit.judge}, files)


def _owner_name(point: Point, reads: Collection[Role]) -> str:
    """Return the name of the model that directions belong to: the projector where the method reads
    it, else the encoder, with the LLM where it reads that."""
    if {"latents", "projector"} & set(reads):
        return point_name(point)
    return f"{point.encoder}-{point.llm}" if {"llm", "saes"} & set(reads) else point.encoder
