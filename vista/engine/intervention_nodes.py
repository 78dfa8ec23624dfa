"""The artifacts behind removal and replacement at one point of the sweep.

A chain for each method: latents of the selection split -> directions -> edited captions of the
development and the test split -> the metric. Vision SAEs belong to an encoder and are shared. A
control of a method has its directions, and captions and a metric of its own, which also reads the
method's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from vista.config.edits import READS_LATENT, EditControl, EditSettings, method_module
from vista.config.interventions import InterventionsSettings, MethodEntry, Task
from vista.config.sweep import Point
from vista.engine.node import Node, dump, point_name, with_judge, with_judges
from vista.engine.nodes import Builder
from vista.engine.vision_sae_nodes import vision_sae_nodes
from vista.interventions.method import Role, load_method
from vista.interventions.method_checks import refuse_unfit_methods

METRIC = "intervention"


@dataclass(frozen=True)
class _Chain:
    """What the edits of a method at one point of the sweep share."""

    point: Point
    projector: Node
    method: str
    directions: Node


class InterventionBuilder:
    """Makes the nodes of a run's interventions.

    Raises UserError where a method lacks what it reads, or has edits that it cannot make.
    """

    def __init__(self, builder: Builder, settings: InterventionsSettings) -> None:
        refuse_unfit_methods(settings, builder.config.llms)
        self.builder, self.settings = builder, settings

    def measured(self, point: Point, projector: Node) -> Iterator[tuple[str, Node]]:
        """Yield the metric's nodes at one point, each with its method's name: one a method and
        task, followed by those of its controls."""
        settings = self.settings
        if not settings.includes(point):
            return
        for method, entry in settings.methods.items():
            if not entry.includes(point):
                continue
            directions = self._directions(point, projector, method, entry)
            chain = _Chain(point, projector, method, directions)
            for task, edit in settings.edits(method):
                node = self._scored(chain, task, edit)
                yield method, node
                for control in edit.controls:
                    yield method, self._scored(chain, task, edit, (control, node))

    def _scored(
        self,
        chain: _Chain,
        task: Task,
        edit: EditSettings,
        control_of: tuple[EditControl, Node] | None = None,
    ) -> Node:
        """Return the metric of a method and task; or of a control, with the metric that it is a
        control of."""
        settings, scores = self.settings, self.settings.scores
        control = control_of[0] if control_of else None
        name = "-".join([point_name(chain.point), chain.method, *([control] if control else [])])
        inputs: dict[str, Node | tuple[Node, ...]] = {
            "development": self._captions(chain, name, edit, settings.development, control),
            "test": self._captions(chain, name, edit, settings.test, control),
            "records": self.builder.data.records,
        }
        if control_of is not None:
            inputs["method"] = control_of[1]
        order = {**dump(scores), "task": task}
        return with_judge(METRIC, f"{name}-{task}", order, inputs, scores.judge)

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
        chain: _Chain,
        name: str,
        edit: EditSettings,
        split: str,
        control: EditControl | None,
    ) -> Node:
        """Return the captions of one split after an edit along the directions, or its control."""
        builder, point, directions = self.builder, chain.point, chain.directions
        order, model = builder.read(point.llm)
        order["edit"] = {**edit.model_dump(mode="json", exclude={"controls"}), "split": split}
        if control is not None:
            order["control"] = control
            order["edit"] |= {"tokens": [edit.tokens[0]], "outside": False}
        inputs: dict[str, Node | tuple[Node, ...]] = {
            **model,
            "projector": chain.projector,
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
