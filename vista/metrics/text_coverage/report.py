"""Section of the report: which objects the text of the SAEs hardly names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vista.metrics.results import read_result
from vista.metrics.text_coverage.measure import TextCoverage
from vista.report import grid
from vista.report.grid import Grid, Section
from vista.report.shown import Measured, Shown


def coverage_section(result: Mapping[str, Any]) -> Section:
    """Return the names that are rare in the text, with their occurrences."""
    coverage = TextCoverage.model_validate(result)
    rows = [[grid.name(name), str(n)] for name, n in coverage.rare.items()]
    return Section(
        "Objects that the text of the SAEs hardly names",
        f"{len(rows)} of {coverage.covered.n} object names occur fewer than "
        f"{coverage.min_occurrences} times in the {coverage.documents:,} documents "
        f"({coverage.words:,} words) that SAEs and labels come from. A latent of their own can "
        "hardly be there, so that their images count as misses whatever the projector does.",
        [Grid(("object", "occurrences"), rows)],
    )


def _sections(measured: Measured) -> Sequence[Section]:
    return [coverage_section(read_result(artifact)) for _, artifact in measured.of("text_coverage")]


SHOWN = Shown(sections=_sections)
