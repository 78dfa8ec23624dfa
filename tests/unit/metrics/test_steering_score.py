"""Answers to steered blank images: scores by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vista.config.steering_labels import SteeringLabelSettings
from vista.metrics.steering_score import SteeringScoreSettings
from vista.metrics.steering_score.measure import steering_score
from vista.metrics.steering_score.report import steering_score_section
from vista.report.table import LongTable

CLASSES = ["cat", "dog", "star"]
CLASS_CV = np.eye(3) * 5


def test_scores_and_names_by_hand() -> None:
    # Top images: cat, dog, half cat and half dog, star. The last answer names no class.
    top = np.array([[2.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 3]])
    half = 0.5**0.5
    result, cosine = steering_score(
        ["cat", "cat", "dog", None],
        "star",
        ["cat", "dog", None, "star"],
        CLASSES,
        CLASS_CV,
        top,
        (0, 50, 0.95),
    )
    assert cosine == pytest.approx([1, 0, half, 0])
    score, named, gain = result.score, result.named, result.gain
    assert (score["steered"].value, score["steered"].n) == (pytest.approx((1 + half) / 4), 4)
    assert score["blank"].value == pytest.approx(1 / 4)  # star fits the last one alone
    assert gain["blank"].value == pytest.approx(half / 4)
    # The other answers, by latent: (cat, dog), (cat, dog), (cat, cat), (cat, cat, dog); star: 0.
    others = [1 / 3, 1 / 3, 2 * half / 3, 0]
    assert score["steered"].chance == pytest.approx(np.mean(others))
    assert gain["shuffled"].value == pytest.approx(np.mean(cosine) - np.mean(others))
    assert (named["steered"].value, named["steered"].n) == (pytest.approx(1 / 3), 3)
    assert named["steered"].chance == pytest.approx(2 * 1 / 9)  # cat twice among the answers
    assert named["blank"].value == pytest.approx(1 / 3)
    text = steering_score_section(LongTable(result.figures())).markdown()
    assert "steered" in text and "blank" in text


def test_one_latent_has_no_other_to_be_shuffled_with() -> None:
    result, _ = steering_score(
        ["cat"], None, [None], CLASSES, CLASS_CV, np.ones((1, 3)), (0, 50, 0.95)
    )
    assert result.score["blank"].value == 0
    assert result.score["steered"].chance is None
    assert result.gain["shuffled"].n == result.named["steered"].n == 0


def test_an_answer_is_not_chosen_among_coefficients() -> None:
    with pytest.raises(ValueError, match="give one"):
        SteeringScoreSettings(steering=SteeringLabelSettings(coefficients=(4.0, 16.0)))
