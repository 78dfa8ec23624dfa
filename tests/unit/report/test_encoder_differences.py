"""Differences between encoders, paired over images: planted items whose differences are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.published import publish
from vista.config.report import ReportSettings
from vista.engine.artifacts import Artifact
from vista.metrics.figure import Figure
from vista.report.encoder_differences import (
    encoder_differences,
    is_ranking,
    pointing_rates,
    rankings_section,
)
from vista.report.shown import Measured, MetricPlace
from vista.report.table import LongTable

N = 40
Measurement = tuple[MetricPlace, Artifact]


def place(metric: str, encoder: str, seed: int = 0, **columns: Any) -> MetricPlace:
    point = {"llm": "m", "sae_weight": 1.0} | columns
    return MetricPlace(metric=metric, encoder=encoder, seed=seed, **point)


def measured(root: Path, items: dict[str, Any], result: dict[str, Any] | None = None) -> Artifact:
    def write(work: Path) -> None:
        pq.write_table(pa.table(items), work / "items.parquet")
        (work / "result.json").write_text(json.dumps(result or {}))

    return publish(root, f"metric/n{len(list(root.glob('metric/*')))}", write)


def matching(root: Path, matched: Sequence[bool | None]) -> Artifact:
    """Image i matches on both of its layers, or on none of them."""
    items = {
        "image_id": [f"i{i}" for i in range(len(matched)) for _ in range(2)],
        "matched@3": pa.array([value for value in matched for _ in range(2)], pa.bool_()),
    }
    return measured(root, items, {"top_k": 3})


def share(n: int, of: int = N) -> list[bool | None]:
    """The first n images match: two such lists agree but for the images between."""
    return [i < n for i in range(of)]


def by_seed(figures: Sequence[Figure]) -> dict[int | None, Figure]:
    return {f.seed: f for f in figures}


def test_a_planted_difference_is_the_encoder_minus_the_second_one(tmp_path: Path) -> None:
    metrics = [
        (place("matching_rate", "siglip"), matching(tmp_path, share(30))),
        (place("matching_rate", "clip"), matching(tmp_path, share(10))),
    ]
    found = encoder_differences(metrics)
    assert set(by_seed(found)) == {0, None}
    for f in found:
        assert (f.metric, f.of, f.k, f.stage) == (
            "encoder_difference",
            "matching_rate",
            3,
            "matching_rate",
        )
        assert (f.encoder, f.method, f.llm, f.sae_weight) == ("clip", "siglip", "m", 1.0)
        assert (f.value, f.n) == (-0.5, N)
        assert f.ci_low is not None
        assert f.ci_high is not None
        assert f.ci_low < -0.5 < f.ci_high < 0
        assert is_ranking(f)


def test_the_interval_is_that_of_paired_images(tmp_path: Path) -> None:
    """Both rates vary over images, their difference does not: unpaired they would overlap."""
    half = [i % 2 == 0 for i in range(N)]
    more = [half[i] or i == 1 for i in range(N)]
    metrics = [
        (place("matching_rate", name), matching(tmp_path, matched))
        for name, matched in (("a", more), ("b", half))
    ]
    whole = by_seed(encoder_differences(metrics))[None]
    assert whole.value == pytest.approx(1 / N)
    assert whole.ci_high is not None
    assert whole.ci_high <= 4 / N
    assert whole.ci_low == 0  # One image of 40 is no ranking.
    assert not is_ranking(whole)


def test_an_image_that_one_encoder_lacks_is_left_out(tmp_path: Path) -> None:
    """`b` has no value of the last ten images, all of which `a` matches."""
    some: list[bool | None] = [*share(0, N - 10), *[None] * 10]
    metrics = [
        (place("matching_rate", "a"), matching(tmp_path, [i >= 20 for i in range(N)])),
        (place("matching_rate", "b"), matching(tmp_path, some)),
    ]
    for f in encoder_differences(metrics):
        assert f.n == N - 10
        assert f.value == pytest.approx(10 / 30)


def test_seeds_are_averaged_over_those_that_both_encoders_have(tmp_path: Path) -> None:
    shares = {("a", 0): 30, ("a", 1): 20, ("a", 2): 40, ("b", 0): 10, ("b", 1): 16}
    metrics = [
        (place("matching_rate", name, seed), matching(tmp_path, share(n)))
        for (name, seed), n in shares.items()
    ]
    found = by_seed(encoder_differences(metrics))
    values = {seed: f.value for seed, f in found.items()}
    assert values == pytest.approx({0: 0.5, 1: 0.1, None: 0.3})
    assert found[None].n == N


def test_only_points_as_run_of_one_llm_and_weight_are_compared(tmp_path: Path) -> None:
    rate = matching(tmp_path, share(20))
    metrics = [
        (place("matching_rate", "a"), rate),
        (place("matching_rate", "b", control="text_scale"), rate),
        (place("matching_rate", "b", llm="other"), rate),
        (place("matching_rate", "b", sae_weight=0.0), rate),
        (place("matching_rate", "b", seed=7), rate),
        (place("reconstruction", "b"), rate),
    ]
    assert encoder_differences(metrics) == []


def test_the_pointing_game_counts_an_image_once(tmp_path: Path) -> None:
    turns = {"image_id": ["x", "x", "x", "y"], "hit": [True, False, False, True]}
    assert pointing_rates(measured(tmp_path, turns)) == {"x": pytest.approx(1 / 3), "y": 1.0}
    images = [f"i{i}" for i in range(N)]
    sides = {
        "a": {"image_id": images + images, "hit": [True] * N + [False] * N},
        # The first half has no turn; in the second none hits.
        "b": {"image_id": images[N // 2 :], "hit": [False] * (N // 2)},
    }
    metrics = [(place("localization", name), measured(tmp_path, of)) for name, of in sides.items()]
    whole = by_seed(encoder_differences(metrics))[None]
    assert (whole.of, whole.k, whole.value, whole.n) == ("pointing_game", None, 0.5, N // 2)


def section_of(metrics: Sequence[Measurement]) -> tuple[list[list[str]], str]:
    controls = LongTable(encoder_differences(metrics))
    section = rankings_section(Measured(LongTable(()), ReportSettings(), controls=controls))
    return [list(row) for row in section.grids[0].rows], section.markdown()


def test_a_tie_is_no_ranking(tmp_path: Path) -> None:
    """`b` and `c` differ in one image of 40; both are far behind `a`."""
    shares = {"b": 11, "c": 10, "a": 40}
    metrics = [
        (place("matching_rate", name, seed), matching(tmp_path, share(n)))
        for name, n in shares.items()
        for seed in (0, 1)
    ]
    rows, text = section_of(metrics)
    ranked = {(row[3], row[4]): row[6] for row in rows}
    assert ranked == {("a", "b"): "yes", ("a", "c"): "yes", ("b", "c"): "no"}
    assert "2 of 3 differences are rankings." in text
    first = rows[0]
    assert first[:3] == ["matching rate@3", "m", "1"]
    assert first[5].startswith("0.725 [")
    assert first[5].endswith("; 0.725, 0.725")
    assert first[7:] == ["2", str(N)]


def test_equal_encoders_and_too_few_images_are_no_ranking(tmp_path: Path) -> None:
    equal = [(place("matching_rate", name), matching(tmp_path, share(20))) for name in ("a", "b")]
    few = [
        (place("matching_rate", name), matching(tmp_path, share(n, 5)))
        for name, n in (("a", 5), ("b", 0))
    ]
    for metrics in (equal, few):
        (row,), _ = section_of(metrics)
        assert row[6] == "no"


def test_of_many_encoders_the_pairs_with_the_best_are_shown(tmp_path: Path) -> None:
    shares = dict(zip("abcde", (5, 10, 40, 20, 15), strict=True))
    metrics = [
        (place("matching_rate", name), matching(tmp_path, share(n))) for name, n in shares.items()
    ]
    assert len(encoder_differences(metrics)) == 2 * 10  # The table has all pairs.
    rows, text = section_of(metrics)
    assert [(row[3], row[4]) for row in rows] == [("c", name) for name in "deba"]
    assert "More than 4 encoders: only pairs with the best." in text
    assert "More than" not in section_of(metrics[:4])[1]
