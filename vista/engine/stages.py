"""All stages: those that make data and models, the metrics, and the report."""

from __future__ import annotations

from vista.engine.code import PACKAGE
from vista.stages import MAKERS

REPORT = {"report": "the long table and the figures"}


def stages() -> dict[str, str]:
    """Return each stage with what it makes, in the order of the workflow."""
    from vista.config.metric import declared_metrics

    metrics = {metric.name: metric.makes for metric in declared_metrics().values()}
    return {**MAKERS, **metrics, **REPORT}


def is_stage(name: str) -> bool:
    """Whether a stage has this name; reads no declaration of a metric, which takes a while."""
    folder = PACKAGE / "metrics" / name / "__init__.py"
    return name in MAKERS or name in REPORT or folder.is_file()
