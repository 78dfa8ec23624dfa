"""Labels are text of unknown origin: nothing in them may act where they are shown."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from vista.report import style
from vista.report.escape import clean, html, markdown, mathtext
from vista.report.heatmaps import HeatMapRow, heat_map_figure

HOSTILE = [
    "a | b",
    "<script>alert(1)</script>",
    "[click](https://example.org)",
    "![x](https://example.org/x.png)",
    "**bold** _em_ `code` ~~no~~",
    "$\\frac{1}{0}$",
    "$",
    "\\$ \\",
    "line\nbreak\r\tand\x00null\x1b[31m\x7f",
    "\u202eright to left",
    "\ud800 lone surrogate",
    "&lt; &amp;",
    "www.example.org and a@example.org",
    "x" * 500,
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_cell_stays_one_plain_cell(text: str) -> None:
    shown = markdown(text)
    assert "\n" not in shown
    assert "|" not in shown
    assert "<" not in shown
    assert ">" not in shown
    assert "$" not in shown
    assert "://" not in shown
    assert "www." not in shown
    for mark in "`*_[]~":
        assert shown.count(mark) == shown.count("\\" + mark)
    shown.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_html_keeps_nothing_that_opens_a_tag_or_ends_an_attribute(text: str) -> None:
    shown = html(text)
    assert not set('<>"') & set(shown)
    assert "'" not in shown
    shown.encode("utf-8")


def test_clean_is_one_line_of_limited_length() -> None:
    assert clean(" a\n\tb\x00 c ") == "a b c"
    assert len(clean("x" * 500, 20)) == 20
    assert clean("ünïcödé 猫") == "ünïcödé 猫"


@pytest.mark.parametrize("text", HOSTILE)
def test_figures_draw_any_label(text: str, tmp_path: Path) -> None:
    row = HeatMapRow(
        image=np.zeros((6, 6, 3), dtype=np.uint8),
        mask=None,
        boxes=[(1, 1, 3, 3)],
        category=text,
        label=text,
        latent=3,
        extent=(-0.5, 5.5, 5.5, -0.5),
        maps=[np.eye(2), np.zeros((2, 2))],
    )
    figure = heat_map_figure([row], [0.0, 1.0], text, text)
    _, svg = style.save(figure, tmp_path, "x", 50)
    ElementTree.parse(tmp_path / svg)


def test_dollars_are_drawn_not_read() -> None:
    from matplotlib import cbook

    assert not cbook.is_math_text(mathtext("$x_1$"))
    assert not cbook.is_math_text(mathtext("costs $5 or \\$6"))
