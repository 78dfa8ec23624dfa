"""A projector that lowers the SAE error by making all visual tokens alike is called collapsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from vista.config.report import CollapseSettings, ReportSettings
from vista.metrics.figure import Figure
from vista.metrics.reconstruction.measure import (
    ReconstructionResult,
    reconstruct_layer,
    token_sums,
)
from vista.metrics.reconstruction.report import reconstruction_section
from vista.report.collapse import collapses
from vista.report.compare import pairs
from vista.report.shown import Measured
from vista.report.summary import headline, summary_markdown
from vista.report.table import LongTable

IMAGES, TOKENS, WIDTH, LATENTS = 40, 9, 16, 2048
SHAPE = (IMAGES, TOKENS, WIDTH)


def measured(
    x_btd: NDArray[np.float64], rebuilt_btd: NDArray[np.float64], fired: int, kind: str
) -> list[Figure]:
    """Figures of reconstruction of a residual stream, `fired` latents of the dictionary used."""
    valid = np.ones(x_btd.shape[:2], dtype=bool)
    sums = token_sums(
        ((rebuilt_btd - x_btd) ** 2).mean(axis=2),
        (x_btd**2).mean(axis=2),
        np.full(valid.shape, 32),
        valid,
        (x_btd.sum(axis=1) ** 2).mean(axis=1),
    )
    mean_square = float((x_btd.mean(axis=(0, 1)) ** 2).mean())
    fired_s = np.arange(LATENTS) < fired
    part = reconstruct_layer(
        sums, mean_square, fired_s, layer=3, token_kind=kind, seed=0, resamples=20, level=0.95
    )
    return ReconstructionResult(parts=[part]).figures()


def point(weight: float, figures: Sequence[Figure], cross_entropy: float) -> list[Figure]:
    figures = [replace(figure, stage="reconstruction") for figure in figures]
    loss = Figure(
        "caption_cross_entropy",
        value=cross_entropy,
        chance=2 * cross_entropy,
        n=IMAGES,
        stage="caption",
    )
    columns = {"encoder": "e", "llm": "m", "sae_weight": weight, "seed": 0}
    return [replace(figure, **columns) for figure in [*figures, loss]]  # type: ignore[arg-type]


def run_of(spread: float, error: float, fired: int, cross_entropy: float = 2.0) -> LongTable:
    """Return a run whose projector with the term spreads its tokens so far, and errs so much."""
    rng = np.random.default_rng(0)
    text = rng.normal(size=SHAPE)
    control = measured(text, text + 0.2 * rng.normal(size=SHAPE), 900, "control")
    without = rng.normal(size=SHAPE) + rng.normal(size=(IMAGES, 1, WIDTH))
    before = measured(without, without + 1.1 * rng.normal(size=SHAPE), 500, "image")
    noise = rng.normal(size=SHAPE) + rng.normal(size=(IMAGES, 1, WIDTH))
    with_term = 3.0 + spread * noise
    after = measured(with_term, with_term + error * rng.normal(size=SHAPE), fired, "image")
    return LongTable(
        [*point(0.0, [*control, *before], 2.0), *point(1.0, [*control, *after], cross_entropy)]
    )


def good_run() -> LongTable:
    return run_of(spread=1.0, error=0.3, fired=400)


def collapsed_run() -> LongTable:
    return run_of(spread=0.11, error=0.24, fired=32)


def texts(table: LongTable) -> tuple[str, str]:
    settings = ReportSettings()
    summary = summary_markdown(Measured(table, settings), name="x", figures=[], notes=[])
    return summary, headline(table, settings)


def test_a_collapse_is_no_success_though_its_raw_error_falls() -> None:
    table = collapsed_run()
    (pair,) = pairs(table)
    assert pair.mse is not None
    assert pair.mse[0] / pair.mse[1] > 20  # what used to count as reaching the aim
    assert pair.fvu is not None
    assert pair.fvu[1] > 2
    summary, terminal = texts(table)
    assert summary.splitlines()[2] == "## WARNING: collapse"
    assert "| share of latents that ever fire (32 of 2048) | 0.016 | 0.020 |" in summary
    assert "All of them without a collapse: 0 of 1; collapsed: 1." in summary
    assert "WARNING: collapse" in terminal
    row = next(line for line in terminal.splitlines() if line.startswith("e ") and "%" in line)
    assert row.split()[-1] == "collapse"


def test_a_good_run_reaches_its_aims_without_a_warning() -> None:
    table = good_run()
    assert collapses(table, CollapseSettings()) == []
    summary, terminal = texts(table)
    assert "collapse" not in terminal.lower()
    assert "WARNING" not in summary
    assert "All of them without a collapse: 1 of 1; collapsed: 0." in summary


@pytest.mark.parametrize(
    ("table", "what", "value"),
    [
        (run_of(spread=0.5, error=1.0, fired=400), "FVU", 2.0),
        (run_of(spread=1.0, error=0.3, fired=40), "share of latents that ever fire", 40 / 2048),
        (run_of(spread=0.02, error=0.001, fired=400), "variance between images", 4e-4),
    ],
)
def test_each_bound_finds_its_collapse(table: LongTable, what: str, value: float) -> None:
    (collapse,) = collapses(table, CollapseSettings())
    assert (collapse.encoder, collapse.llm, collapse.sae_weight, collapse.seed) == ("e", "m", 1, 0)
    (broken,) = collapse.broken
    assert broken.layer == 3
    assert broken.what.startswith(what)
    assert broken.value == pytest.approx(value, rel=0.15)


def test_bounds_can_be_moved_and_removed() -> None:
    table = collapsed_run()
    none = CollapseSettings(max_fvu=None, min_fired_share=None, min_image_variance=None)
    assert collapses(table, none) == []
    strict = CollapseSettings(max_fvu=None, min_fired_share=0.5, min_image_variance=None)
    # At every weight: too few latents fire without the term as well.
    assert [one.sae_weight for one in collapses(good_run(), strict)] == [0.0, 1.0]


def test_a_high_fvu_without_the_term_is_no_collapse() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=SHAPE)
    figures = measured(x, x + 2 * rng.normal(size=SHAPE), 500, "image")
    assert collapses(LongTable(point(0.0, figures, 2.0)), CollapseSettings()) == []
    assert len(collapses(LongTable(point(0.1, figures, 2.0)), CollapseSettings())) == 1


def test_other_aims_are_judged_beside_fvu() -> None:
    worse = run_of(spread=1.0, error=0.3, fired=400, cross_entropy=2.2)
    assert "All of them without a collapse: 0 of 1; collapsed: 0." in texts(worse)[0]
    dense = LongTable(
        replace(f, value=200.0)
        if (f.metric, f.token_kind, f.sae_weight) == ("l0", "image", 1.0)
        else f
        for f in good_run().figures
    )
    assert "L0 within a factor of 3 of that of text (0 of 1)" in texts(dense)[0]


def test_the_table_of_layers_has_what_shows_a_collapse() -> None:
    section = reconstruction_section(collapsed_run())
    without, with_term = section.grids[1].rows
    assert float(without[4]) / float(with_term[4]) > 50  # variance of visual tokens
    assert float(without[5]) / float(with_term[5]) > 50  # its part between images
    assert (with_term[7], with_term[8]) == ("0.016", "0.439")
