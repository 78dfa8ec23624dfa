"""Interventions in the report: rows of every method, paired comparisons, curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tests.long_table import figures_of
from vista.config.interventions import EDIT_TASKS
from vista.config.report import Aims, ReportSettings
from vista.metrics.intervention.captions import Scored
from vista.metrics.intervention.measure import intervention_figures
from vista.metrics.results import figures_table
from vista.report import style
from vista.report.interventions import (
    Intervention,
    best_vision_only,
    compare,
    sides,
)
from vista.report.interventions_figure import coefficient_response
from vista.report.interventions_section import intervention_section
from vista.report.shown import Measured
from vista.report.summary import summary_markdown
from vista.report.table import LongTable

Task = Literal["remove", "replace"]
# method -> kind of method, space, strength at the largest coefficient, weights.
METHODS: dict[str, tuple[str, str, float, tuple[float, ...]]] = {
    "latent": ("latent", "stream", 0.8, (0.0, 1.0)),
    "mean_difference": ("mean_difference", "stream", 0.6, (1.0,)),
    "vision_topk": ("vision_latent", "features", 0.5, (1.0,)),
    "random": ("random", "stream", 0.05, (1.0,)),
}
COEFFICIENTS = (1.0, 2.0, 4.0, 8.0)


def scored(
    image: int,
    target: str | None,
    place: str,
    coefficient: float,
    score: int,
    blocks: tuple[int, ...] | None = (0, 1),
) -> Scored:
    done = score > 0
    return Scored(
        image_id=f"i{image:03d}",
        source="cat",
        target=target,
        variant=place,
        coefficient=coefficient,
        blocks=blocks,
        found=True,
        named_before=True,
        removed=done,
        replaced=done and target is not None,
        both_named=False,
        empty=False,
        new_details=("umbrella",) if score == 1 else (),
        score=score,
        objects_before=1,
        objects_kept=1,
        attributes_before=0,
        attributes_kept=0,
        hallucinated_change=int(score == 1),
        loss_change=0.1 * coefficient,
        loss_tokens=4,
    )


def intervention(
    method: str,
    task: Task = "remove",
    weight: float = 1.0,
    seed: int = 0,
    encoder: str = "clip",
    n: int = 40,
    places: tuple[str, ...] = ("object", "outside"),
) -> Intervention:
    kind, space, strength, _ = METHODS[method]
    rng = np.random.default_rng([seed, len(method), int(weight), len(task)])
    target = "dog" if task == "replace" else None
    strength *= (0.5 + 0.5 * weight) * (0.8 if task == "replace" else 1.0)
    strength += 0.02 * seed
    blocks = None if space == "features" else (0, 1)
    items = []
    for place in places:
        for k, coefficient in enumerate(COEFFICIENTS):
            chance = strength * (0.15 if place == "outside" else min(1.0, (k + 1) / 3))
            for image in range(n):
                score = int(rng.random() < chance) * (2 - int(rng.random() < 0.1 * k))
                items.append(scored(image, target, place, coefficient, score, blocks))
    result = intervention_figures(
        task,
        items,
        items,
        method=kind,
        space=space,
        how="subtract",
        judge_name="lexical",
        n_attributes=0,
        seed=0,
        resamples=100,
        level=0.95,
    )
    chosen = {edit.edit for edit in result.edits}
    scores: dict[str, dict[Any, int]] = {}
    for each in items:
        if each.edit in chosen:
            scores.setdefault(each.variant, {})[each.key] = each.score
    return Intervention(encoder, "gemma", weight, seed, method, result, scores)


def whole_run() -> list[Intervention]:
    tasks: tuple[Task, ...] = ("remove", "replace")
    return [
        intervention(
            method,
            task,
            weight,
            seed,
            encoder,
            places=("object", "outside", "all")
            if method == "vision_topk"
            else ("object", "outside"),
        )
        for encoder in ("clip", "dinov2")
        for task in tasks
        for method, (*_, weights) in METHODS.items()
        for weight in weights
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def made() -> list[Intervention]:
    return whole_run()


def table_of(interventions: list[Intervention]) -> LongTable:
    figures = []
    for each in interventions:
        point = {
            "metric": "intervention",
            "encoder": each.encoder,
            "llm": each.llm,
            "sae_weight": each.sae_weight,
            "seed": each.seed,
            "method": each.method,
        }
        figures += figures_of(point, figures_table(each.result.figures()).to_pylist())
    return LongTable(figures)


def test_methods_share_names_of_figures_and_differ_in_their_column(
    made: list[Intervention],
) -> None:
    table = table_of(made)
    found = table.select(
        "edit_ms", of="removal", set="object", encoder="clip", sae_weight=1.0, seed=0
    )
    assert [f.method for f in found] == ["latent", "mean_difference", "random", "vision_topk"]
    header = table.csv().splitlines()[0].split(",")
    assert header.index("method") == header.index("control") + 1


def test_comparison_by_hand() -> None:
    def side(method: str, by_seed: dict[int, list[int]]) -> Any:
        made = {}
        for seed, values in by_seed.items():
            base = intervention(method, seed=seed, n=4)
            # Each pattern of four images comes ten times: differences of few have no interval.
            scores = {(f"i{i}", "cat", None): score for i, score in enumerate(values * 10)}
            fields = {**base.__dict__, "scores": {"object": scores, "outside": scores}}
            made[seed] = Intervention(**fields)
        return sides(list(made.values()))[0]

    ours = side("latent", {0: [2, 2, 1, 1], 1: [2, 2, 2, 2], 2: [0, 0, 0, 0]})
    theirs = side("vision_topk", {0: [1, 1, 0, 0], 1: [1, 1, 1, 1]})
    found = compare(ours, theirs)
    assert found is not None
    assert (found.ours, found.theirs) == (1.75, 0.75)  # the third seed has no rival
    assert (found.difference.mean, found.difference.n_seeds) == (1.0, 2)
    assert (found.difference.smallest, found.difference.largest) == (1.0, 1.0)
    # The same difference in every image: pairs know, two separate intervals would not.
    assert (found.difference.low, found.difference.high) == (1.0, 1.0)
    assert found.gain == pytest.approx(1.0 / 0.75)
    # Each seed differs in half of the images, the mean over seeds in none: one interval for it,
    # not the ends of the seeds' own.
    halves = side("latent", {0: [2, 2, 0, 0], 1: [0, 0, 2, 2]})
    nothing = side("vision_topk", {0: [0, 0, 0, 0], 1: [0, 0, 0, 0]})
    found = compare(halves, nothing)
    assert found is not None
    assert (found.difference.mean, found.difference.low, found.difference.high) == (1.0, 1.0, 1.0)
    assert found.difference.n == 40
    assert compare(ours, side("vision_topk", {7: [1, 1, 1, 1]})) is None


def test_the_best_rival_is_vision_only(made: list[Intervention]) -> None:
    here = [each for each in made if (each.encoder, each.task) == ("clip", "removal")]
    candidates = sides(here)
    rival = best_vision_only(candidates)
    assert rival is not None
    assert rival.method == "vision_topk"
    same = [each for each in candidates if each.method == "vision_topk"]
    assert {each.place for each in same} == {"object", "all"}
    assert rival.ms == max(each.ms for each in same)
    assert best_vision_only([each for each in candidates if each.method != "vision_topk"]) is None


def test_section_has_every_method_and_both_comparisons(made: list[Intervention]) -> None:
    text = intervention_section(table_of(made), made, Aims()).markdown()
    tables = text.split("\n\n")[2:]
    assert len(tables) == 5
    for task, table in zip(EDIT_TASKS, tables[::2], strict=False):
        lines = table.splitlines()
        assert f"{task} by" in lines[0]
        assert len(lines) == 2 + 2 * 6  # per encoder: latent twice, vision twice, two others
    comparisons = tables[-1].splitlines()[2:]
    # Per task and encoder: latent at 0 and 1, mean difference, random against the rival; the
    # latent at 1 against 0.
    assert len(comparisons) == 2 * 2 * 5
    assert sum("latent, object, λ = 0" in line for line in comparisons) == 4
    hoped = [line for line in comparisons if "| +35.0 % |" in line or "| +47.0 % |" in line]
    assert len(hoped) == 4  # the latent with the term against the rival, and nothing else
    assert all("| latent | object | 1 |" in line for line in hoped)
    line = next(each for each in tables[0].splitlines() if "| latent | object | 0 |" in each)
    assert line.endswith("| 4 after 0,1; 8 after 0,1 |")  # each seed chose its own
    line = next(each for each in tables[0].splitlines() if "| vision\\_topk | object |" in each)
    assert "after" not in line.rsplit("|", 2)[1]
    assert "one paired bootstrap for that mean" in text


def test_summary_with_and_without_interventions(made: list[Intervention]) -> None:
    settings, none = ReportSettings(), LongTable([])
    plain = summary_markdown(Measured(none, settings), name="x", figures=[], notes=[])
    assert "Interventions" not in plain
    measured = Measured(table_of(made), settings)
    text = summary_markdown(measured, name="x", figures=[], notes=[])
    assert "## Interventions: removing and replacing" in text


def test_names_of_methods_are_escaped() -> None:
    each = intervention("latent")
    odd = Intervention(**{**each.__dict__, "method": "a|<b>"})
    text = intervention_section(table_of([odd]), [odd], Aims()).markdown()
    assert "<b>" not in text


def test_curves_are_drawn_the_same_each_time(made: list[Intervention], tmp_path: Path) -> None:
    from matplotlib.text import Text

    here = [each for each in made if each.encoder == "clip" and each.seed == 0]
    figure: Any = coefficient_response(here)
    shown = " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")
    for part in ("removal: MS", "replacement: MS", "outside the object", "n = 40", "rror bars"):
        assert part in shown
    style.save(figure, tmp_path, "one", 60)
    style.save(coefficient_response(here[::-1]), tmp_path, "two", 60)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_line_is_the_mean_over_seeds() -> None:
    both = [intervention("latent", seed=seed) for seed in (0, 1)]
    figure: Any = coefficient_response(both)
    heights = figure.axes[0].containers[0].lines[0].get_ydata()
    at = [p.ms.value or 0.0 for each in both for p in each.result.curve if p.variant == "object"]
    expected = [(a + b) / 2 for a, b in zip(at[:4], at[4:], strict=True)]
    assert heights == pytest.approx(expected)
    style.setup().close(figure)


def test_the_line_is_at_the_chosen_blocks() -> None:
    few, more = (0,), (0, 1)
    items = [
        scored(image, None, "object", coefficient, int(image < hits), blocks)
        for blocks, hits_by in ((few, (1, 2)), (more, (3, 4)))
        for coefficient, hits in zip((1.0, 2.0), hits_by, strict=True)
        for image in range(5)
    ]
    base = intervention("latent")
    facts = {"method": "latent", "space": "stream", "how": "subtract", "judge_name": "lexical"}
    drawn = {"n_attributes": 0, "seed": 0, "resamples": 20, "level": 0.9}
    result = intervention_figures("remove", items, items, **facts, **drawn)
    figure: Any = coefficient_response([Intervention(**{**base.__dict__, "result": result})])
    heights = figure.axes[0].containers[0].lines[0].get_ydata()
    assert list(heights) == [3 / 5, 4 / 5]
    note = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "each line at the blocks chosen with it" in note
    style.setup().close(figure)


def test_no_interventions_no_figure() -> None:
    assert coefficient_response([]) is None
