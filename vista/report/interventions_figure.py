"""Coefficient-response curves of removal and replacement, a line a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vista.config.interventions import EDIT_TASKS
from vista.metrics.intervention.measure import CONTROL, OBJECT, CurvePoint
from vista.report import style
from vista.report.compare import BASELINE
from vista.report.escape import mathtext
from vista.report.interventions import Intervention


def coefficient_response(interventions: Sequence[Intervention]) -> Any | None:
    """MS over the coefficient on the test images: rows are tasks of an LLM, columns encoders.

    Each method and seed at the blocks that it chose on development images.
    """
    if not interventions:
        return None
    tasks = [task for task in EDIT_TASKS if any(one.task == task for one in interventions)]
    encoders = sorted({one.encoder for one in interventions})
    llms = sorted({one.llm for one in interventions})
    rows = [(llm, task) for llm in llms for task in tasks]
    figure, axes = style.panels([task for _, task in rows], encoders, width=3.6, height=2.5)
    looks = _looks(interventions)
    handles: list[Any] = []
    for r, (llm, task) in enumerate(rows):
        for c, encoder in enumerate(encoders):
            axis = axes[r, c]
            panel = [
                one
                for one in interventions
                if (one.llm, one.task, one.encoder) == (llm, task, encoder)
            ]
            handles += _panel(axis, panel, looks)
            if c == 0:
                axis.set_ylabel(f"{mathtext(llm, 30)}\n{task}: MS (0 to 2)")
            if r == len(rows) - 1:
                axis.set_xlabel("coefficient")
    # Three columns of these names are wider than one panel.
    wide = 3 if len(encoders) > 1 else 2
    style.legend_below(figure, handles, columns=wide if len(looks) > wide else None)
    seeds = len({one.seed for one in interventions})
    n = sorted({one.result.n_items for one in interventions})
    shown = f"{n[0]:,}" if n[0] == n[-1] else f"{n[0]:,} to {n[-1]:,}"
    several = any(len({point.blocks for point in one.result.curve}) > 1 for one in interventions)
    style.heading(
        figure,
        "Removal and replacement by how far visual tokens are moved",
        f"Test images, n = {shown}; filled: the coefficient chosen on development images"
        f"{', and each line at the blocks chosen with it' if several else ''}. "
        "Dashed: edits of other patches than the object's. Grey: random and wrong directions; "
        "grey crosses: as many patches outside the object (chance). "
        + (
            f"Mean over {seeds} seeds; error bars: all of the seeds' intervals over images."
            if seeds > 1
            else "Error bars: intervals over images; one seed."
        ),
    )
    return figure


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


def _panel(
    axis: Any, interventions: Sequence[Intervention], looks: dict[_Line, dict[str, Any]]
) -> list[Any]:
    handles: list[Any] = []
    points = [point for one in interventions for point in one.result.curve]
    coefficients = sorted({point.coefficient for point in points})
    # Coefficients double from one to the next as a rule: equal steps on the axis.
    place_of = {coefficient: x for x, coefficient in enumerate(coefficients)}
    for s, (line, look) in enumerate(sorted(looks.items())):
        method, place, weight = line
        of_line = [one for one in interventions if (one.method, one.sae_weight) == (method, weight)]
        shift = 0.3 * ((s + 0.5) / len(looks) - 0.5)
        curve = [(place_of[x] + shift, _at(of_line, place, x)) for x in coefficients]
        known = [(x, at) for x, at in curve if at]
        if not known:
            continue
        handles.append(
            axis.errorbar(
                [x for x, _ in known],
                [_mean(at) for _, at in known],
                yerr=_bars([at for _, at in known]),
                capsize=1.5,
                elinewidth=0.8,
                linewidth=1.4,
                markerfacecolor="white",
                label=_name(line),
                **look,
            )
        )
        chosen = [(x, at) for x, at in known if any(point.chosen for point in at)]
        axis.plot(
            [x for x, _ in chosen],
            [_mean(at) for _, at in chosen],
            linestyle="none",
            color=look["color"],
            marker=look["marker"],
            zorder=5,
        )
    outside = [one for one in interventions if not one.is_control]
    levels = [(place_of[x], _at(outside, CONTROL, x)) for x in coefficients]
    if any(at for _, at in levels):
        handles += axis.plot(
            [x for x, at in levels if at],
            [_mean(at) for _, at in levels if at],
            color=style.CHANCE_COLOUR,
            linestyle=":",
            marker="x",
            markersize=4,
            linewidth=1.3,
            label="outside the object (chance)",
        )
    if not interventions:
        style.empty(axis)
    axis.set_xticks(range(len(coefficients)), [f"{x:g}" for x in coefficients])
    axis.set_ylim(-0.05, 2.0)
    return handles


def _name(line: _Line) -> str:
    method, place, weight = line
    patches = "" if place == OBJECT else f", {place} patches"
    return f"{mathtext(method, 24)}{patches}, λ = {weight:g}"


def _at(interventions: Sequence[Intervention], place: str, coefficient: float) -> list[CurvePoint]:
    return [
        point
        for one in interventions
        for point in one.result.response(place)
        if point.coefficient == coefficient and point.ms.value is not None
    ]


def _mean(points: Sequence[CurvePoint]) -> float:
    values = [point.ms.value for point in points if point.ms.value is not None]
    return sum(values) / len(values)


def _bars(points: Sequence[Sequence[CurvePoint]]) -> list[list[float]]:
    below, above = [], []
    for at in points:
        mean = _mean(at)
        lows = [p.ms.ci_low for p in at if p.ms.ci_low is not None]
        highs = [p.ms.ci_high for p in at if p.ms.ci_high is not None]
        below.append(max(0.0, mean - min(lows, default=mean)))
        above.append(max(0.0, max(highs, default=mean) - mean))
    return [below, above]
