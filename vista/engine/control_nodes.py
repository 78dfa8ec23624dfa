"""The artifacts of controls: visual tokens that are changed on purpose, and their latents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vista.config.control_base import ControlSettings, Reach
from vista.config.controls import control_module
from vista.config.data import Split
from vista.config.sweep import Point
from vista.engine.node import Node, dump, point_name, with_judge
from vista.engine.nodes import Builder


@dataclass(frozen=True)
class ControlPoint:
    """A control at a point of the sweep.

    Attributes:
        point: The point that its figures stand at, which names the control.
        tokens: What stages read in the role of the projector.
        latents: The latents of its visual tokens.
        reach: What is measured of it.
    """

    point: Point
    tokens: Node
    latents: Node
    reach: Reach


class ControlBuilder:
    """Makes the nodes of the controls of a run; `projectors` are those of its points."""

    def __init__(self, builder: Builder, projectors: Mapping[Point, Node]) -> None:
        self.builder, self.projectors = builder, projectors

    def points(self) -> Iterator[ControlPoint]:
        """Yield all controls of the run, in the order of the sweep."""
        builder = self.builder
        for point, (settings, base) in builder.config.controls().items():
            if settings.trains:
                tokens = builder.projector(point, None)[-1]
            elif settings.reach == "latents":
                tokens = self.projectors[base]
            elif settings.reads_saes:
                tokens = self._chosen_scale(point, settings, self.projectors[base])
            else:
                tokens = self._tokens(point, settings, base)
            latents = builder.latents(point, tokens)
            yield ControlPoint(point, tokens, latents, settings.reach)

    def _tokens(self, point: Point, settings: ControlSettings, base: Point) -> Node:
        """Return the visual tokens that a control makes from projectors, images or words."""
        builder, name = self.builder, _name(point)
        order, inputs = self._models(point)
        order |= {
            "control": name,
            "settings": dump(settings),
            "splits": self._splits(),
            # A control that draws nothing and reads no projector is the same for all seeds.
            "seed": 0 if settings.once else point.seed,
        }
        if not settings.once:
            inputs["projector"] = self.projectors[base]
        if settings.needs_baseline:
            inputs["reference"] = self.projectors[point._replace(control=None)]
        return Node(
            "control_tokens",
            point_name(point),
            order,
            inputs,
            (control_module(name),),
            builder.template_files(point.llm),
        )

    def _chosen_scale(self, point: Point, settings: ControlSettings, projector: Node) -> Node:
        """Return the visual tokens in the scale that labelled latents read best."""
        from vista.config.metric import declared_metrics

        builder = self.builder
        config = builder.config
        matching: Any = getattr(config.metrics, "matching_rate", None)
        if matching is None or matching.evidence != "objects":
            matching = declared_metrics()["matching_rate"].settings()
        order, inputs = self._models(point)
        order |= {
            "scale": dump(settings),
            "matching": {**dump(matching), "other_k": []},
            "latents": dump(config.latents) | {"split": getattr(settings, "split")},  # noqa: B009
        }
        inputs |= {
            "projector": projector,
            "labels": builder.labels_of(point.llm),
            **builder.gated(point.llm, config.llms[point.llm].saes.layers),
        }
        return with_judge("choose_scale", point_name(point), order, inputs, matching.judge)

    def _models(self, point: Point) -> tuple[dict[str, Any], dict[str, Node | tuple[Node, ...]]]:
        """Return the settings and the inputs that every control reads: images and the language
        model."""
        builder = self.builder
        order, model = builder.read(point.llm)
        inputs: dict[str, Node | tuple[Node, ...]] = {
            **model,
            "features": builder.evaluated(point.encoder),
            "records": builder.data.records,
        }
        return dict(order), inputs

    def _splits(self) -> list[Split]:
        """Return the splits that are evaluated, or that something is chosen on."""
        judged = self.builder.config.judged_split(self.builder.config.latents.split)
        return sorted({"validation", "test", judged})


def _name(point: Point) -> str:
    assert point.control is not None
    return point.control
