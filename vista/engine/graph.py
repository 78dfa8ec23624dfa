"""The graph of a config: the models of each point of the sweep, the metrics that are measured with
them, and the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vista.config.metric import Per, metrics_with
from vista.config.run import RunConfig
from vista.config.sweep import Point
from vista.engine.control_nodes import ControlBuilder
from vista.engine.diffusion_nodes import METHOD, DiffusionBuilder
from vista.engine.intervention_nodes import InterventionBuilder
from vista.engine.node import Node, dump
from vista.engine.nodes import Builder
from vista.engine.places import Place, Places

# The columns of a metric's figures in the table, and its node.
Measured = tuple[dict[str, Any], Node]


class Graph:
    """Makes all nodes of one config.

    Raises UserError if parts of the config do not fit together.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.builder = Builder(config)
        self.features = {name: self.builder.evaluated(name) for name in config.encoders}
        self.projectors = {
            point: self.builder.projector(point, pretrained)
            for point, pretrained in config.points().items()
        }
        self.latents = {
            point: self.builder.latents(point, stages[-1])
            for point, stages in self.projectors.items()
        }
        projectors = {point: stages[-1] for point, stages in self.projectors.items()}
        self.controls = list(ControlBuilder(self.builder, projectors).points())
        self.places = Places(self.builder, projectors, self.latents, self.controls)

    def root(self) -> Node:
        """Return the node of the report, which depends on all other nodes."""
        config, builder = self.config, self.builder
        measured = [*self._metrics(), *self._probing(), *self._interventions()]
        trained = [
            (point, stage)
            for point, stages in self.projectors.items()
            for stage in stages
            if stage.stage == "train_projector"
        ]
        inputs: dict[str, Node | tuple[Node, ...]] = {
            "metrics": tuple(node for _, node in measured),
            "checks": tuple(builder.checks.values()),
            "projectors": tuple(node for _, node in trained),
            "latents": tuple(self.latents.values()),
            "labels": tuple(builder.labels.values()),
            "features": tuple(self.features.values()),
            **builder.data.inputs,
        }
        if suggested := self._suggestions():
            inputs["suggestions"] = tuple(suggested.values())
        settings = {
            "name": config.name,
            "report": dump(config.report),
            "points": [columns for columns, _ in measured],
            "checks": [{"llm": llm} for llm, _ in builder.checks],
            "curves": [point._asdict() for point, _ in trained],
            "latents": [point._asdict() for point in self.latents],
            "labels": [{"llm": llm} for llm, _ in builder.labels],
            "features": [{"encoder": name} for name in self.features],
        }
        if suggested:
            settings["suggestions"] = [self._chosen(*pair) for pair in suggested]
        if dictionaries := self._dictionaries():
            settings["dictionaries"] = dictionaries
        stages = {node.stage for _, node in measured}
        metrics = [metric for name, metric in metrics_with(stages).items() if name in stages]
        modules = tuple(metric.module("report") for metric in metrics)
        return Node("report", config.name, settings, inputs, modules)

    def _suggestions(self) -> dict[tuple[str, str], Node]:
        """Return the suggestions for the projectors that are trained here, if asked for."""
        if self.config.suggest is None:
            return {}
        trained = [point for point, source in self.config.points().items() if source is None]
        pairs = dict.fromkeys((point.encoder, point.llm) for point in trained)
        return {pair: self.builder.suggestion(*pair) for pair in pairs}

    def _dictionaries(self) -> list[list[str]]:
        """Return the language models of the sweep that are read by several SAEs: the names of the
        entries of each."""
        models: dict[str, list[str]] = {}
        for name in dict.fromkeys(point.llm for point in self.latents):
            models.setdefault(self.builder.with_same_model(name), []).append(name)
        return [names for names in models.values() if len(names) > 1]

    def _chosen(self, encoder: str, llm: str) -> dict[str, Any]:
        """Return the config's settings for the projectors of a pair that suggestions are about."""
        recipe = self.config.projector
        weights = {
            p.sae_weight for p in self.config.points() if (p.encoder, p.llm) == (encoder, llm)
        }
        return {
            "encoder": encoder,
            "llm": llm,
            "init_scale": recipe.init_scale,
            "lr": recipe.stages[0].lr,
            "sae_weights": sorted(weights),
        }

    def _metrics(self) -> Iterator[Measured]:
        kinds: tuple[Per, ...] = ("encoder", "layer", "run", "point", "dictionaries")
        for kind in kinds:
            yield from map(_placed, self.places.measured(self.config.metrics, kind))
        yield from map(_placed, self.places.of_controls(self.config.metrics))

    def _probing(self) -> Iterator[Measured]:
        if (probing := self.config.probing) is None:
            return
        yield from map(_placed, self.places.of_vision_saes(probing))
        yield from map(_placed, self.places.of_vision_saes_at_points(probing))
        if probing.diffusion is not None:
            diffusion = DiffusionBuilder(self.builder, probing.diffusion, probing.attributes)
            for node in diffusion.nodes():
                yield _measured(node, encoder=diffusion.judge, method=METHOD)
        yield from map(_placed, self.places.measured(probing, "point"))

    def _interventions(self) -> Iterator[Measured]:
        if self.config.interventions is None:
            return
        interventions = InterventionBuilder(self.builder, self.config.interventions)
        for point, stages in self.projectors.items():
            for method, node in interventions.measured(point, stages[-1]):
                yield _measured(node, point, method=method)


def _placed(measured: tuple[Place, Node]) -> Measured:
    place, node = measured
    return _measured(node, **place.columns)


def _measured(node: Node, point: Point | None = None, **columns: Any) -> Measured:
    """Return a metric with its columns: those of `point`, or null, replaced by `columns`."""
    place: dict[str, Any] = point._asdict() if point else dict.fromkeys(Point._fields)
    return {**place, "metric": node.stage, **columns}, node
