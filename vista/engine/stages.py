"""All stages: those that make data and models, the metrics, and the report."""

from __future__ import annotations

from vista.config.metric import declared_metrics
from vista.stages import MAKERS


def stages() -> dict[str, str]:
    """Return each stage with what it makes, in the order of the workflow."""
    metrics = {metric.name: metric.makes for metric in declared_metrics().values()}
    return {**MAKERS, **metrics, "report": "the long table and the figures"}
