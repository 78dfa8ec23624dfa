"""The formula of each stage: `need` beside its `run`, or in the part `forecast` of a metric."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

from vista.config.metric import metrics_with
from vista.engine.code import stage_module
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node


def node_need(node: Node, shapes: Shapes) -> Need:
    """Return what the jobs of a node take; a stage without a formula makes small tables."""
    formula = _formula(node.stage)
    return Need() if formula is None else formula(node, shapes)


@functools.cache
def _formula(stage: str) -> Callable[[Node, Shapes], Need] | None:
    metric = metrics_with([stage]).get(stage)
    if metric is not None:
        formula: Callable[[Node, Shapes], Need] | None = metric.part("forecast", "need")
        return formula
    module = importlib.import_module(stage_module(stage))
    return getattr(module, "need", None)
