"""Removal and replacement in the readable summary: the methods, and differences between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vista.config.edits import CONTROLS
from vista.config.interventions import EDIT_TASKS, Task
from vista.config.report import Aims
from vista.metrics.intervention.captions import edit_order
from vista.metrics.intervention.measure import CONTROL
from vista.report import grid
from vista.report.compare import BASELINE
from vista.report.grid import Grid, Name, Section, interval, number, reached, spread
from vista.report.intervention_controls import control_grid
from vista.report.interventions import Intervention, Side, best_vision_only, compare, sides
from vista.report.table import LongTable, OverSeeds, groups, over_seeds


def intervention_section(
    table: LongTable, interventions: Sequence[Intervention], aims: Aims
) -> Section:
    """Scores of all methods for both tasks, the rates behind them, and paired differences."""
    methods = [one for one in interventions if one.control is None]
    grids = [
        made for task in EDIT_TASKS for made in (_scores(table, task, methods), _rates(table, task))
    ]
    grids.append(control_grid(table, interventions))
    grids.append(_comparisons(methods, aims))
    return Section(
        "Interventions: removing and replacing an object by editing its visual tokens",
        "For each task: the scores, then the rates behind them; then methods against their "
        "controls; last, methods against each other. "
        "Scores of one image: 2 clean; 1 done, but the caption adds details that the image does "
        "not show; 0 failed, which includes images whose unedited caption does not name the "
        "object, objects without a direction and empty captions. MS = (2 n2 + n1) / N over all "
        "images. Coefficient and blocks are chosen together on development images (largest MS) and "
        "reported on test images. Where: which patches are edited. Outside: the same figure for as "
        "many patches outside the object, which is the chance level here; edits of all patches "
        "have none. Differences: mean over seeds (smallest–largest); their 95 % interval is one "
        "paired bootstrap for that mean: images are drawn, each with its scores under both methods "
        "and all shared seeds, so it tells what other test images would change, and the range over "
        "seeds what other projectors would. "
        "Controls make the method's edits of the same patches with something else in place of the "
        "source's direction: nothing (target_only), a random direction of the same norm "
        "(random_source), or that of a concept that is not in the image (wrong_concept); once at "
        "the method's coefficient and blocks, once at those that are best for the control on "
        "development images. Damage: KL divergence of the next token, unedited from edited, in "
        "nats a token, on the unedited caption apart from its words for source and target. "
        "The best vision-only rival is the one with the largest test MS on the same encoder.",
        grids,
    )


@dataclass(frozen=True)
class _Row:
    """A row of the tables of one task: a method at one point, over seeds, and one place."""

    table: LongTable
    task: Task
    encoder: str
    llm: str
    method: str
    sae_weight: float
    place: str

    @property
    def cells(self) -> list[str]:
        """The first cells: encoder, LLM, method, place, weight."""
        names = (self.encoder, self.llm, self.method, self.place)
        return [*map(grid.name, names), grid.weight(self.sae_weight)]

    def is_of(self, one: Intervention) -> bool:
        """Whether an intervention is one of the seeds that the row is a mean over."""
        return (one.task, one.encoder, one.llm, one.method, one.sae_weight) == (
            self.task,
            self.encoder,
            self.llm,
            self.method,
            self.sae_weight,
        )

    def at_place(self, metric: str) -> OverSeeds | None:
        """Return a figure of the place."""
        return self._over_seeds(metric, self.place)

    def of_all_edits(self, metric: str) -> OverSeeds | None:
        """Return a figure that belongs to no place."""
        return self._over_seeds(metric, None)

    def _over_seeds(self, metric: str, place: str | None) -> OverSeeds | None:
        return over_seeds(
            self.table.select(
                metric,
                of=self.task,
                set=place,
                encoder=self.encoder,
                llm=self.llm,
                method=self.method,
                sae_weight=self.sae_weight,
            )
        )


def _rows(table: LongTable, task: Task) -> list[_Row]:
    figures = table.select("edit_ms", of=task)
    columns = ("encoder", "llm", "method", "sae_weight", "set")
    rows = [_Row(table, task, *values) for values, _ in groups(figures, *columns)]
    return [row for row in rows if row.place not in (CONTROL, *CONTROLS)]


_WHO = ("encoder", "LLM", "method", "where", "λ")


def _head(task: Task) -> tuple[str, ...]:
    return (*_WHO[:2], f"{task} by", *_WHO[3:])


def _scores(table: LongTable, task: Task, interventions: Sequence[Intervention]) -> Grid:
    rows = []
    for row in _rows(table, task):
        shares = [row.at_place(metric) for metric in ("edit_clean", "edit_new_details")]
        shares.append(row.at_place("edit_failed"))
        score, direction = row.at_place("edit_ms"), row.of_all_edits("edit_found")
        rows.append(
            [
                *row.cells,
                " / ".join("–" if share is None else f"{100 * share.mean:.0f}" for share in shares),
                spread(score),
                *grid.interval_chance_n(score),
                spread(row.of_all_edits("edit_named_before")),
                number(direction.mean if direction else None, 2),
                _chosen(interventions, row),
            ]
        )
    head = ("% 2 / 1 / 0", "MS", "95 %", "outside", "n", "named unedited", "found", "chosen")
    return Grid((*_head(task), *head), rows)


def _chosen(interventions: Sequence[Intervention], row: _Row) -> str:
    """Coefficient, and blocks if there are any, that the seeds chose, each choice once."""
    edits = {
        edit.edit
        for one in interventions
        if row.is_of(one)
        for edit in one.result.edits
        if edit.variant == row.place
    }
    return "; ".join(
        f"{coefficient:g}" + (f" after {','.join(map(str, blocks))}" if blocks else "")
        for _, coefficient, blocks in sorted(edits, key=edit_order)
    )


_RATES: Mapping[Task, tuple[str, ...]] = {
    "removal": ("edit_removed", "edit_removed_of_all"),
    "replacement": (
        *("edit_removed", "edit_replaced", "edit_replaced_of_all"),
        "edit_both_named",
    ),
}
_SIDE_EFFECTS = (
    *("edit_objects_kept", "edit_attributes_kept", "edit_new_objects"),
    *("edit_nats", "edit_damage", "edit_empty"),
)
_HEADS = {
    "edit_removed": "removed of named",
    "edit_removed_of_all": "removed of all",
    "edit_replaced": "replaced of named",
    "edit_replaced_of_all": "replaced of all",
    "edit_both_named": "both named",
    "edit_objects_kept": "other objects kept",
    "edit_attributes_kept": "attributes kept",
    "edit_new_objects": "new objects a caption",
    "edit_nats": "nats a token",
    "edit_damage": "damage",
    "edit_empty": "empty",
}
# The rates that are shown with their control; the long table has it for the others.
_WITH_CONTROL = frozenset(
    {
        *("edit_removed", "edit_replaced", "edit_removed_of_all", "edit_replaced_of_all"),
        *("edit_nats", "edit_damage"),
    }
)


def _rates(table: LongTable, task: Task) -> Grid:
    metrics = (*_RATES[task], *_SIDE_EFFECTS)
    head = [
        cell
        for metric in metrics
        for cell in (_HEADS[metric], *(("outside",) if metric in _WITH_CONTROL else ()))
    ]
    rows = []
    for row in _rows(table, task):
        cells = row.cells
        for metric in metrics:
            rate = row.at_place(metric)
            cells.append(spread(rate))
            if metric in _WITH_CONTROL:
                cells.append(number(rate.chance if rate else None))
        rows.append(cells)
    return Grid((*_head(task), *head), rows)


def _comparisons(interventions: Sequence[Intervention], aims: Aims) -> Grid:
    hopes: Mapping[Task, float | None] = {
        "removal": aims.removal_gain,
        "replacement": aims.replacement_gain,
    }
    cases: dict[tuple[Task, str, str], list[Intervention]] = {}
    for one in interventions:
        cases.setdefault((one.task, one.encoder, one.llm), []).append(one)
    rows = []
    for (task, encoder, llm), case in sorted(cases.items()):
        for side, other, is_hoped in _pairs(sides(case)):
            result = compare(side, other)
            if result is None:
                continue
            gap, hope = result.difference, hopes[task] if is_hoped else None
            rows.append(
                [
                    Name(task),
                    *(grid.name(cell) for cell in (encoder, llm, side.method, side.place)),
                    grid.weight(side.sae_weight),
                    number(result.ours),
                    Name(f"{other.method}, {other.place}, λ = {other.sae_weight:g}"),
                    number(result.theirs),
                    spread(gap),
                    interval(gap.low, gap.high),
                    grid.percent(result.gain),
                    "–" if hope is None else grid.percent(hope),
                    reached(result.gain, hope),
                    str(gap.n),
                ]
            )
    head = (
        *("MS", "against", "its MS", "difference", "95 %"),
        *("relative", "hoped for", "reached", "n"),
    )
    return Grid(("task", *_WHO, *head), rows)


def _pairs(candidates: Sequence[Side]) -> Iterator[tuple[Side, Side, bool]]:
    """Yield two sides to compare, and whether the aim for the gain is about them.

    Each side is compared with the best vision-only rival, if it is not vision-only itself, and
    with the same method without the SAE term.
    """
    rival = best_vision_only(candidates)
    plain = {(side.method, side.place): side for side in candidates if side.sae_weight == BASELINE}
    for side in candidates:
        has_term = side.sae_weight != BASELINE
        if rival is not None and not side.is_vision_only:
            yield side, rival, side.is_text_latent and has_term
        twin = plain.get((side.method, side.place))
        if twin is not None and has_term:
            yield side, twin, False
