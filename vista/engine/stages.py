"""All stages: those that make data and models, the metrics with plug-ins, and the report."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from vista.config.plugins import METRICS, Plugin, find_plugin
from vista.engine.code import PACKAGE, ROOT, stage_module
from vista.engine.job import Job, Stage
from vista.stages import MAKERS

REPORT = {"report": "the long table and the figures"}


def stages() -> dict[str, str]:
    """Return each stage with what it makes, in the order of the workflow."""
    from vista.config.metric import declared_metrics, plugin_metric_names

    metrics = {metric.name: metric.makes for metric in declared_metrics().values()}
    # What a plug-in says of itself is not read here: a broken one must not break `vista --help`.
    plugins = {name: f"metric of {_plugin(name).package}" for name in plugin_metric_names()}
    return {**MAKERS, **metrics, **plugins, **REPORT}


def is_stage(name: str) -> bool:
    """Whether a stage has this name; reads no declaration of a metric, which takes a while."""
    folder = PACKAGE / "metrics" / name / "__init__.py"
    if name in MAKERS or name in REPORT or folder.is_file():
        return True
    return find_plugin(METRICS, name) is not None


def load_stage(name: str) -> Callable[[Job], None]:
    """Return a stage's `run`. Raises UserError if it is that of a plug-in without one."""
    module = stage_module(name)
    if module.partition(".")[0] == ROOT:
        run: Callable[[Job], None] = importlib.import_module(module).run
        return run
    plugin = _plugin(name)
    of_plugin = getattr(plugin.load(module), "run", None)
    if not isinstance(of_plugin, Stage):
        raise plugin.refusal(f"has no `run` with @stage of vista.engine.job in {module}")
    return of_plugin


def _plugin(name: str) -> Plugin:
    plugin = find_plugin(METRICS, name)
    assert plugin is not None, name
    return plugin
