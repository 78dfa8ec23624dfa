"""Figures: what they show, that they are the same bytes each time, and odd runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.long_table import figures_of
from vista.metrics.figure import Figure
from vista.metrics.localization.report import localization_per_encoder
from vista.metrics.matching_rate.report import matching_per_layer
from vista.metrics.reconstruction.report import reconstruction_per_layer
from vista.report import style
from vista.report.heatmaps import HeatMapRow, _mask_edges, heat_map_figure, spread
from vista.report.table import LongTable
from vista.report.training_figure import Curve, _joined, loss_curves

MakeRow = Callable[..., dict[str, Any]]


def texts(figure: object) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]  # type: ignore[attr-defined]


def test_matching_shows_levels_n_and_bars(table: LongTable) -> None:
    figure = matching_per_layer(table, 3)
    shown = " ".join(texts(figure))
    assert "n = 400 images" in shown
    assert "error bars: intervals over" in shown
    assert "shuffled, λ = 1" in shown
    assert len(figure.axes) == 6
    style.setup().close(figure)


def test_every_figure_says_what_its_bars_are(table: LongTable, curves: list[Curve]) -> None:
    made = [
        matching_per_layer(table, 3),
        reconstruction_per_layer(table, "fvu"),
        reconstruction_per_layer(table, "l0"),
        localization_per_encoder(table),
        loss_curves(curves),
    ]
    for figure in made:
        assert "rror bars" in " ".join(texts(figure)).replace("\n", " ")
        style.setup().close(figure)


def test_same_run_same_bytes(table: LongTable, tmp_path: Path) -> None:
    for name in ("one", "two"):
        style.save(localization_per_encoder(table), tmp_path, name, 80)
    for kind in ("png", "svg"):
        one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two
    svg = (tmp_path / "one.svg").read_text()
    assert "<dc:date>" not in svg
    assert b"Software" not in (tmp_path / "one.png").read_bytes()


def test_nothing_measured_no_figure() -> None:
    empty = LongTable([])
    assert matching_per_layer(empty, 3) is None
    assert reconstruction_per_layer(empty, "fvu") is None
    assert localization_per_encoder(empty) is None
    assert loss_curves([]) is None
    assert heat_map_figure([], [0.0, 1.0], "", "") is None


def test_a_run_with_holes_is_drawn(made_up: list[Figure]) -> None:
    kept = [f for f in made_up if not (f.encoder == "clip" and f.llm == "llama") and f.layer != 1]
    table = LongTable(kept)
    for figure in (
        matching_per_layer(table, 3),
        localization_per_encoder(table),
    ):
        assert "not measured" in texts(figure) or figure.axes
        style.setup().close(figure)


def test_undefined_figures_leave_gaps_not_zeros(make_row: MakeRow) -> None:
    point = {"encoder": "e", "llm": "m", "sae_weight": 0.0, "seed": 0, "metric": "matching_rate"}
    rows = [
        make_row("matching_rate", 0.5, 0, "image", k=3),
        make_row("matching_rate", None, 1, "image", n=0, k=3),
    ]
    figure = matching_per_layer(LongTable(figures_of(point, rows)), 3)
    heights = [y for line in figure.axes[0].get_lines() for y in line.get_ydata()]
    assert 0.0 not in heights
    style.setup().close(figure)


def test_many_weights_have_colours_of_their_own() -> None:
    weights: Sequence[float] = (0.0, 0.1, 0.3, 1.0, 3.0)
    assert len({style.series_style(weights, w)["color"] for w in weights}) == 5
    assert style.series_style(weights, 0.0) == style.series_style((0.0, 1.0), 0.0)


def test_examples_are_spread_over_classes_whatever_the_results() -> None:
    candidates = [(i, f"class {i % 10}") for i in range(100)]
    chosen = spread(candidates, 4)
    assert chosen == [(0, "class 0"), (2, "class 2"), (5, "class 5"), (7, "class 7")]
    assert len(spread(candidates, 50)) == 10


def test_outline_runs_around_the_mask() -> None:
    mask = np.zeros((5, 5), dtype=bool)
    mask[1:3, 2:4] = True
    edges = 0
    for xs, ys in _mask_edges(mask):
        kept = ~np.isnan(xs)
        assert set(xs[kept].tolist()) <= {1.5, 2.5, 3.5}
        assert set(ys[kept].tolist()) <= {0.5, 1.5, 2.5}
        edges += int(np.isnan(xs).sum())
    assert edges == 8


def test_silent_latents_are_said_to_be_silent() -> None:
    maps = [np.zeros((2, 2)), np.array([[0.0, 2.0], [0.0, 0.0]])]
    made = HeatMapRow(
        np.zeros((4, 4, 3), np.uint8), None, [(0, 0, 2, 2)], "cat", "cat", 7, (0, 4, 4, 0), maps
    )
    figure = heat_map_figure([made], [0.0, 1.0], "title", "note")
    shown = texts(figure)
    assert "“cat”\nlatent 7, silent" in shown
    assert "“cat”\nlatent 7, max 2" in shown
    style.setup().close(figure)


def test_curves_may_hold_nan() -> None:
    curve = Curve(
        "e",
        "m",
        0.0,
        0,
        {"step": [0, 1], "cross_entropy": [1.0, 0.5], "sae_error": [float("nan")] * 2},
    )
    figure = loss_curves([curve])
    assert figure is not None
    style.setup().close(figure)


def test_what_was_measured_now_and_then_is_drawn_below_the_losses() -> None:
    """Of two stages of training the second measured, at two of its four steps."""
    nan = float("nan")
    stages: tuple[dict[str, list[float]], ...] = (
        {"step": [0, 1], "cross_entropy": [3.0, 2.5], "sae_error": [nan] * 2},
        {
            "step": [0, 1, 2, 3],
            "cross_entropy": [2.0, 1.5, 1.0, 0.5],
            "sae_error": [0.4, nan, 0.2, nan],
            "fvu": [0.8, nan, 0.6, nan],
        },
    )
    (curve,) = _joined(Curve("e", "m", 0.0, 0, columns) for columns in stages)
    assert [len(values) for values in curve.columns.values()] == [6] * 4
    figure = loss_curves([curve])
    assert figure is not None
    labels = [axis.get_ylabel().partition("\n")[2] for axis in figure.axes]
    assert labels == ["cross-entropy", "SAE error", "FVU"]
    (line,) = (line for line in figure.axes[2].get_lines() if len(line.get_xdata()) == 2)
    assert list(line.get_xdata()) == [2, 4]
    assert list(line.get_ydata()) == [0.8, 0.6]
    style.setup().close(figure)


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_any_number_of_examples_fits(count: int) -> None:
    row_ = HeatMapRow(
        np.zeros((4, 4, 3), np.uint8), None, [], "c", "l", 0, (0, 4, 4, 0), [np.eye(2)]
    )
    figure = heat_map_figure([row_] * count, [0.0], "title", "note")
    assert sum(text == "c" for text in texts(figure)) == count
    style.setup().close(figure)
