"""Attributes in images: names, order and held-out AUROC of latents, on tables small enough to
count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vista.metrics.discovery import attribute_discovery
from vista.metrics.image_attributes import measure as image_attributes
from vista.metrics.image_attributes.measure import (
    NAMELESS,
    Captioned,
    ImageAttributesResult,
    discover,
    frequent_words,
    name_aurocs,
    name_latents,
    numbered,
    true_values,
)
from vista.metrics.selectivity import most_varying, word_matrix

WORDS = ("a", "and", "blue", "red")
# Ten images: all say "a", six "and", two "blue", three "red".
SAID = [{"a", *("and",) * (n < 6), *("blue",) * (n in (0, 9)), *("red",) * (5 <= n < 8)}
        for n in range(10)]  # fmt: skip


def seen(*fires: list[int], said: list[set[str]] = SAID) -> Captioned:
    """Latents that fire on these images, the first most."""
    score_ns = np.zeros((10, len(fires)), np.float32)
    for s, images in enumerate(fires):
        score_ns[images, s] = np.arange(len(images), 0, -1)
    return Captioned(score_ns, word_matrix(said, WORDS))


def names(found: np.ndarray[Any, Any]) -> list[str | None]:
    return [None if at == NAMELESS else WORDS[at] for at in found.tolist()]


def test_words_of_enough_images() -> None:
    assert (
        frequent_words(SAID, 3) == ["a", "and", "red"] and tuple(frequent_words(SAID, 1)) == WORDS
    )
    matrix = word_matrix([{"red", "the"}, set()], WORDS)
    assert matrix.tolist() == [[False, False, False, True], [False] * 4]
    given = {"colour": ("blue", "red", "pink"), "ground": ("sand",)}
    assert true_values(given, WORDS) == {"colour": ("blue", "red")}


def test_a_name_is_said_more_often_of_the_top_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # Parts of two latents: no name depends on the part that its latent is in.
    monkeypatch.setattr(image_attributes, "_PART", 2)
    found = seen(
        [5, 6, 7],  # every word but red is as frequent elsewhere
        [1, 2, 3, 4],  # a function word, said of more of these than of others
        [0, 9],  # on too few
        [5, 6, 7, 1, 2, 3, 4],  # red alone, of its three top images
        list(range(10)),
    )
    assert names(name_latents(found, top_k=3, min_images=3)) == ["red", "and", None, "red", "and"]
    # Fewer images than top_k: those that do not fire do not speak.
    assert names(name_latents(found, top_k=10, min_images=2))[:3] == ["red", "and", "blue"]
    # What fires on all of them alike is named by what is said of all.
    assert names(name_latents(found, top_k=10, min_images=3))[4] == "a"


def test_own_auroc_counts_pairs_and_needs_images() -> None:
    found = seen([5, 6, 1], [5, 6, 7], [0], [0])
    name_s = np.array([3, 3, 0, NAMELESS])
    auroc_s = name_aurocs(found, name_s, 1)
    # Three with "red": two above all but none, one (0) level with six of seven.
    assert auroc_s[:2] == pytest.approx([(7 + 7 + 3) / 21, 1.0])
    # "a" is said of every image: there is nothing to separate.
    assert np.isnan(auroc_s[2:]).all() and np.isnan(name_aurocs(found, name_s, 4)).all()


def both(
    fit: Captioned, rank: Captioned, held: Captioned, **changes: Any
) -> list[tuple[int, str | None, float]]:
    options = {"words": WORDS, "most": 9, "top_k": 3, "min_images": 2} | changes
    return [(p.latent, p.name, round(p.auroc, 3)) for p in discover(fit, rank, held, **options)]


def test_named_ranked_and_verified_on_images_of_their_own() -> None:
    fit = seen([5, 6, 7], [0, 9], [1, 2, 3], [9, 0])
    rank = seen([1, 2], [0, 9], [8, 9], [0, 9])
    held = seen([5, 6, 7], [1, 2], [1], [3])
    assert both(fit, rank, held) == [
        (1, "blue", 0.375),  # best on `rank` alone; of equal ones with a name the first
        (0, "red", 1.0),
        (2, "and", 0.583),
    ]
    # Names come from `fit`: where other words are said of its images, others are verified.
    told = [SAID[9 - n] for n in range(10)]
    assert both(seen([2, 3, 4], said=told), rank, held)[0][1] == "red"
    assert both(fit, rank, held, most=1) == [(1, "blue", 0.375)]
    # Latents that fire on three of ten images are left.
    assert [each[0] for each in both(fit, rank, held, shares=(0.0, 0.2))] == [1]
    assert [each[0] for each in both(fit, rank, held, shares=(0.3, 1.0))] == [0, 2]
    drawn = both(fit, rank, held, at_random=np.random.default_rng(1))
    assert sorted(name or "" for _, name, _ in drawn) == ["and", "blue", "red"]
    assert [each[0] for each in drawn] != [1, 0, 2]


def test_names_that_others_gave() -> None:
    found = seen([5, 6, 7], [0], [1, 2], [1, 2, 3, 4, 5, 6])
    chosen = most_varying(found.score_ns, (0.1, 0.5), 2, 9)
    assert chosen.tolist() == [0, 2] and most_varying(found.score_ns, (0, 1), 1, 1).tolist() == [3]
    words, name_s = numbered(["red", None], chosen, 4)
    assert words == ["red"] and name_s.tolist() == [0, NAMELESS, NAMELESS, NAMELESS]
    # "and" in the place of "red", which is the name of its top images.
    assert both(found, found, found, name_s=np.where(name_s == 0, 1, name_s)) == [(0, "and", 0.375)]
    assert discover(found, found, found, words=[], most=9, top_k=3, min_images=2) == []
    # A name of two words is said where both are.
    assert word_matrix(SAID, ["and red"]).ravel().tolist() == [n == 5 for n in range(10)]


def test_words_are_permuted_whole_and_activations_stay() -> None:
    before = seen([5, 6, 7])
    after = before.permuted(np.random.default_rng(0))
    assert after.score_ns is before.score_ns
    assert (after.word_nw != before.word_nw).any()
    assert sorted(after.word_nw.tolist()) == sorted(before.word_nw.tolist())


def test_rows_name_their_dictionary() -> None:
    result = attribute_discovery([], [], {"hue": ("red",)}, min_auroc=0.9, min_gain=1, level=0.9)
    rows = ImageAttributesResult(
        images={}, dictionaries={"sae": result, "random": result}
    ).figures()
    assert [(row.metric, row.set) for row in rows if row.of == "sae"] == [
        *(("discovery_precision", None), ("discovery_verified", None)),
        *(("discovery_verified_precision", None), ("discovery_correct", None)),
        *(("discovery_recall", "hue"), ("discovery_recall", "all")),
    ]
    assert len(rows) == 12
