"""Section of the report about judges, and the note that names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report import grid
from vista.report.grid import Grid, Section, number, spread
from vista.report.shown import MetricPlace, Shown
from vista.report.table import LongTable, groups, over_seeds

_AGAINST_TRUTH = ("judge_accuracy", "judge_balanced_accuracy", "judge_precision", "judge_recall")


def judge_section(table: LongTable) -> Section:
    """Return the judges against ground truth, then each two judges against each other."""
    interval_chance = ("95 %", "chance")
    return Section(
        "How far the judges can be trusted",
        "Does an item name a category? All items with all categories; intervals over images, or "
        "over labels. Captions and images against the annotated categories (captions of real data "
        "leave objects out); labels that are a category's name against that name. Chance: a judge "
        "that says yes as often, but at random. Then each two judges: Cohen's kappa, 0 as by "
        "chance, and the share of the pairs on which they agree.",
        [
            Grid(
                (
                    *("items", "judge", "accuracy", *interval_chance),
                    *("balanced accuracy", *interval_chance),
                    *("precision", *interval_chance, "recall", *interval_chance),
                    *("n pairs", "unanswered"),
                ),
                _truth_rows(table),
            ),
            Grid(
                ("items", "judge", "and", "kappa", "95 %", "agreement", "chance", "n pairs"),
                _kappa_rows(table),
            ),
        ],
    )


def _truth_rows(table: LongTable) -> list[list[str]]:
    """One row a kind of items and judge."""
    rows = []
    for (items, judge), (accuracy, *_) in groups(table.select("judge_accuracy"), "set", "of"):
        cells: list[str] = [grid.name(items), grid.name(judge)]
        for metric in _AGAINST_TRUTH:
            summary = over_seeds(table.select(metric, set=items, of=judge))
            cells += [spread(summary), *grid.interval_chance_n(summary)[:2]]
        unanswered = over_seeds(table.select("judge_unanswered", set=items, of=judge))
        cells += [str(accuracy.n), number(unanswered.mean if unanswered else None)]
        rows.append(cells)
    return rows


def _kappa_rows(table: LongTable) -> list[list[str]]:
    """One row a kind of items and pair of judges."""
    rows = []
    for (items, *judges), figures in groups(table.select("judge_kappa"), "set", "of", "method"):
        kappa = over_seeds(figures)
        agreement = over_seeds(
            table.select("judge_agreement", set=items, of=judges[0], method=judges[1])
        )
        rows.append(
            [
                *(grid.name(name) for name in (items, *judges)),
                spread(kappa),
                grid.interval_chance_n(kappa)[0],
                spread(agreement),
                number(agreement.chance if agreement else None),
                str(figures[0].n),
            ]
        )
    return rows


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    names = ", ".join(f"{name}: `{full}`" for name, full in sorted(result["judges"].items()))
    return f"Judges that were measured: {names}."


SHOWN = Shown(
    sections=lambda measured: [judge_section(measured.table)],
    note=_note,
)
