"""What the report shows of this metric."""

from __future__ import annotations

from vista.report.metric_sections import caption_section
from vista.report.shown import Shown

SHOWN = Shown(
    sections=lambda measured: [caption_section(measured.table)],
)
