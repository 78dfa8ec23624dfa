"""Sections and figures of vision SAEs, monosemanticity and ontology: each SAE with its own
controls, block and size."""

from __future__ import annotations

from typing import Any

import pytest

from vista.metrics.figure import Figure
from vista.metrics.monosemanticity.report import monosemanticity_figure, monosemanticity_section
from vista.metrics.ontology.report import ontology_figure, ontology_section
from vista.report.table import LongTable
from vista.report.vision_sae_section import vision_sae_section

PARTS = {
    "monosemanticity": (monosemanticity_section, monosemanticity_figure, 1, 4),
    "ontology": (ontology_section, ontology_figure, 4, 3),
}
METRICS = {
    "monosemanticity": ("monosemanticity",),
    "ontology": ("ontological_coverage", "class_coverage", "synset_height", "named_latents"),
}
# The alphabet's order is not that of the sizes; combined features are of no block.
EXPANSIONS = {"relu": 32.0, "topk": 16.0}
BLOCKS = {"clip": None, "dinov2": 2}


def table(stage: str) -> LongTable:
    figures = []
    dictionaries = ("sae", "neurons", "random", "random_matched")[: PARTS[stage][3]]
    for e, encoder in enumerate(("clip", "dinov2")):
        for s, sae in enumerate(("relu", "topk")):
            point: dict[str, Any] = {"encoder": encoder, "method": sae, "layer": BLOCKS[encoder]}
            for m, metric in enumerate(METRICS[stage]):
                for d, name in enumerate(dictionaries):
                    value = 0.5 - 0.1 * d + 0.05 * s + 0.01 * e + m
                    figures.append(
                        Figure(
                            metric,
                            of=name,
                            value=value,
                            ci_low=0.0,
                            ci_high=value + 0.03,
                            chance=0.125,
                            n=40 + d,
                            stage=stage,
                            **point,
                        )
                    )
            gate = {"explained_variance": 0.9, "fvu": 0.1, "l0": 8.0, "dead_share": 0.25}
            for metric, value in {**gate, "expansion": EXPANSIONS[sae]}.items():
                n = 1536 if metric == "dead_share" else 300
                name = f"vision_sae_{metric}"
                figures.append(Figure(name, value=value, n=n, stage="check_vision_sae", **point))
    return LongTable(figures)


@pytest.mark.parametrize("stage", PARTS)
def test_rows_and_dots(stage: str) -> None:
    section, figure, panels, dictionaries = PARTS[stage]
    rows: Any = section(table(stage)).grids[0].rows
    assert len(rows) == 4 * dictionaries
    assert rows[1][:6] == ["clip", "–", "relu", "32×", "neurons", "0.400"]
    assert rows[-1][:4] == ["dinov2", "2", "topk", "16×"] and rows[0][7:9] == ["0.125", "40"]
    drawn = figure(table(stage))
    assert len(drawn.axes) == 2 * panels
    assert [axis.get_title("left") for axis in drawn.axes[:2]] == ["clip", "dinov2, block 2"]
    ticks = [label.get_text() for label in drawn.axes[-1].get_xticklabels()]
    assert ticks == ["topk\n16×", "relu\n32×"]
    heights = [list(line.get_ydata()) for line in drawn.axes[0].get_lines()]
    # A tick for each SAE and control.
    assert [at for at in heights if at[0] == 0.125] == [[0.125] * 2] * dictionaries
    # An interval that begins at 0 is drawn down to it.
    low = drawn.axes[0].containers[0].lines[2][0].get_segments()[0][0, 1]
    assert low == pytest.approx(0)
    assert section(LongTable([])).grids[0].rows == [] and figure(LongTable([])) is None


def test_the_gate_of_vision_saes() -> None:
    rows = vision_sae_section(table("ontology")).grids[0].rows
    gate = ["0.900", "0.100", "8.000", "0.250", "300"]
    assert rows[0] == ["clip", "–", "relu", "1536", "32×", *gate]
    assert [row[:3] for row in rows[2:]] == [["dinov2", "2", "relu"], ["dinov2", "2", "topk"]]
