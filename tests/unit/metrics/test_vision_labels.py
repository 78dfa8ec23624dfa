"""Labellers of latents compared: planted activations, and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vista.metrics.figure import Figure
from vista.metrics.vision_labels.measure import compare_labellers
from vista.metrics.vision_labels.report import vision_labels_section
from vista.report.table import LongTable

CLASSES = tuple(f"class {c}" for c in range(8))
N = 160
PRESENT = np.eye(len(CLASSES), dtype=bool)[np.arange(N) % len(CLASSES)]
# Latents of each class, each class twice; of equal strength elsewhere.
OF = np.arange(16) % len(CLASSES)
SCORE = np.where(PRESENT[:, OF], 2.0, 0.5).astype(np.float32)
RIGHT = [CLASSES[c] for c in OF]


def compare(score: np.ndarray, labels: dict[str, list[str | None]], min_images: int = 5):  # type: ignore[type-arg, no-untyped-def]
    return compare_labellers(score, PRESENT, CLASSES, labels, min_images, seed=0, resamples=100)


def test_right_labels_are_told_from_shuffled_ones() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(SCORE.shape).astype(np.float32) * 0.3
    wrong = [CLASSES[(c + 1) % 8] for c in OF]
    result, auroc = compare(
        np.maximum(SCORE + noise, 0), {"top_images": wrong, "steering": RIGHT, "embedding": RIGHT}
    )
    assert result.auroc["steering"].value == pytest.approx(1, abs=1e-3)
    # A latent is strong on one eighth of the images, so a wrong class loses against that: 3 / 7.
    assert result.auroc["top_images"].value == pytest.approx(3 / 7, abs=0.03)
    # Of 15 other labels one is the latent's own and 14 are wrong.
    expected = (1 + 14 * 3 / 7) / 15
    assert result.auroc["shuffled"].value == pytest.approx(expected, abs=0.03)
    assert abs(expected - 0.5) < 0.04
    assert result.differences["top_images"].value == pytest.approx(4 / 7, abs=0.03)
    assert result.differences["top_images"].ci_low is not None
    assert result.differences["top_images"].ci_low > 0.5
    assert (result.agreement.value, result.agreement.n) == (0, 16)
    assert result.agreement.chance == pytest.approx(8 * 2 * 2 / 16**2)
    assert {estimate.n for estimate in result.auroc.values()} == {16}
    assert set(auroc) == {"top_images", "steering", "embedding", "shuffled"}


def test_the_shuffled_level_is_the_mean_over_permutations() -> None:
    rng = np.random.default_rng(1)
    score = rng.random((N, 4)).astype(np.float32)
    labels: list[str | None] = [CLASSES[0], CLASSES[1], None, CLASSES[3]]
    result, auroc = compare(score, {"top_images": labels, "steering": labels})
    named = [0, 1, 3]
    for latent in named:
        others = [
            compare(score[:, [latent]], {k: [labels[t]] for k in ("top_images", "steering")})[1]
            for t in named
            if t != latent
        ]
        mean = np.mean([other["steering"][0] for other in others])
        assert auroc["shuffled"][latent] == pytest.approx(mean)
    assert np.isnan(auroc["shuffled"][2])
    assert result.coverage["steering"].value == 0.75
    assert result.coverage["steering"].n == 4


def test_only_what_has_enough_images_counts() -> None:
    score = SCORE.copy()
    score[:, 0] = 0
    score[:4, 0] = 1  # fires in four images
    result, auroc = compare(score, {"top_images": RIGHT, "steering": RIGHT})
    assert np.isnan(auroc["steering"][0])
    assert result.auroc["steering"].n == 15
    assert (result.fit_latents, result.fit_classes) == (15, 8)
    # Every class is in 20 images.
    result, _ = compare(SCORE, {"top_images": RIGHT, "steering": RIGHT}, min_images=21)
    assert (result.auroc["steering"].value, result.auroc["steering"].n) == (None, 0)
    assert result.fit_classes == 0
    # A class that no held-out image shows is a label, but has no AUROC.
    unknown: list[str | None] = ["ghost"] * 16
    result, _ = compare(SCORE, {"top_images": RIGHT, "steering": unknown})
    assert (result.auroc["steering"].n, result.coverage["steering"].value) == (0, 1)
    assert (result.differences["top_images"].value, result.auroc["shuffled"].value) == (None, None)


def test_without_a_label_there_is_nothing_to_compare() -> None:
    result, _ = compare(SCORE, {"top_images": RIGHT, "steering": [None] * 16})
    assert result.coverage["steering"].value == 0
    assert (result.agreement.value, result.agreement.chance, result.agreement.n) == (None, None, 0)
    assert result.auroc["top_images"].value == 1
    assert len(result.figures()) == 7


def test_the_section_names_each_labeller() -> None:
    result, _ = compare(SCORE, {"top_images": RIGHT, "steering": RIGHT, "embedding": RIGHT})
    place = {"encoder": "dinov2", "llm": "gemma2", "sae_weight": 1.0, "seed": 0, "method": "topk"}
    figures = [Figure(**{**figure.record(), **place}) for figure in result.figures()]
    section = vision_labels_section(LongTable(figures))
    first, second = section.grids
    assert [row[4] for row in first.rows] == [
        *("top images", "steering", "nearest embedding", "steering, shuffled"),
    ]
    assert all(len(row) == len(first.header) for row in first.rows)
    assert [row[5] for row in first.rows[:3]] == ["1.000"] * 3
    assert all(len(row) == len(second.header) for row in second.rows)
    assert [row[4:6] for row in second.rows] == [
        ["top images", "0.000"],
        ["nearest embedding", "0.000"],
    ]
    assert not vision_labels_section(LongTable([])).grids[0].rows
