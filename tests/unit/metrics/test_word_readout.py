"""Figures of readouts by words on three images of two patches, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vista.judges.kinds.lexical import LexicalJudge
from vista.metrics.matching_rate.measure import JudgeFunction
from vista.metrics.word_readout import (
    UNMASKED,
    LayerWords,
    ReadLayer,
    WordReadoutResult,
    ranked_words,
    word_readout_figures,
)

WORDS = ["", "cat", "cats", "dog", "grass", "the"]
PATCHES = [["cat", None], ["dog", "dog"], ["cat", None]]
OBJECTS = [["cat"], ["dog", "cat"], ["cat"]]
# Images x patches x the two likeliest words.
SAID = [[[4, 2], [4, 3]], [[3, 5], [4, 5]], [[3, 5], [4, 5]]]


def figures(max_image_share: float = 0.9) -> WordReadoutResult:
    probability = np.array([[[0.6, 0.1], [0.5, 0.2]], [[0.9, 0.05], [0.8, 0.1]], [[0.7, 0.2]] * 2])
    entry = LayerWords(np.array(SAID, np.int32), probability.astype(np.float32))
    return scored({1: ranked_words(entry, WORDS, max_image_share, 2)}, max_image_share, (1, 2))


def scored(
    layers: dict[int, ReadLayer],
    max_image_share: float,
    ks: tuple[int, ...],
    judge: JudgeFunction | None = None,
) -> WordReadoutResult:
    return word_readout_figures(
        layers,
        PATCHES,
        OBJECTS,
        judge or LexicalJudge().judge,
        readout="logit_lens",
        judge_name="lexical",
        n_one_token=2,
        ks=ks,
        max_image_share=max_image_share,
        seed=0,
        resamples=50,
        level=0.9,
    )


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
    rates = of_layer(figures(), None)
    # "grass", the likeliest of a patch in all images, is masked: what is left are "dog" and "cats"
    # (.2 against .1) in the first, "dog" and "the" in the others.
    assert rates["lens_matching_rate", 1] == pytest.approx(1 / 3)
    assert rates["lens_matching_rate", 2] == pytest.approx(2 / 3)
    unmasked = of_layer(figures(1.0), None)
    assert unmasked["lens_matching_rate", 2] == pytest.approx(1 / 3)
    assert unmasked["lens_eligible_words", None] == 1
    assert rates["lens_eligible_words", None] == pytest.approx(5 / 6)


def test_each_readout_is_scored_without_the_mask_too() -> None:
    """By a column, so that one is never read for the other; once where the mask hides nothing."""
    unmasked = of_layer(figures(1.0), None)
    assert of_layer(figures(0.9), UNMASKED) == {
        key: value for key, value in unmasked.items() if key[0] != "lens_patches_named"
    }
    assert of_layer(figures(1.0), UNMASKED) == {}
    assert {row.method for row in figures().figures()} == {"logit_lens"}


def of_layer(result: WordReadoutResult, of: str | None) -> dict[tuple[str, int | None], Any]:
    rows = [row for row in result.figures() if row.layer == 1 and row.of == of]
    return {(row.metric, row.k): row.value for row in rows}


def test_the_stream_that_enters_block_0_is_no_part_of_the_mean_over_layers() -> None:
    """Layer -1 reads all objects, layer 1 none."""
    strength = np.full((3, 2, 1), 0.5, np.float32)
    right, wrong = ([[[w]] * 2 for w in row] for row in ((1, 3, 1), (5, 5, 5)))
    layers = {
        layer: ranked_words(LayerWords(np.array(word, np.int32), strength), WORDS, 1.0, 1)
        for layer, word in ((-1, right), (1, wrong))
    }
    result = scored(layers, 1.0, (1,))
    rate = {row.layer: row.value for row in result.figures() if row.metric == "lens_matching_rate"}
    assert rate == {-1: 1.0, 1: 0.0, None: 0.0}
    named = {row.layer: row.value for row in result.figures() if row.metric == "lens_patches_named"}
    assert named == {-1: 1.0, 1: 0.0}


def test_a_missing_word_and_a_latent_without_a_label_name_nothing() -> None:
    """Even by a judge to whom every text means every object."""
    entry = LayerWords(np.zeros((3, 2, 1), np.int32), np.ones((3, 2, 1), np.float32))
    read = ranked_words(entry, WORDS, 1.0, 1)
    missing = np.array([[[-1]] * 2, [[0]] * 2, [[1]] * 2], np.int32)
    labels = [None, "a label"]
    (part,) = scored(
        {0: replace(read, words=[*labels, *[None] * 4], word_bpk=missing)},
        1.0,
        (1,),
        lambda texts, names: np.ones((len(texts), len(names)), bool),
    ).patches
    # Of four covered patches that of the third image alone.
    assert (part.named[1].value, part.named[1].n) == (0.25, 4)
