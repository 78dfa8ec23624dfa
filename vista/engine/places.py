"""Where metrics are measured, and the artifacts of those that declare themselves.

A place is what a metric is measured for: an encoder, a point of the sweep, a vision SAE. It holds
all inputs that a metric may read there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from vista.config.encoders import reads_patches
from vista.config.judge_base import JudgeSettings
from vista.config.metric import ChosenEncoders, ChosenMetrics, Metric, MetricSettings, Per
from vista.config.probing import Probing
from vista.config.sae import SaeRecipe
from vista.config.sweep import Point
from vista.engine.control_nodes import ControlPoint
from vista.engine.node import Inputs, Node, dump, point_name, with_judges
from vista.engine.nodes import Builder
from vista.engine.vision_sae_nodes import vision_sae_nodes
from vista.errors import UserError


@dataclass(frozen=True)
class Place:
    """One place of a metric.

    Attributes:
        name: Readable name of the artifacts that are measured here.
        columns: Columns of the table that identify this place.
        inputs: All inputs that a metric may read here, by role.
        settings: Settings that belong to the place: those of the language model, for metrics that
            read `llm`; the device, for metrics that read a vision SAE; the names of dictionaries
            that are compared.
        files: The user's files that metrics which read `llm` read with it.
    """

    builder: Builder
    name: str
    columns: Mapping[str, Any]
    inputs: Inputs
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def encoder(self) -> str:
        """The name of the encoder that is measured."""
        return str(self.columns["encoder"])


@dataclass(frozen=True)
class Request:
    """What a metric asks for at a place: settings, inputs, judges by role, the user's files."""

    settings: Mapping[str, Any]
    inputs: Inputs
    judges: Mapping[str, str | JudgeSettings] = field(default_factory=dict)
    files: tuple[str, ...] = ()


def default_request(metric: Metric, settings: MetricSettings, place: Place) -> Request:
    """Return what a metric asks for by default: its settings and the inputs that it reads.

    The settings of a metric that reads the language model stand under its name, beside those of
    the model.
    """
    config = place.builder.config
    values = {name: value for name, value in dump(settings).items() if name not in settings.placing}
    splits = {name: config.split_of(metric, name, x) for name, x in settings.splits_read()}
    if "fit_split" in splits and splits["fit_split"] == splits["split"]:
        faithful = ", which paper_faithful evaluates on" if config.paper_faithful else ""
        raise UserError(
            f"{metric.section}.{metric.name}: fit_split and split are both "
            f"{splits['split']!r}{faithful}; choose another fit_split"
        )
    values |= splits
    if "llm" in metric.reads:
        values = {"llm": place.settings["llm"], metric.name: values}
    elif "sae" in metric.reads:
        values |= place.settings
    images = () if settings.reads_images else ("world", "fetched")
    inputs = {
        role: place.inputs[role]
        for role in metric.reads
        if role in place.inputs and role not in images
    }
    if "set_features" in metric.reads:
        sets = [name for _, name in settings.sets_read()]
        builder = place.builder
        inputs["set_features"] = tuple(builder.set_features(place.encoder, name) for name in sets)
        inputs["set_records"] = tuple(builder.sets[name].records for name in sets)
    files = (*settings.files, *(place.files if "llm" in metric.reads else ()))
    return Request(values, inputs, settings.judge_roles, files)


def metric_node(metric: Metric, settings: MetricSettings, place: Place) -> Node | None:
    """Return the artifact of a metric at a place; None where it is not measured there.

    A metric that asks for more than its default has a function `request(metric, settings, place)`
    in its part `plan`.
    """
    if metric.patches and not reads_patches(place.builder.config.encoders, place.encoder):
        return None
    if isinstance(settings, ChosenEncoders) and not _is_chosen(metric, settings, place):
        return None
    request = _request_of(metric)(metric, settings, place)
    if request is None:
        return None
    return with_judges(
        metric.name, place.name, request.settings, request.inputs, request.judges, request.files
    )


def _is_chosen(metric: Metric, settings: ChosenEncoders, place: Place) -> bool:
    """Whether a metric is measured at the encoder of a place.

    Raises UserError where the settings name an encoder that the sweep has no point of.
    """
    if settings.encoders is None:
        return True
    swept = {point.encoder for point in place.builder.config.points()}
    for name in settings.encoders:
        if name not in swept:
            raise UserError(
                f"metrics.{metric.name}.encoders names {name!r}, which no block of the sweep has; "
                f"choose from {', '.join(sorted(swept))}"
            )
    return place.encoder in settings.encoders


@functools.cache
def _request_of(metric: Metric) -> Callable[..., Request | None]:
    """Return the function that says what a metric asks for at a place."""
    request: Callable[..., Request | None] = metric.part("plan", "request") or default_request
    return request


class Places:
    """The places of one config; `projectors` and `latents` are those of each point."""

    def __init__(
        self,
        builder: Builder,
        projectors: Mapping[Point, Node],
        latents: Mapping[Point, Node],
        controls: Sequence[ControlPoint] = (),
    ) -> None:
        self.builder, self.projectors, self.latents = builder, projectors, latents
        self.controls = controls

    def measured(self, chosen: ChosenMetrics, kind: Per) -> Iterator[tuple[Place, Node]]:
        """Yield each metric of a kind with its place, place by place."""
        metrics = [(metric, settings) for metric, settings in chosen.chosen() if metric.per == kind]
        places = {
            "encoder": self._encoders,
            "layer": self._layers,
            "run": self._run,
            "point": self._points,
            "dictionaries": self._dictionaries,
        }
        for place in places[kind]() if metrics else ():
            for metric, settings in metrics:
                if (node := metric_node(metric, settings, place)) is not None:
                    yield place, node

    def of_controls(self, chosen: ChosenMetrics) -> Iterator[tuple[Place, Node]]:
        """Yield each metric of a point with the controls that it is measured at: all of them, or
        those that change visual tokens where it does not read their latents alone."""
        metrics = [
            (metric, settings) for metric, settings in chosen.chosen() if metric.per == "point"
        ]
        for control in self.controls:
            place = self._point(control.point, control.tokens, control.latents)
            for metric, settings in metrics:
                of_latents = "latents" in metric.reads and "projector" not in metric.reads
                if control.reach == "latents" and not of_latents:
                    continue
                if (node := metric_node(metric, settings, place)) is not None:
                    yield place, node

    def of_vision_saes(self, probing: Probing) -> Iterator[tuple[Place, Node]]:
        """Yield the metrics of each vision SAE, the check of the SAE first."""
        pairs = {
            metric.name: self._pairs(probing, settings)
            for metric, settings in probing.chosen()
            if metric.per == "vision_sae"
        }
        probed = self._pairs(probing, None)
        compared = self._compared() if self._compares() else {}
        for encoder, name in dict.fromkeys([*probed, *chain.from_iterable(pairs.values())]):
            place = self._vision_sae(encoder, name)
            nodes = [
                metric_node(metric, settings, place)
                for metric, settings in probing.chosen()
                if (encoder, name) in pairs.get(metric.name, ())
            ]
            measured = [node for node in nodes if node is not None]
            check = place.inputs["check"]
            assert isinstance(check, Node)
            is_read = measured or name in compared.get(encoder, ())
            for node in [check, *measured] if is_read else ():
                yield place, node

    def of_vision_saes_at_points(self, probing: Probing) -> Iterator[tuple[Place, Node]]:
        """Yield the metrics of vision SAEs at the points of their encoder that their settings name,
        all by default; controls are no points here."""
        for metric, settings in probing.chosen():
            if metric.per != "vision_sae_point":
                continue
            weights, seeds = (getattr(settings, key, None) for key in ("sae_weights", "seeds"))
            for encoder, name in self._pairs(probing, settings):
                for point, projector in self.projectors.items():
                    if (
                        point.encoder == encoder
                        and (weights is None or point.sae_weight in weights)
                        and (seeds is None or point.seed in seeds)
                    ):
                        place = self._vision_sae_at(point, projector, name)
                        if (node := metric_node(metric, settings, place)) is not None:
                            yield place, node

    def _pairs(self, probing: Probing, settings: MetricSettings | None) -> list[tuple[str, str]]:
        """Return the encoders that are probed, each with the vision SAEs that are: those that a
        metric's own settings name, else those of `probing`, else all."""
        config = self.builder.config
        encoders, saes = (
            getattr(settings, key, None) or getattr(probing, key) or getattr(config, key)
            for key in ("encoders", "vision_saes")
        )
        return [(encoder, name) for encoder in encoders for name in saes]

    def _compares(self) -> bool:
        """Whether a metric compares dictionaries."""
        chosen = self.builder.config.metrics.chosen()
        return any(metric.per == "dictionaries" for metric, _ in chosen)

    def _compared(self) -> dict[str, list[str]]:
        """Return the vision SAEs that are compared, by encoder: those that are probed, where an
        encoder has several."""
        probing = self.builder.config.probing
        saes: dict[str, list[str]] = {}
        for encoder, name in self._pairs(probing, None) if probing else ():
            saes.setdefault(encoder, []).append(name)
        return {encoder: names for encoder, names in saes.items() if len(names) > 1}

    def _dictionaries(self) -> Iterator[Place]:
        """Yield the text SAEs of one model and layer, of entries with an equal model; then the
        vision SAEs of each encoder. Raises UserError where there are no two to compare."""
        places = [*self._text_dictionaries(), *self._vision_dictionaries()]
        if not places:
            raise UserError(
                "dictionaries are compared in pairs, but no two `llms` have an equal `model` and "
                "a layer in common, and `probing` names no two `vision_saes`: add an entry with "
                "another seed or sparsity"
            )
        yield from places

    def _text_dictionaries(self) -> Iterator[Place]:
        builder = self.builder
        llms = builder.config.llms
        groups: dict[tuple[str, int], list[str]] = {}
        for llm, layer in builder.labels:
            groups.setdefault((builder.with_same_model(llm), layer), []).append(llm)
        for (first, layer), names in groups.items():
            if len(names) < 2:
                continue
            recipes = {name: llms[name].saes.train for name in names}
            inputs: Inputs = {
                "saes": tuple(builder.saes[name][layer] for name in names),
                "labels": tuple(builder.labels[name, layer] for name in names),
            }
            yield Place(builder, f"{first}-l{layer}", {}, inputs, _dictionaries(recipes))

    def _vision_dictionaries(self) -> Iterator[Place]:
        builder = self.builder
        for encoder, names in self._compared().items():
            nodes = [vision_sae_nodes(builder, encoder, name) for name in names]
            inputs: Inputs = {
                "saes": tuple(node.sae for node in nodes),
                "labels": tuple(node.labels for node in nodes),
                "features": builder.features[encoder],
            }
            recipes = {name: builder.config.vision_saes[name].recipe for name in names}
            yield Place(builder, encoder, {"encoder": encoder}, inputs, _dictionaries(recipes))

    def _encoders(self) -> Iterator[Place]:
        builder = self.builder
        for name in builder.config.encoders:
            inputs = {"features": builder.evaluated(name), **builder.data.inputs}
            yield Place(builder, name, {"encoder": name}, inputs)

    def _layers(self) -> Iterator[Place]:
        builder = self.builder
        for (llm, layer), labels in builder.labels.items():
            inputs = {"labels": labels, "sae": builder.saes[llm][layer], **builder.data.inputs}
            yield Place(builder, f"{llm}-l{layer}", {"llm": llm}, inputs)

    def _run(self) -> Iterator[Place]:
        builder = self.builder
        inputs: Inputs = {"labels": tuple(builder.labels.values()), **builder.data.inputs}
        yield Place(builder, builder.data.records.name, {}, inputs)

    def _points(self) -> Iterator[Place]:
        for point, projector in self.projectors.items():
            yield self._point(point, projector, self.latents[point])

    def _point(self, point: Point, projector: Node, latents: Node) -> Place:
        builder = self.builder
        settings, model = builder.read(point.llm)
        inputs: Inputs = {
            **builder.data.inputs,
            **model,
            "features": builder.evaluated(point.encoder),
            "projector": projector,
            "latents": latents,
            "labels": builder.labels_of(point.llm),
            **builder.gated(point.llm, tuple(builder.saes[point.llm])),
        }
        files = builder.template_files(point.llm)
        return Place(builder, point_name(point), point._asdict(), inputs, settings, files)

    def _vision_sae(self, encoder: str, name: str) -> Place:
        builder = self.builder
        return Place(
            builder,
            f"{encoder}-{name}",
            {"encoder": encoder, "method": name},
            {
                **builder.data.inputs,
                "features": builder.features[encoder],
                **vision_sae_nodes(builder, encoder, name)._asdict(),
            },
            {"sae": {"device": builder.config.vision_saes[name].device}},
        )

    def _vision_sae_at(self, point: Point, projector: Node, name: str) -> Place:
        sae = self._vision_sae(point.encoder, name)
        model = self.builder.encoders[point.encoder]
        return Place(
            self.builder,
            f"{point_name(point)}-{name}",
            {**point._asdict(), "method": name},
            {**sae.inputs, "projector": projector, **({"encoder": model} if model else {})},
            sae.settings,
        )


def _dictionaries(recipes: Mapping[str, SaeRecipe | None]) -> dict[str, Any]:
    """Return the settings of a place that say which dictionary each input is: its name, and how it
    is trained, where it is trained here."""
    return {
        "dictionaries": [
            {
                "name": name,
                "train": recipe and recipe.model_dump(mode="json", exclude={"device"}),
            }
            for name, recipe in recipes.items()
        ]
    }
