"""Captions: recall, hallucinations and cross-entropy counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vista.judges import load_judge
from vista.metrics.caption.measure import CaptionItems, CaptionResult, caption_figures

VOCABULARY = ["cat", "dog", "umbrella", "cow"]


def measure(
    captions: list[str], objects: list[list[str]], **changed: Any
) -> tuple[CaptionResult, CaptionItems]:
    settings: dict[str, Any] = {
        "loss_b": np.ones(len(captions)),
        "tokens_b": np.ones(len(captions)),
        "vocabulary": VOCABULARY,
        "judge_name": "lexical",
        "seed": 0,
        "resamples": 200,
        "level": 0.95,
    }
    judge = load_judge("lexical").judge
    return caption_figures(captions=captions, objects=objects, judge=judge, **(settings | changed))


def test_counted_by_hand() -> None:
    captions = ["a red cat and a dog on grass", "two cows", "a category of kittens", "nothing"]
    objects = [["cat", "umbrella"], ["cow"], ["cat"], ["dog"]]
    result, items = measure(captions, objects)
    assert items.recall_b.tolist() == [0.5, 1.0, 1.0, 0.0]
    assert items.mentions_b.tolist() == [2, 1, 1, 0]
    assert items.hallucinated_b.tolist() == [1, 0, 0, 0]
    assert result.object_recall.value == pytest.approx(2.5 / 4)
    assert result.one_object_named.value == pytest.approx(2 / 3)
    assert result.one_object_named.n == 3
    assert result.hallucinated_mentions.value == pytest.approx(1 / 4)
    assert result.hallucinated_mentions.n == 4
    assert result.hallucinating_captions.value == pytest.approx(1 / 4)
    # One-object images: "cow" and "cat" named, against the two others' objects: none fits.
    assert result.one_object_named.chance == 0.0
    # Mentions against all others: {cat,dog} vs cow, cat, dog -> 2+1+1; cow -> 3; cat -> 1+... .
    assert result.hallucinated_mentions.chance == pytest.approx((4 + 3 + 2) / 3 / 4)


def test_two_of_a_kind_is_not_a_one_object_image() -> None:
    result, _ = measure(["a cat", "a cat"], [["cat", "cat"], ["cat"]])
    assert result.one_object_named.n == 1
    assert result.one_object_named.chance is None
    assert result.object_recall.value == 1.0


def test_a_class_that_no_image_has_can_be_hallucinated() -> None:
    result, _ = measure(["a cow", "a cat"], [["cat"], ["cat"]])
    assert result.hallucinating_captions.value == 0.5
    assert result.n_categories == 4


def test_cross_entropy_is_per_token_and_skips_images_without_reference() -> None:
    result, _ = measure(
        ["a cat"] * 3,
        [["cat"]] * 3,
        loss_b=np.array([10.0, 2.0, 0.0]),
        tokens_b=np.array([10, 1, 0]),
        shuffled_loss_b=np.array([20.0, 13.0, 0.0]),
    )
    assert result.cross_entropy.value == pytest.approx(12 / 11)
    assert result.cross_entropy.chance == pytest.approx(3.0)
    assert result.cross_entropy.n == 2


def test_images_without_objects_are_not_judged() -> None:
    result, items = measure(["a cat", "a cat"], [[], ["cat"]])
    assert result.n_with_objects == 1
    assert np.isnan(items.recall_b[0])
    assert result.hallucinated_mentions.value == 0.0


def test_independent_captions_stay_at_the_shuffled_level() -> None:
    rng = np.random.default_rng(0)
    captions = [f"a {VOCABULARY[c]}" for c in rng.integers(0, 4, 800)]
    objects = [[VOCABULARY[c]] for c in rng.integers(0, 4, 800)]
    result, _ = measure(captions, objects)
    named = result.one_object_named
    assert named.ci_low is not None
    assert named.ci_high is not None
    assert named.chance is not None
    assert named.ci_low - 0.01 < named.chance < named.ci_high + 0.01


def test_no_caption_with_objects_leaves_figures_undefined() -> None:
    result, _ = measure(["", ""], [[], []])
    assert result.object_recall.value is None
    assert result.hallucinated_mentions.value is None
    assert {row.n for row in result.figures() if row.metric != "caption_cross_entropy"} == {0}


def test_a_name_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="bus"):
        measure(["a cat"], [["bus"]])


def test_groups_are_measured_apart_against_their_own_images() -> None:
    captions = ["a cat", "a dog", "a dog", "a cow", "a cow", "nothing"]
    objects = [["cat"], ["dog"], ["cat"], ["cow"], ["dog"], ["dog"]]
    groups = ["seen", "seen", "new", "new", "new", None]
    loss = {"loss_b": np.array([1.0, 3, 4, 5, 9, 0]), "tokens_b": np.array([1, 1, 2, 2, 2, 1])}
    result, _ = measure(captions, objects, groups=groups, **loss)
    whole, _ = measure(captions, objects, **loss)
    assert result.one_object_named == whole.one_object_named
    assert list(result.groups) == ["new", "seen"]
    new, seen = result.groups["new"], result.groups["seen"]
    assert (new.one_object_named.value, new.one_object_named.n) == (pytest.approx(1 / 3), 3)
    assert (seen.one_object_named.value, seen.one_object_named.n) == (1.0, 2)
    # "a dog" is right of the third new image, "a cow" of the second: two of six pairs.
    assert new.one_object_named.chance == pytest.approx(2 / 6)
    assert seen.one_object_named.chance == 0.0
    assert new.cross_entropy.value == pytest.approx(18 / 6)
    assert seen.cross_entropy.value == pytest.approx(4 / 2)
    rows = {(row.metric, row.set): row for row in result.figures()}
    assert len(rows) == len(result.figures()) == 3 * len(whole.figures())
    assert rows["caption_names_object", "new"].value == new.one_object_named.value
    assert rows["caption_cross_entropy", "seen"].token_kind == "text"


@pytest.mark.parametrize("groups", [None, [None, None], ["one", "one"]])
def test_without_groups_a_result_says_nothing_of_them(groups: list[str | None] | None) -> None:
    result, _ = measure(["a cat", "a dog"], [["cat"], ["dog"]], groups=groups)
    assert "groups" not in result.model_dump_json()
    assert {row.set for row in result.figures()} == {None}
