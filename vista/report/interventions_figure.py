"""Coefficient-response curves of removal and replacement, a line a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from vista.config.interventions import EDIT_TASKS
from vista.metrics.figure import Figure
from vista.metrics.intervention.measure import CONTROL, OBJECT, CurvePoint
from vista.report import style
from vista.report.compare import BASELINE
from vista.report.escape import mathtext
from vista.report.facets import Key, Series, XAxis, facets
from vista.report.interventions import Intervention
from vista.report.notes import span

_LINE = {"capsize": 1.5, "elinewidth": 0.8, "linewidth": 1.4}
_OUTSIDE = {
    "color": style.CHANCE_COLOUR,
    "linestyle": ":",
    "linewidth": 1.3,
    "marker": "x",
    "markersize": 4,
}


def coefficient_response(interventions: Sequence[Intervention]) -> Any | None:
    """Draw MS over the coefficient on the test images: rows are tasks of an LLM, columns encoders.

    Each method and seed stands at the blocks that it chose on development images.
    """
    series = []
    looks = _looks(interventions)
    for (method, place, weight), look in sorted(looks.items()):
        edits = [one for one in interventions if (one.method, one.sae_weight) == (method, weight)]
        curve = _curve(edits, place)
        chosen = {key for key, points in curve.items() if any(point.chosen for point in points)}
        series.append(
            Series(_name(method, place, weight), _figures(curve), {**_LINE, **look}, filled=chosen)
        )
    outside = _curve([one for one in interventions if not one.is_control], CONTROL)
    series.append(
        Series("outside the object (chance)", _figures(outside), _OUTSIDE, reference=True)
    )
    llms = sorted({one.llm for one in interventions})
    tasks = [task for task in EDIT_TASKS if any(one.task == task for one in interventions)]
    encoders = sorted({one.encoder for one in interventions})
    # Coefficients double from one to the next as a rule: equal steps on the axis.
    coefficients = sorted({key[2] for one in series for key in one.figures})
    # Three columns of these names are wider than one panel.
    wide = 3 if len(encoders) > 1 else 2
    return facets(
        series,
        {
            (llm, task): f"{mathtext(llm, 30)}\n{task}: MS (0 to 2)"
            for llm, task in product(llms, tasks)
        },
        {encoder: encoder for encoder in encoders},
        XAxis("coefficient", names={x: f"{x:g}" for x in coefficients}, spread=0.3),
        limits=(-0.05, 2.0),
        size=(3.6, 2.5),
        legend_columns=wide if len(looks) > wide else None,
        title="Removal and replacement by how far visual tokens are moved",
        note=_note(interventions),
    )


# A line: method, place of the edit, weight of the SAE term.
_Line = tuple[str, str, float]


def _looks(interventions: Sequence[Intervention]) -> dict[_Line, dict[str, Any]]:
    """Colour, marker and dashes of each line, the same in every panel.

    The method on the text SAE has the colour of its weight, as in every figure; other methods take
    the colours that weights leave, paler without the SAE term, and controls are grey.
    """
    weights = sorted({BASELINE, *(one.sae_weight for one in interventions)})
    lines: dict[_Line, dict[str, Any]] = {}
    on_text_sae = {one.method for one in interventions if one.result.method == "latent"}
    ours = min(on_text_sae, default=None)
    others = sorted({one.method for one in interventions if not one.is_control} - {ours})
    greys = sorted({one.method for one in interventions if one.is_control})
    for one in interventions:
        for place in sorted({point.variant for point in one.result.curve} - {CONTROL}):
            if one.is_control:
                look = style.grey(greys.index(one.method))
            elif one.method == ours:
                look = style.series_style(weights, one.sae_weight)
            else:
                look = style.further_style(len(weights) + others.index(one.method))
            look["linestyle"] = "-" if place == OBJECT else (0, (4, 2))
            faded = one.sae_weight == BASELINE and len(weights) > 1 and one.method != ours
            look["alpha"] = 0.55 if faded else 1.0
            lines[one.method, place, one.sae_weight] = look
    return lines


def _name(method: str, place: str, weight: float) -> str:
    patches = "" if place == OBJECT else f", {place} patches"
    return f"{mathtext(method, 24)}{patches}, λ = {weight:g}"


def _note(interventions: Sequence[Intervention]) -> str:
    seeds = len({one.seed for one in interventions})
    several = any(len({point.blocks for point in one.result.curve}) > 1 for one in interventions)
    return (
        f"Test images, n = {span([one.result.n_items for one in interventions])}; filled: the "
        "coefficient chosen on development images"
        f"{', and each line at the blocks chosen with it' if several else ''}. "
        "Dashed: edits of other patches than the object's. Grey: random and wrong directions; "
        "grey crosses: as many patches outside the object (chance). "
        + (
            f"Mean over {seeds} seeds; error bars: all of the seeds' intervals over images."
            if seeds > 1
            else "Error bars: intervals over images; one seed."
        )
    )


def _curve(interventions: Sequence[Intervention], place: str) -> dict[Key, list[CurvePoint]]:
    """Return the points of all seeds by row (LLM, task), column (encoder) and coefficient."""
    points: dict[Key, list[CurvePoint]] = {}
    for one in interventions:
        for point in one.result.response(place):
            key = ((one.llm, one.task), one.encoder, point.coefficient)
            points.setdefault(key, []).append(point)
    return points


def _figures(curve: Mapping[Key, Sequence[CurvePoint]]) -> dict[Key, list[Figure]]:
    return {key: [point.ms.figure("ms") for point in points] for key, points in curve.items()}
