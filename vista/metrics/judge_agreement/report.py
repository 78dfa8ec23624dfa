"""What the report shows of this metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report.metric_sections import judge_section
from vista.report.shown import MetricPlace, Shown


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    named = ", ".join(f"{name}: `{full}`" for name, full in sorted(result["judges"].items()))
    return f"Judges that were measured: {named}."


SHOWN = Shown(
    sections=lambda measured: [judge_section(measured.table)],
    note=_note,
)
