"""Sections and figures of monosemanticity and ontology: each SAE with its own controls."""

from __future__ import annotations

from typing import Any

import pytest

from vista.report.monosemanticity_figure import monosemanticity_figure
from vista.report.monosemanticity_section import monosemanticity_section
from vista.report.ontology_figure import ontology_figure
from vista.report.ontology_section import ontology_section
from vista.report.table import Figure, LongTable

PARTS = {
    "monosemanticity": (monosemanticity_section, monosemanticity_figure, 1, 3),
    "ontology": (ontology_section, ontology_figure, 3, 2),
}
METRICS = {
    "monosemanticity": ("monosemanticity",),
    "ontology": ("ontological_coverage", "synset_height", "named_latents"),
}


def table(stage: str) -> LongTable:
    figures = []
    dictionaries = ("sae", "neurons", "random")[: PARTS[stage][3]]
    for e, encoder in enumerate(("clip", "dinov2")):
        for s, sae in enumerate(("relu", "topk")):
            for m, metric in enumerate(METRICS[stage]):
                for d, name in enumerate(dictionaries):
                    value = 0.5 - 0.1 * d + 0.05 * s + 0.01 * e + m
                    level = (value, value - 0.02, value + 0.03, 0.125)
                    row = (f"{metric}:{name}", encoder, None, None, None, None, "", *level, 40 + d)
                    figures.append(Figure(*row, stage=stage, method=sae))
    return LongTable(figures)


@pytest.mark.parametrize("stage", PARTS)
def test_rows_and_dots(stage: str) -> None:
    section, figure, panels, dictionaries = PARTS[stage]
    rows: Any = section(table(stage)).grids[0].rows
    assert len(rows) == 4 * dictionaries
    assert rows[1][:4] == ["clip", "relu", "neurons", "0.400"]
    assert rows[-1][:2] == ["dinov2", "topk"] and rows[0][5:7] == ["0.125", "40"]
    drawn = figure(table(stage))
    assert len(drawn.axes) == 2 * panels
    heights = [
        line.get_ydata()[0] for line in drawn.axes[0].get_lines() if line.get_ydata()[0] == 0.125
    ]
    assert len(heights) == 2 * dictionaries  # a tick for each SAE and control
    assert section(LongTable([])).grids[0].rows == [] and figure(LongTable([])) is None
