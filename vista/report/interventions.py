"""Removal and replacement in the readable summary: every method, and methods against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vista.config.report import Aims
from vista.metrics.edited_captions import ItemKey, edit_order
from vista.metrics.intervention import (
    CONTROL,
    METRIC,
    InterventionResult,
    paired_ms_difference,
    shared_items,
)
from vista.report import grid
from vista.report.compare import BASELINE
from vista.report.grid import Grid, Name, Section, interval, number, reached, spread
from vista.report.table import LongTable, OverSeeds, groups, over_seeds

# The stages whose results are interventions.
STAGES = frozenset(METRIC.values())
# Methods that are no attempt to name the concept: drawn in grey.
CONTROL_METHODS = frozenset({"random", "random_latent", "wrong_concept"})
_VISION = "features"
# Draws of the paired bootstrap of two methods.
_RESAMPLES, _LEVEL, _SEED = 1000, 0.95, 0


@dataclass(frozen=True)
class Intervention:
    """One removal or replacement: a method at one point of the sweep.

    `method` is its name in the config, `result.method` the kind of method. `scores` holds each test
    item's score at the chosen coefficient, by place of the edit.
    """

    encoder: str
    llm: str
    sae_weight: float
    seed: int
    method: str
    result: InterventionResult
    scores: Mapping[str, Mapping[ItemKey, int]]

    @property
    def metric(self) -> str:
        """Name of the metric: removal or replacement."""
        return METRIC[self.result.task]

    @property
    def is_control(self) -> bool:
        """Whether its directions are not of the concept."""
        return self.result.method in CONTROL_METHODS

    @property
    def is_text_latent(self) -> bool:
        """Whether it is the method that hopes are about: labelled latents of the LLM's SAEs."""
        return self.result.method in ("latent", "latent_at")

    @property
    def is_vision_only(self) -> bool:
        """Whether it edits the encoder's features and needs no text SAE."""
        return self.result.space == _VISION


@dataclass(frozen=True)
class Side:
    """One method at one place and weight, over seeds: what is compared."""

    method: str
    place: str
    sae_weight: float
    by_seed: Mapping[int, Intervention]

    @property
    def ms(self) -> float:
        """Mean MS over seeds."""
        found = [_mean(each.scores[self.place]) for each in self.by_seed.values()]
        return sum(found) / len(found)


@dataclass(frozen=True)
class Comparison:
    """One side less another, on the same items and seeds.

    `ours` and `theirs` are mean MS over the shared seeds. `difference` is their difference: its
    ends `low` and `high` are of one bootstrap over images of the mean over seeds, `smallest` and
    `largest` are single seeds'.
    """

    ours: float
    theirs: float
    difference: OverSeeds

    @property
    def gain(self) -> float | None:
        """The difference relative to the other side's MS."""
        return self.difference.mean / self.theirs if self.theirs > 0 else None


def compare(ours: Side, theirs: Side) -> Comparison | None:
    """Compare two sides on the seeds that both have, and on the items of all of these."""
    seeds = sorted(set(ours.by_seed) & set(theirs.by_seed))
    mine = [ours.by_seed[seed].scores[ours.place] for seed in seeds]
    other = [theirs.by_seed[seed].scores[theirs.place] for seed in seeds]
    shared = shared_items([*mine, *other])
    if not shared:
        return None
    whole = paired_ms_difference(mine, other, seed=_SEED, resamples=_RESAMPLES, level=_LEVEL)
    means = [[_mean({key: scores[key] for key in shared}) for scores in by] for by in (mine, other)]
    gaps = [a - b for a, b in zip(*means, strict=True)]
    return Comparison(
        ours=sum(means[0]) / len(seeds),
        theirs=sum(means[1]) / len(seeds),
        difference=OverSeeds(
            mean=sum(gaps) / len(seeds),
            smallest=min(gaps),
            largest=max(gaps),
            low=whole.ci_low,
            high=whole.ci_high,
            chance=None,
            n=whole.n,
            n_seeds=len(seeds),
        ),
    )


def sides(interventions: Sequence[Intervention]) -> list[Side]:
    """Group interventions of one encoder, LLM and task over seeds; controls outside left out."""
    found: dict[tuple[str, str, float], dict[int, Intervention]] = {}
    for each in interventions:
        for place in each.scores:
            if place != CONTROL:
                found.setdefault((each.method, place, each.sae_weight), {})[each.seed] = each
    return [Side(*key, by_seed) for key, by_seed in sorted(found.items())]


def best_vision_only(candidates: Sequence[Side]) -> Side | None:
    """Return the vision-only side with the largest test MS; of equal ones the first by name."""
    vision = [
        side
        for side in candidates
        if all(each.is_vision_only and not each.is_control for each in side.by_seed.values())
    ]
    return max(vision, key=lambda side: side.ms, default=None)


def intervention_section(
    table: LongTable, interventions: Sequence[Intervention], aims: Aims
) -> Section:
    """Scores of all methods for both tasks, the rates behind them, and paired differences."""
    grids = [
        made
        for metric in METRIC.values()
        for made in (_scores(table, metric, interventions), _rates(table, metric))
    ]
    grids.append(_comparisons(interventions, aims))
    return Section(
        "Interventions: removing and replacing an object by editing its visual tokens",
        "For each task: the scores, then the rates behind them; last, methods against each other. "
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
        "The best vision-only rival is the one with the largest test MS on the same encoder.",
        grids,
    )


_WHO = ("encoder", "LLM", "method", "where", "λ")


def _scores(table: LongTable, metric: str, interventions: Sequence[Intervention]) -> Grid:
    rows = []
    for cells, point, place in _points(table, metric):

        def summary(
            name: str, where: str = f"_{place}", point: Mapping[str, object] = point
        ) -> OverSeeds | None:
            return over_seeds(table.select(f"{metric}_{name}{where}", **point))

        shares = [summary(name) for name in ("clean", "new_details", "failed")]
        score, found = summary("ms"), summary("found", "")
        rows.append(
            [
                *cells,
                " / ".join("–" if each is None else f"{100 * each.mean:.0f}" for each in shares),
                spread(score),
                *grid.interval_chance_n(score),
                spread(summary("named_before", "")),
                number(found.mean if found else None, 2),
                _chosen(interventions, metric, point, place),
            ]
        )
    head = ("% 2 / 1 / 0", "MS", "95 %", "outside", "n", "named unedited", "found", "chosen")
    return Grid((*(_WHO[:2]), f"{metric} by", *_WHO[3:], *head), rows)


def _chosen(
    interventions: Sequence[Intervention], metric: str, point: Mapping[str, object], place: str
) -> str:
    """Coefficient, and blocks if there are any, that the seeds chose, each choice once."""
    edits = {
        edit.edit
        for each in interventions
        if each.metric == metric and all(getattr(each, name) == at for name, at in point.items())
        for edit in each.result.edits
        if edit.variant == place
    }
    return "; ".join(
        f"{coefficient:g}" + (f" after {','.join(map(str, blocks))}" if blocks else "")
        for _, coefficient, blocks in sorted(edits, key=edit_order)
    )


_RATES = {
    "removal": ("removed", "removed_of_all"),
    "replacement": ("removed", "replaced", "replaced_of_all", "both_named"),
}
_SIDE_EFFECTS = ("objects_kept", "attributes_kept", "new_objects", "nats", "empty")
_HEADS = {
    "removed": "removed of named",
    "removed_of_all": "removed of all",
    "replaced": "replaced of named",
    "replaced_of_all": "replaced of all",
    "both_named": "both named",
    "objects_kept": "other objects kept",
    "attributes_kept": "attributes kept",
    "new_objects": "new objects a caption",
    "nats": "nats a token",
    "empty": "empty",
}
# Of these the control is shown beside; the rest has it in the long table.
_WITH_CONTROL = frozenset({"removed", "replaced", "removed_of_all", "replaced_of_all", "nats"})


def _rates(table: LongTable, metric: str) -> Grid:
    names = (*_RATES[metric], *_SIDE_EFFECTS)
    head = [
        cell
        for name in names
        for cell in ((_HEADS[name], "outside") if name in _WITH_CONTROL else (_HEADS[name],))
    ]
    rows = []
    for cells, point, place in _points(table, metric):
        row = list(cells)
        for name in names:
            found = over_seeds(table.select(f"{metric}_{name}_{place}", **point))
            row.append(spread(found))
            if name in _WITH_CONTROL:
                row.append(number(found.chance if found else None))
        rows.append(row)
    return Grid((*(_WHO[:2]), f"{metric} by", *_WHO[3:], *head), rows)


def _points(table: LongTable, metric: str) -> list[tuple[list[str], Mapping[str, object], str]]:
    """Each method's cells, columns and place of the edit, in the order of the rows."""
    start = f"{metric}_ms_"
    found: list[tuple[list[str], Mapping[str, object], str]] = []
    for (encoder, llm, method, weight, name), _ in groups(
        [f for f in table.of_stage(metric) if f.metric.startswith(start)],
        *("encoder", "llm", "method", "sae_weight", "metric"),
    ):
        place = name.removeprefix(start)
        if place == CONTROL:
            continue
        point = {"encoder": encoder, "llm": llm, "method": method, "sae_weight": weight}
        names = [grid.name(each) for each in (encoder, llm, method, place)]
        found.append(([*names, grid.weight(weight)], point, place))
    return found


def _comparisons(interventions: Sequence[Intervention], aims: Aims) -> Grid:
    hopes = {"removal": aims.removal_gain, "replacement": aims.replacement_gain}
    by_case: dict[tuple[str, str, str], list[Intervention]] = {}
    for each in interventions:
        by_case.setdefault((each.metric, each.encoder, each.llm), []).append(each)
    rows = []
    for (metric, encoder, llm), found in sorted(by_case.items()):
        candidates = sides(found)
        rival = best_vision_only(candidates)
        plain = {
            (side.method, side.place): side for side in candidates if side.sae_weight == BASELINE
        }
        for side in candidates:
            others: list[tuple[Side, float | None]] = []
            one = next(iter(side.by_seed.values()))
            if rival is not None and not one.is_vision_only:
                hoped = one.is_text_latent and side.sae_weight != BASELINE
                others.append((rival, hopes[metric] if hoped else None))
            twin = plain.get((side.method, side.place))
            if twin is not None and side.sae_weight != BASELINE:
                others.append((twin, None))
            for other, hope in others:
                result = compare(side, other)
                if result is None:
                    continue
                gap = result.difference
                rows.append(
                    [
                        Name(metric),
                        *(grid.name(x) for x in (encoder, llm, side.method, side.place)),
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
        "MS",
        "against",
        "its MS",
        "difference",
        "95 %",
        "relative",
        "hoped for",
        "reached",
        "n",
    )
    return Grid(("task", *_WHO, *head), rows)


def _mean(scores: Mapping[ItemKey, int]) -> float:
    return sum(scores.values()) / len(scores)
