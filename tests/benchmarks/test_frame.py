"""How figures are made out of runs, and the page that they stand on. No time is asserted."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.case import Case, Limit, measure
from benchmarks.results import markdown


def costs(*values: float) -> Callable[[], float]:
    left = iter(values)
    return lambda: next(left)


def test_sides_take_turns_and_a_ratio_is_that_of_one_turn() -> None:
    # What runs before the first turn does not count.
    case = Case("c", "w", costs(99, 1, 2, 4), costs(99, 10, 10, 10), bar=5)
    found = measure(case, runs=3)
    assert (found["ratio"], found["spread"], found["n"]) == (5, [2.5, 10], 3)
    assert (found["ours"], found["usual"], found["met"]) == (2, 10, True)


def test_at_most_turns_the_ratio_round_and_without_a_usual_way_it_is_our_cost() -> None:
    more = measure(Case("c", "w", costs(0, 5), costs(0, 4), bar=1.2, at_most=True), runs=1)
    assert (more["ratio"], more["met"]) == (1.25, False)
    alone = measure(Case("c", "w", costs(0, 5), bar=5, at_most=True), runs=1)
    assert (alone["ratio"], alone["met"]) == (5, True)


def test_bytes_are_counted_once() -> None:
    found = measure(Case("c", "w", costs(3), costs(12), bar=2, unit="bytes"), runs=9)
    assert (found["ratio"], found["n"], found["met"]) == (4, 1, True)


def test_the_page_says_what_is_met_and_what_is_open(tmp_path: Path) -> None:
    limit = Limit(0.5, "copying")
    rows = [
        measure(Case("slow", "10 images", costs(0, 2), costs(0, 3), bar=2, limit=limit), runs=1),
        measure(Case("start", "", costs(0, 1), bar=1.5, at_most=True), runs=1),
    ]
    content = {"machine": {"cores": 2}, "parts": {"some": rows}}
    (tmp_path / "results.json").write_text(json.dumps(content))
    page = markdown(tmp_path)
    assert (
        "| slow | 10 images | 3 s | 2 s | 1.5 | 1.5 .. 1.5 | 1 | >= 2 | **no** | 500 ms: cop"
        in page
    )
    assert "| start |  |  | 1 s | 1 s | 1 s .. 1 s | 1 | <= 1.5 s | yes |" in page
    assert "not measured on any accelerator yet" in page


def test_the_accelerator_script_runs_on_any_machine(tmp_path: Path) -> None:
    from benchmarks import gpu

    found = gpu.measure(
        argparse.Namespace(
            sizes="tiny", device="cpu", dtype="bfloat16", steps=1, images=4,
            new_tokens=2, micro_batch=2, layers=None,
        )
    )  # fmt: skip
    assert {part for part in found["parts"] if "SAE" in part} == {
        "train, no SAE term",
        "train, SAE term in bfloat16",
        "train, SAE term in float32",
    }
    assert all(part["seconds"] > 0 for part in found["parts"].values())
    assert found["parts"]["latents"]["layers"] == 6
    # The page reads what the script writes.
    (tmp_path / "results.json").write_text(json.dumps({"machine": {}, "parts": {}}))
    (tmp_path / "gpu.json").write_text(json.dumps(found))
    assert "| train, no SAE term | 2 |" in markdown(tmp_path)
