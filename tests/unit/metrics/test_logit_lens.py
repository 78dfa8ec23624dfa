"""Figures of the logit lens on three images of two patches, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vista.judges.kinds.lexical import LexicalJudge
from vista.metrics.logit_lens.measure import LayerWords, LogitLensResult, logit_lens_figures

WORDS = ["", "cat", "cats", "dog", "grass", "the"]
PATCHES = [["cat", None], ["dog", "dog"], ["cat", None]]
OBJECTS = [["cat"], ["dog", "cat"], ["cat"]]
# Images x patches x the two likeliest words.
SAID = [[[4, 2], [4, 3]], [[3, 5], [4, 5]], [[3, 5], [4, 5]]]


def figures(max_image_share: float = 0.9) -> LogitLensResult:
    probability = np.array([[[0.6, 0.1], [0.5, 0.2]], [[0.9, 0.05], [0.8, 0.1]], [[0.7, 0.2]] * 2])
    return logit_lens_figures(
        {1: LayerWords(np.array(SAID, np.int32), probability.astype(np.float32))},
        WORDS,
        PATCHES,
        OBJECTS,
        LexicalJudge().judge,
        judge_name="lexical",
        n_one_token=2,
        ks=(1, 2),
        max_image_share=max_image_share,
        seed=0,
        resamples=50,
        level=0.9,
    )


def values(result: LogitLensResult, of: str | None = None) -> dict[tuple[str, int | None], Any]:
    rows = [row for row in result.figures() if row.layer == 1 and row.of == of]
    return {(row.metric, row.k): row.value for row in rows}


def test_patches_name_their_object_with_the_words_of_rank_k() -> None:
    (part,) = figures().patches
    one, two = part.named[1], part.named[2]
    # Likeliest: "grass" on the cat, "dog" and "grass" on the dog, "dog" on the cat.
    assert (one.value, one.n) == (0.25, 4)
    # Others' patches that "dog" names: of image 1 none of two cats, of image 2 two of three.
    assert one.chance == pytest.approx((0 + 0 + 0 + 2 / 3) / 4)
    # The plural names it as well: "cats" is second on the first cat, and right for one of three.
    assert two.value == 0.5
    assert two.chance == pytest.approx((1 / 3 + 0 + 0 + 2 / 3) / 4)


def test_images_are_ranked_by_probability_without_the_words_of_most_images() -> None:
    rates = values(figures())
    # "grass", the likeliest of a patch in all images, is masked: what is left are "dog" and "cats"
    # (.2 against .1) in the first, "dog" and "the" in the others.
    assert rates["lens_matching_rate", 1] == pytest.approx(1 / 3)
    assert rates["lens_matching_rate", 2] == pytest.approx(2 / 3)
    unmasked = values(figures(1.0))
    assert unmasked["lens_matching_rate", 2] == pytest.approx(1 / 3)
    assert unmasked["lens_eligible_words", None] == 1
    assert rates["lens_eligible_words", None] == pytest.approx(5 / 6)


def test_the_lens_without_its_mask_stands_beside_that_with_it() -> None:
    result, other = figures(), figures(1.0)
    beside = values(result, "unmasked")
    for metric in ("lens_matching_rate", "lens_matching_gain", "lens_object_recall"):
        for k in (1, 2):
            assert beside[metric, k] == values(other)[metric, k]
    assert beside["lens_matching_rate", 2] == pytest.approx(1 / 3)
    (gap,) = (
        row for row in result.figures() if row.metric == "lens_mask_difference" and row.k == 2
    )
    assert (gap.of, gap.layer) == ("unmasked", None)
    assert gap.value == pytest.approx(1 / 3 - 2 / 3)
