"""Methods of interventions beside their controls, in the readable summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vista.config.edits import EditControl
from vista.config.interventions import Task
from vista.report import grid
from vista.report.grid import Grid, Name, interval, spread
from vista.report.interventions import Comparison, Intervention, Side, compare
from vista.report.table import LongTable, OverSeeds, over_seeds


@dataclass(frozen=True)
class _Case:
    """A method at one point over seeds, with its controls.

    `place` is where the controls edit: the first place of the method's edits.
    """

    task: Task
    encoder: str
    llm: str
    method: str
    sae_weight: float
    place: str
    by_seed: Mapping[int, Intervention]
    controls: Mapping[EditControl, Mapping[int, Intervention]]

    def figure(self, table: LongTable, metric: str, of: str) -> OverSeeds | None:
        """Return a figure of a place or control."""
        return over_seeds(
            table.select(
                metric,
                of=self.task,
                set=of,
                encoder=self.encoder,
                llm=self.llm,
                method=self.method,
                sae_weight=self.sae_weight,
            )
        )

    def difference(self, control: EditControl, *, at_best: bool) -> Comparison | None:
        """Compare the method with a control at the method's coefficient, or at the control's best
        one."""
        by_seed = self.controls[control]
        if at_best:
            by_seed = {seed: replace(one, scores=one.best_scores) for seed, one in by_seed.items()}
        ours, theirs = (
            Side(self.method, self.place, self.sae_weight, seeds)
            for seeds in (self.by_seed, by_seed)
        )
        return compare(ours, theirs)


def control_grid(table: LongTable, interventions: Sequence[Intervention]) -> Grid:
    """Each method that has controls, followed by them: at the method's coefficient and at their
    own best one, with paired differences over images."""
    rows = []
    for case in _cases(interventions):
        names = [Name(case.task), *map(grid.name, (case.encoder, case.llm, case.method))]
        cells = [*names, grid.weight(case.sae_weight)]
        score, damage = (
            case.figure(table, metric, case.place) for metric in ("edit_ms", "edit_damage")
        )
        n = str(score.n if score else 0)
        at_method = [*_with_interval(score), *_with_interval(damage), "–", "–"]
        rows.append([*cells, Name("–"), *at_method, *at_method, n])
        for control in case.controls:
            row = [*cells, Name(control)]
            for prefix, at_best in (("edit", False), ("edit_best", True)):
                figures = (
                    case.figure(table, f"{prefix}_{name}", control) for name in ("ms", "damage")
                )
                row += [cell for figure in figures for cell in _with_interval(figure)]
                row += _gap(case.difference(control, at_best=at_best))
            score = case.figure(table, "edit_ms", control)
            rows.append([*row, str(score.n if score else 0)])
    columns = ("95 %", "damage", "95 %", "method less control", "95 %")
    head = ("task", "encoder", "LLM", "method", "λ", "control")
    return Grid((*head, "MS", *columns, "best: MS", *columns, "n"), rows)


def _cases(interventions: Sequence[Intervention]) -> Iterator[_Case]:
    grouped: dict[tuple[Task, str, str, str, float], list[Intervention]] = {}
    for one in interventions:
        key = (one.task, one.encoder, one.llm, one.method, one.sae_weight)
        grouped.setdefault(key, []).append(one)
    for key, group in sorted(grouped.items()):
        controls: dict[EditControl, dict[int, Intervention]] = {}
        by_seed = {one.seed: one for one in group if one.control is None}
        for one in group:
            if one.control is not None:
                controls.setdefault(one.control, {})[one.seed] = one
        if controls:
            (place,) = {place for by_control in controls.values() for place in _places(by_control)}
            yield _Case(*key, place, by_seed, dict(sorted(controls.items())))


def _places(by_seed: Mapping[int, Intervention]) -> Iterator[str]:
    for one in by_seed.values():
        yield from (edit.variant for edit in one.result.edits)


def _with_interval(figure: OverSeeds | None) -> list[str]:
    return [spread(figure), interval(figure.low, figure.high) if figure else "–"]


def _gap(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["–", "–"]
    gap = comparison.difference
    return [spread(gap), interval(gap.low, gap.high)]
