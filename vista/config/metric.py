"""Metrics declare themselves: each is a folder of `vista/metrics` whose `METRIC` says what it is.

The config, the plan, the rules, the command line and the report loop over the declarations, so a
new metric is a new folder and no line elsewhere. A metric of another package is an entry point, and
its declaration is imported where a config or an artifact names it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, create_model

from vista.config.base import Settings
from vista.config.data import Split
from vista.config.judge_base import JudgeSettings
from vista.config.plugins import (
    METRICS,
    PluginSettings,
    find_plugin,
    plugin_names,
    refuse_clash,
)
from vista.config.registry import PACKAGE

# What a metric is measured for: the run, an encoder, a layer of a language model that
# has an SAE, a point of the sweep, a vision SAE of an encoder, the dictionaries of one model, the
# text-to-image pipeline, a method of interventions at a point, a vision SAE at each point of its
# encoder.
Per = Literal[
    "run",
    "encoder",
    "layer",
    "point",
    "vision_sae",
    "dictionaries",
    "pipeline",
    "method",
    "vision_sae_point",
]
# The part of a config that a metric's settings stand in.
Section = Literal["metrics", "probing"]
# What the metrics of each section can be measured for.
_PLACES: Mapping[Section | None, tuple[Per, ...]] = {
    "metrics": ("run", "encoder", "layer", "point", "dictionaries"),
    "probing": ("point", "vision_sae", "vision_sae_point"),
}


class MetricSettings(Settings):
    """Settings of a metric, and what the plan reads from them.

    Attributes:
        placing: Fields that choose where the metric is measured; they are no part of a job's order.
    """

    placing: ClassVar[frozenset[str]] = frozenset()

    @property
    def judge_roles(self) -> Mapping[str, str | JudgeSettings]:
        """The judges that the metric uses, by the role of the judge's model."""
        judge = getattr(self, "judge", None)
        return {} if judge is None else {"judge": judge}

    @property
    def reads_images(self) -> bool:
        """Whether the image files are read, for metrics that can read them."""
        return True

    @property
    def files(self) -> tuple[str, ...]:
        """The user's files that are read."""
        return ()

    def splits_read(self) -> Iterator[tuple[str, Split]]:
        """Yield which field names which split of the run's data: what is fitted on, then what is
        measured on."""
        for field in ("fit_split", "split"):
            if split := getattr(self, field, None):
                yield field, split

    def sets_read(self) -> Iterator[tuple[str, str]]:
        """Yield which field names which further set of images, in the order of the inputs."""
        yield from ()


class ChosenEncoders(MetricSettings):
    """Settings of a metric of points that may be measured at those of some encoders alone."""

    placing: ClassVar[frozenset[str]] = frozenset({"encoders"})

    encoders: tuple[str, ...] | None = Field(
        None, description="names; null: those of all points of the sweep"
    )


@dataclass(frozen=True)
class Metric:
    """A metric's declaration.

    Attributes:
        name: Name of the folder, the stage, the rule and the key in a config.
        makes: What it measures, as the command line and the schema show it.
        settings: Model of its settings.
        per: What it is measured for.
        reads: Roles of all inputs that it may have; a place that lacks one leaves it out.
        section: Part of a config that its settings stand in; None where another part holds them.
        position: Place in lists; metrics of one position are sorted by name.
        patches: Whether it needs an encoder that reads patches.
        gpu: Whether its job may need a GPU.
        groups: Whether it measures groups of the run's images beside all of them: its figures whose
            column `set` is filled are of the group of that name.
        message: What the workflow prints when its job starts, before the name of the artifact.
    """

    name: str
    makes: str
    settings: type[Settings]
    per: Per
    reads: tuple[str, ...]
    section: Section | None = "metrics"
    position: int = 1000
    patches: bool = False
    gpu: bool = False
    groups: bool = False
    message: str = ""

    def module(self, part: str) -> str:
        """Return the dotted name of the module that holds a part of the metric (`stage`, `plan`,
        `report`): a file of its folder, else the folder's `__init__`."""
        folder = PACKAGE / "metrics" / self.name
        if not folder.is_dir() and (plugin := find_plugin(METRICS, self.name)) is not None:
            return plugin.part(part)
        name = f"vista.metrics.{self.name}"
        return f"{name}.{part}" if (folder / f"{part}.py").is_file() else name

    def part(self, part: str, name: str) -> Any:
        """Return the definition `name` of a part of the metric, or None where there is none.

        Raises UserError if the metric is a plug-in whose part cannot be imported.
        """
        if self.name not in declared_metrics():
            plugin = find_plugin(METRICS, self.name)
            assert plugin is not None, self.name
            return getattr(plugin.load(self.module(part)), name, None)
        return getattr(importlib.import_module(self.module(part)), name, None)


@functools.cache
def declared_metrics() -> Mapping[str, Metric]:
    """Return the declarations of this package's metrics by name, ordered by position."""
    folders = sorted(path.parent.name for path in (PACKAGE / "metrics").glob("*/__init__.py"))
    metrics: list[Metric] = [
        importlib.import_module(f"vista.metrics.{folder}").METRIC for folder in folders
    ]
    return {metric.name: metric for metric in sorted(metrics, key=_position)}


@functools.cache
def plugin_metric(name: str) -> Metric:
    """Return the declaration of a metric that is a plug-in.

    Raises:
        UserError: It cannot be imported, or declares no metric of this name.
    """
    plugin = find_plugin(METRICS, name)
    assert plugin is not None, name
    metric = plugin.definition("METRIC")
    if not isinstance(metric, Metric):
        raise plugin.refusal("has a METRIC that is no vista.config.metric.Metric")
    if metric.name != name:
        raise plugin.refusal(f"has a METRIC whose name is {metric.name!r}")
    if not issubclass(metric.settings, MetricSettings):
        raise plugin.refusal("has settings that are no vista.config.metric.MetricSettings")
    if metric.per not in _PLACES.get(metric.section, ()):
        raise plugin.refusal(f"is measured per {metric.per!r}, not in section {metric.section!r}")
    return metric


def plugin_metric_names() -> list[str]:
    """Return the names of the metrics that are plug-ins, sorted; none is imported.

    Names of this package's stages are left out.
    """
    return [
        name
        for name in plugin_names(METRICS)
        if name not in declared_metrics() and not (PACKAGE / "stages" / f"{name}.py").is_file()
    ]


def metrics_with(stages: Iterable[str]) -> Mapping[str, Metric]:
    """Return the declarations of this package's metrics, and of those plug-ins among `stages`."""
    metrics, further = declared_metrics(), set(stages) - set(declared_metrics())
    if not further:
        return metrics
    plugins = [plugin_metric(name) for name in plugin_metric_names() if name in further]
    return {metric.name: metric for metric in sorted([*metrics.values(), *plugins], key=_position)}


def _position(metric: Metric) -> tuple[int, str]:
    return metric.position, metric.name


class ChosenMetrics(Settings):
    """The metrics of one section of a config; a metric that is null is not computed."""

    def chosen(self) -> Iterator[tuple[Metric, MetricSettings]]:
        """Yield the metrics that are computed, each with its settings.

        Raises UserError if a plug-in has the name of one of this package.
        """
        named = [name for name, value in self if isinstance(value, MetricSettings)]
        for metric in metrics_with(named).values():
            settings = getattr(self, metric.name, None)
            if isinstance(settings, metric.settings) and isinstance(settings, MetricSettings):
                if metric.name in declared_metrics():
                    refuse_clash(METRICS, metric.name)
                yield metric, settings


Model = TypeVar("Model", bound=ChosenMetrics)


def with_metrics(base: type[Model], section: Section) -> type[Model]:
    """Return a model with a field for each metric of a section beside the fields of `base`.

    A plug-in has a field in both sections, since only its declaration says which is its own.
    """
    fields: dict[str, Any] = {
        metric.name: (metric.settings | None, Field(None, description=metric.makes))
        for metric in declared_metrics().values()
        if metric.section == section
    }
    for name in plugin_metric_names():
        if not hasattr(base, name) and name not in base.model_fields:
            validate, models = _plugin_field(name, section)
            fields[name] = (Annotated[Any, PluginSettings(validate, models)] | None, None)
    return create_model(
        base.__name__, __base__=base, __doc__=base.__doc__, __module__=base.__module__, **fields
    )


def _plugin_field(
    name: str, section: Section
) -> tuple[Callable[[Any], MetricSettings], Callable[[], list[type[MetricSettings]]]]:
    """Return what validates a plug-in's settings in a section, and what returns their model."""

    def validate(value: Any) -> MetricSettings:
        metric = plugin_metric(name)
        if metric.section != section:
            raise ValueError(f"it belongs under `{metric.section}`: move it there")
        return _model(metric).model_validate(value)

    def models() -> list[type[MetricSettings]]:
        metric = plugin_metric(name)
        return [_model(metric)] if metric.section == section else []

    return validate, models


def _model(metric: Metric) -> type[MetricSettings]:
    assert issubclass(metric.settings, MetricSettings), metric.name
    return metric.settings
