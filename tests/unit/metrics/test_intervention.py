"""Removal and replacement: scores by hand, the choice of a coefficient, paired differences."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vista.judges import load_judge
from vista.metrics.intervention.captions import (
    EditedCaption,
    ItemKey,
    Scored,
    Shown,
    score_captions,
    shown_by,
)
from vista.metrics.intervention.choice import ControlOf, choose_edits
from vista.metrics.intervention.measure import (
    EditFigures,
    InterventionResult,
    intervention_figures,
    paired_ms_difference,
    shared_items,
)

OBJECTS = ["cat", "dog", "person", "umbrella", "hot dog"]
ATTRIBUTES = ["red", "blue", "grass", "sand"]
SHOWN = {"a": Shown(frozenset({"cat"}), frozenset({"red", "grass"}))}
JUDGE = load_judge("lexical").judge
DRAWS: dict[str, Any] = {"seed": 0, "resamples": 50, "level": 0.95}
FACTS: dict[str, Any] = {
    "method": "latent",
    "space": "stream",
    "how": "subtract",
    "judge_name": "lexical",
    "n_attributes": 0,
}


def pair(
    before: str,
    after: str,
    target: str | None = None,
    *,
    image: str = "a",
    variant: str = "object",
    coefficient: float = 2.0,
    found: bool = True,
    losses: tuple[float, float] = (0.0, 0.0),
    tokens: int = 0,
) -> list[EditedCaption]:
    plain = EditedCaption(
        image, "cat", target, "none", 0.0, None, before, found, losses[0], loss_tokens=tokens
    )
    edited = replace(
        plain, variant=variant, coefficient=coefficient, caption=after, loss_sum=losses[1]
    )
    return [plain, edited]


def one(before: str, after: str, target: str | None = None, **more: Any) -> Scored:
    (scored,) = score_captions(
        pair(before, after, target, **more), SHOWN, OBJECTS, JUDGE, ATTRIBUTES
    )
    return scored


@pytest.mark.parametrize(
    ("before", "after", "target", "score"),
    [
        ("a cat on grass", "nothing on grass", None, 2),
        ("a red cat", "a dog", None, 1),  # a dog that the image does not show
        ("a cat and a dog", "a dog", None, 2),  # the unedited caption told of the dog already
        ("a cat", "a red thing on grass", None, 2),  # both shown, though not told before
        ("a cat", "something on sand", None, 1),  # a ground that the image does not have
        ("a cat", "two cats", None, 0),
        ("some kittens", "some red kittens", None, 0),  # a synonym in the plural
        ("some kittens", "grass", None, 2),
        ("a dog", "grass", None, 0),  # the source was not named before
        ("a cat", "", None, 0),
        ("a cat", " . !", None, 0),
        ("", "", None, 0),
        ("a cat", "a dog", "dog", 2),
        ("a cat", "puppies", "dog", 2),
        ("a cat", "a hot dog", "dog", 0),  # no dog
        ("a cat", "a dog and a cat", "dog", 0),  # both
        ("a cat", "grass", "dog", 0),  # removed, not replaced
        ("a cat", "a dog and an umbrella", "dog", 1),
        ("a cat", "a blue dog", "dog", 1),
        ("a red thing", "a dog", "dog", 0),
        ("a cat", "", "dog", 0),
    ],
)
def test_scores_by_hand(before: str, after: str, target: str | None, score: int) -> None:
    assert one(before, after, target).score == score


def test_what_the_image_shows_beside_the_source_is_not_new() -> None:
    shown = {"a": Shown(frozenset({"cat", "person"}))}
    for after, score, change in (("two people", 2, 0), ("a dog", 1, 1)):
        (scored,) = score_captions(pair("a cat", after), shown, OBJECTS, JUDGE)
        assert (scored.score, scored.hallucinated_change) == (score, change)


def test_without_attribute_words_only_objects_are_new() -> None:
    captions = pair("a cat", "something on sand")
    assert score_captions(captions, SHOWN, OBJECTS, JUDGE)[0].score == 2


def test_nothing_counts_without_a_direction() -> None:
    scored = one("a cat", "grass", found=False)
    assert (scored.score, scored.removed, scored.named_before) == (0, False, True)
    # Whatever stands in its edited row: nothing was edited.
    assert one("a cat", "a dog", "dog", found=False, losses=(1.0, 9.0), tokens=2).loss_change == 0
    # Nor need there be such a row, when another item has one.
    other = pair("a cat", "grass", image="b")
    lone = pair("a cat", "", found=False)[:1]
    found = score_captions(other + lone, {**SHOWN, "b": SHOWN["a"]}, OBJECTS, JUDGE)
    assert [(each.image_id, each.score) for each in found] == [("a", 0), ("b", 2)]


def test_rates_of_one_caption() -> None:
    scored = one("a red cat with a dog", "an umbrella and people on sand", "person")
    assert scored.replaced
    assert (scored.objects_before, scored.objects_kept) == (1, 0)
    assert (scored.attributes_before, scored.attributes_kept) == (1, 0)
    assert scored.new_details == ("sand", "umbrella")
    assert scored.hallucinated_change == 0  # the dog went, the umbrella came
    # A caption that names nothing at all lost more than the object.
    assert not one("a cat", " . !").removed
    both = one("a cat", "a cat and a dog", "dog")
    assert (both.both_named, both.removed, both.replaced) == (True, False, False)


def test_a_word_may_be_the_source() -> None:
    scored = of_words("red", "blue", "a red cat", "a blue cat")
    assert (scored.score, scored.replaced, scored.objects_kept) == (2, True, 1)


def of_words(source: str, target: str | None, before: str, after: str) -> Scored:
    """A word to be removed or replaced, beside another item that is about grass and sand."""
    plain = EditedCaption("a", source, target, "none", 0.0, None, before, True)
    edited = replace(plain, variant="object", coefficient=1.0, caption=after)
    other = [
        replace(each, image_id="b", source="grass", target="sand", caption="a cat")
        for each in (plain, edited)
    ]
    shown = {**SHOWN, "b": SHOWN["a"]}
    found = score_captions([plain, edited, *other], shown, OBJECTS, JUDGE, [*ATTRIBUTES, "and"])
    return found[0]


def test_words_are_details_and_no_objects() -> None:
    # Grass is shown, sand is not; neither is an object, though both are asked of another image.
    scored = of_words("red", "blue", "a red cat and a dog", "a blue cat on grass")
    assert (scored.score, scored.new_details, scored.hallucinated_change) == (2, (), -1)
    assert (scored.objects_before, scored.objects_kept) == (2, 1)
    scored = of_words("red", "blue", "a red cat on grass", "a blue cat on sand")
    assert (scored.score, scored.new_details, scored.hallucinated_change) == (1, ("sand",), 0)
    assert (scored.attributes_before, scored.attributes_kept) == (1, 0)
    # Another colour instead of none at all is no clean removal.
    assert of_words("red", None, "a red cat", "a blue cat").score == 1
    assert of_words("red", None, "a red cat", "a cat").score == 2
    assert of_words("blue", "red", "a red cat", "a red cat").named_before is False
    both = of_words("red", "blue", "a red cat", "a red and blue cat")
    assert (both.both_named, both.score) == (True, 0)
    # "and" stands for many.
    many = of_words("and", None, "a red cat and a dog", "a red cat")
    assert (many.removed, many.score, many.objects_before, many.objects_kept) == (True, 2, 2, 1)


def test_a_word_that_is_an_object_of_the_data_stays_one() -> None:
    captions = pair("a cat", "an umbrella")
    (scored,) = score_captions(captions, SHOWN, OBJECTS, JUDGE, ["cat", "umbrella"])
    assert (scored.hallucinated_change, scored.attributes_before) == (1, 0)


def test_what_images_show() -> None:
    shown = shown_by(
        {"a": ["cat"], "b": []}, {"a": ["A red cat.", "It sits on grass."]}, ATTRIBUTES, JUDGE
    )
    assert shown["a"] == SHOWN["a"]
    assert shown["b"] == Shown(frozenset())


def test_missing_and_double_captions_are_errors() -> None:
    plain, edited = pair("a cat", "grass")
    with pytest.raises(ValueError, match="no unedited caption"):
        score_captions([edited], SHOWN, OBJECTS, JUDGE)
    with pytest.raises(ValueError, match="two captions"):
        score_captions([plain, edited, edited], SHOWN, OBJECTS, JUDGE)
    more = pair("a cat", "grass", image="b")
    shown = {**SHOWN, "b": SHOWN["a"]}
    with pytest.raises(ValueError, match="no caption of"):
        score_captions([plain, edited, more[0]], shown, OBJECTS, JUDGE)
    outside = replace(edited, variant="outside")
    assert len(score_captions([plain, outside, more[0]], shown, OBJECTS, JUDGE)) == 1


def made_up(
    outcomes: dict[tuple[str, float], str],
    target: str | None = None,
    blocks: tuple[int, ...] | None = (0,),
) -> list[EditedCaption]:
    """Captions of images i0, i1, ...: per edit one letter an image, 0, 1 or 2."""
    after = {
        None: {"0": "a cat", "1": "an umbrella", "2": "grass"},
        "dog": {"0": "a cat", "1": "a dog and an umbrella", "2": "a dog"},
    }[target]
    captions = []
    for i in range(len(next(iter(outcomes.values())))):
        plain = EditedCaption(f"i{i}", "cat", target, "none", 0.0, None, "a cat", True, 1.0, 2)
        captions.append(plain)
        for (variant, coefficient), letters in outcomes.items():
            edited = replace(plain, variant=variant, coefficient=coefficient, blocks=blocks)
            loss = 1.0 + 0.5 * coefficient if variant == "object" else 1.0
            captions.append(replace(edited, caption=after[letters[i]], loss_sum=loss))
    return captions


def scored(captions: Sequence[EditedCaption]) -> list[Scored]:
    shown = {each.image_id: Shown(frozenset({"cat"})) for each in captions}
    return score_captions(captions, shown, OBJECTS, JUDGE)


DEV = {
    ("object", 1.0): "0020",
    ("object", 2.0): "0112",
    ("object", 4.0): "2200",
    ("outside", 1.0): "0000",
    ("outside", 2.0): "0000",
    ("outside", 4.0): "2222",
}
TEST = {
    ("object", 1.0): "00000",
    ("object", 2.0): "01222",
    ("object", 4.0): "22222",
    ("outside", 1.0): "00000",
    ("outside", 2.0): "00002",
    ("outside", 4.0): "00022",
}


def figures(dev: Any, test: Any, task: Any = "remove") -> InterventionResult:
    return intervention_figures(task, scored(dev), scored(test), **FACTS, **DRAWS)


def by_place(result: InterventionResult) -> dict[str, EditFigures]:
    return {edit.variant: edit for edit in result.edits}


def test_the_coefficient_is_chosen_on_development_ties_the_smaller() -> None:
    # 2 and 4 both have MS 1 on development; 4 would do better on test.
    assert choose_edits(scored(made_up(DEV))) == {
        "object": ("object", 2.0, (0,)),
        "outside": ("outside", 4.0, (0,)),
    }
    result = figures(made_up(DEV), made_up(TEST))
    edits = by_place(result)
    assert (edits["object"].coefficient, edits["outside"].coefficient) == (2.0, 2.0)
    assert edits["object"].development_ms == 1.0
    assert edits["object"].ms.value == pytest.approx(7 / 5)
    assert edits["object"].ms.chance == pytest.approx(2 / 5)
    assert edits["outside"].ms.value == pytest.approx(2 / 5)
    assert edits["outside"].ms.chance is None
    assert [edits["object"].clean.value, edits["object"].new_details.value] == [0.6, 0.2]
    assert (edits["object"].removed.value, edits["object"].removed.n) == (0.8, 5)
    assert edits["object"].replaced is None
    assert edits["object"].new_objects.value == pytest.approx(0.2)
    assert edits["object"].nats.value == pytest.approx(1.0 / 2)
    assert edits["object"].nats.chance == 0.0
    curve = {(p.variant, p.coefficient): p for p in result.curve}
    assert len(curve) == 6
    assert curve["object", 4.0].ms.value == 2.0
    assert [p.coefficient for p in result.curve if p.chosen] == [2.0, 2.0]


def swept(
    by_blocks: dict[tuple[int, ...], dict[tuple[str, float], str]],
) -> list[EditedCaption]:
    """Captions of edits after several choices of blocks, with one unedited caption an image."""
    parts = [made_up(outcomes, blocks=blocks) for blocks, outcomes in by_blocks.items()]
    return parts[0] + [each for part in parts[1:] for each in part if each.variant != "none"]


def test_blocks_and_coefficient_are_chosen_together() -> None:
    weak, strong = {("object", 1.0): "0011"}, {("object", 1.0): "0222"}
    dev = swept(
        {
            (0,): {**weak, ("object", 4.0): "2200"},
            (1, 2): {**strong, ("object", 4.0): "2000", ("outside", 1.0): "0000"},
        }
        | {(0, 1): {("outside", 4.0): "2222"}}
    )
    # 4 is the best of block 0, but 1 after blocks 1 and 2 is better still.
    chosen = choose_edits(scored(dev))
    assert chosen["object"] == ("object", 1.0, (1, 2))
    test = swept(
        {
            (0,): {("object", 1.0): "2222", ("object", 4.0): "2222", ("outside", 1.0): "2222"},
            (1, 2): {("object", 1.0): "0012", ("object", 4.0): "0000", ("outside", 1.0): "0002"},
        }
    )
    result = figures(dev, test)
    edits = by_place(result)
    # The control has the object's choice, not the one that would have served it best.
    assert [edits[place].edit[1:] for place in ("object", "outside")] == [(1.0, (1, 2))] * 2
    assert edits["object"].ms.value == pytest.approx(3 / 4)
    assert edits["object"].ms.chance == pytest.approx(2 / 4)
    response = [(p.coefficient, p.ms.value, p.chosen) for p in result.response("object")]
    assert response == [(1.0, 0.75, True), (4.0, 0.0, False)]
    assert [p.ms.value for p in result.response("outside")] == [0.5]
    assert result.response("all") == []
    assert {p.blocks for p in result.curve} == {(0,), (1, 2)}


def test_of_equal_edits_the_one_of_fewer_blocks_then_the_smaller() -> None:
    same = {("object", 1.0): "0022", ("object", 4.0): "2002"}
    dev = swept({(0, 1): same, (3,): {("object", 4.0): "2200"}, (2,): {("object", 4.0): "0202"}})
    assert choose_edits(scored(dev))["object"] == ("object", 4.0, (2,))
    dev = swept({(0, 1): same, (0, 1, 2): {("object", 0.5): "0022"}})
    assert choose_edits(scored(dev))["object"] == ("object", 1.0, (0, 1))


def test_replacement_has_its_own_rates() -> None:
    result = figures(made_up(DEV, "dog"), made_up(TEST, "dog"), "replace")
    found = by_place(result)["object"]
    assert found.replaced is not None
    assert found.both_named is not None
    assert (found.replaced.value, found.replaced.chance) == (0.8, 0.2)
    assert found.both_named.value == 0.0
    assert found.new_objects.value == pytest.approx(0.2)  # the umbrella, not the target
    names = [(row.metric, row.of, row.set) for row in result.figures()]
    assert len(set(names)) == len(names)
    task = "replacement"
    assert {("edit_ms", task, "object"), ("edit_replaced", task, "outside")} <= set(names)


def test_items_without_direction_or_name_count_in_every_n() -> None:
    lost = pair("a cat", "grass", image="x", found=False)
    unnamed = pair("a red thing", "grass", image="y", tokens=0)
    done = pair("a cat", "grass", image="z")
    shown = dict.fromkeys("xyz", SHOWN["a"])
    items = score_captions(lost + unnamed + done, shown, OBJECTS, JUDGE)
    result = intervention_figures("remove", items, items, **FACTS, **DRAWS)
    (found,) = result.edits
    assert (found.ms.value, found.ms.n) == (pytest.approx(2 / 3), 3)
    assert (found.removed.value, found.removed.n) == (0.5, 2)
    assert (found.removed_of_all.value, found.removed_of_all.n) == (pytest.approx(1 / 3), 3)
    assert result.found.value == pytest.approx(2 / 3)
    assert result.named_before.value == pytest.approx(2 / 3)
    assert (found.nats.value, found.nats.n) == (None, 0)
    assert found.attributes_kept.value is None


def test_the_order_of_rows_does_not_show() -> None:
    dev, test = made_up(DEV), made_up(TEST)
    expected = figures(dev, test).model_dump_json()
    for part in (dev, test):
        random.Random(1).shuffle(part)
    assert figures(dev, test).model_dump_json() == expected


def test_no_edit_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs scored items"):
        intervention_figures("remove", [], [], **FACTS, **DRAWS)


def drawn_scores(rng: np.random.Generator, keys: Sequence[ItemKey]) -> dict[ItemKey, int]:
    return {key: int(rng.integers(3)) for key in keys}


def test_paired_difference_against_brute_force() -> None:
    rng = np.random.default_rng(3)
    keys: list[ItemKey] = [
        (f"i{i:02d}", source, None) for i in range(20) for source in ("cat", "dog")[: 1 + i % 2]
    ]
    # Three projectors.
    ours, theirs = ([drawn_scores(rng, keys) for _ in range(3)] for _ in range(2))
    found = paired_ms_difference(ours, theirs, seed=5, resamples=200, level=0.9)
    images = sorted({key[0] for key in keys})
    draws = np.random.default_rng(5).integers(len(images), size=(200, len(images)))

    def gap(pool: Sequence[ItemKey]) -> float:
        """Mean over projectors of the difference of the two MS."""
        return float(
            np.mean(
                [
                    sum(mine[key] - other[key] for key in pool) / len(pool)
                    for mine, other in zip(ours, theirs, strict=True)
                ]
            )
        )

    values = [gap([key for b in drawn for key in keys if key[0] == images[b]]) for drawn in draws]
    low, high = np.quantile(values, [0.05, 0.95], method="nearest")
    assert found.value == pytest.approx(gap(keys))
    assert (found.ci_low, found.ci_high) == (pytest.approx(low), pytest.approx(high))
    assert found.n == len(keys)


def test_what_one_projector_gains_and_another_loses_is_no_difference() -> None:
    plus: dict[ItemKey, int] = {(f"i{i}", "cat", None): i % 2 for i in range(30)}
    minus: dict[ItemKey, int] = {key: 1 - score for key, score in plus.items()}
    none = dict.fromkeys(plus, 0)
    found = paired_ms_difference([plus, minus], [none, none], **DRAWS)
    # Each of 30 images has the same mean over the two: others would hardly change it.
    assert (found.value, found.ci_low, found.ci_high) == (0.5, 0.5, 0.5)
    first = dict(list(plus.items())[:29])
    assert paired_ms_difference([first, minus], [none, none], **DRAWS).ci_low is None
    alone = paired_ms_difference([plus], [none], **DRAWS)
    assert alone.ci_low is not None and alone.ci_low < 0.5


def test_paired_difference_takes_shared_items_only() -> None:
    same: dict[ItemKey, int] = {("a", "cat", None): 2, ("b", "cat", None): 0}
    more: dict[ItemKey, int] = {**same, ("c", "cat", None): 2}
    found = paired_ms_difference([same, more], [more, dict.fromkeys(more, 0)], **DRAWS)
    # a and b under both: 0 and 0, 2 and 0.
    assert (found.value, found.n) == (0.5, 2)
    nothing = paired_ms_difference([same], [{("c", "cat", None): 2}], **DRAWS)
    assert (nothing.value, nothing.n) == (None, 0)
    assert shared_items([]) == []


def controlled(dev: Any, test: Any, edit: Any) -> InterventionResult:
    control_of = ControlOf("random_source", edit)
    return intervention_figures(
        "remove", scored(dev), scored(test), **FACTS, **DRAWS, control_of=control_of
    )


def test_a_control_is_scored_at_the_methods_edit_and_at_its_own_best() -> None:
    dev = {("object", 1.0): "0000", ("object", 2.0): "2220", ("object", 4.0): "2111"}
    # Best on test is 4; the choice is made on development images.
    test = {("object", 1.0): "00020", ("object", 2.0): "02002", ("object", 4.0): "22222"}
    result = controlled(made_up(dev), made_up(test), ("object", 1.0, (0,)))
    (equal,) = result.edits
    assert (equal.coefficient, equal.ms.value, equal.development_ms) == (1.0, 0.4, 0.0)
    assert result.best is not None
    assert (result.best.coefficient, result.best.ms.value) == (2.0, 0.8)
    assert [point.coefficient for point in result.curve if point.chosen] == [1.0]
    rows = {(row.metric, row.set): row.value for row in result.figures()}
    assert {name for _, name in rows} == {"random_source"}
    assert rows["edit_ms", "random_source"] == 0.4
    assert rows["edit_coefficient", "random_source"] == 1.0
    assert rows["edit_best_ms", "random_source"] == 0.8
    assert rows["edit_best_coefficient", "random_source"] == 2.0
    # The method itself has no second figure.
    plain = figures(made_up(dev), made_up(test))
    assert plain.best is None and plain.control is None
    assert not [row for row in plain.figures() if row.metric.startswith("edit_best")]


def test_a_control_without_the_methods_edit_is_an_error() -> None:
    captions = made_up({("object", 1.0): "02"})
    for edit in (("object", 3.0, (0,)), ("all", 1.0, (0,))):
        with pytest.raises(ValueError, match="development captions lack the edit"):
            controlled(captions, captions, edit)
    more = made_up({("object", 1.0): "02", ("object", 3.0): "22"})
    with pytest.raises(ValueError, match="test captions lack the edit"):
        controlled(more, captions, ("object", 1.0, (0,)))


def test_damage_is_the_mean_over_the_tokens_of_all_images() -> None:
    captions = made_up({("object", 1.0): "0222", ("outside", 1.0): "0000"})
    of_image = {"i0": (3.0, 2), "i1": (1.0, 6), "i2": (0.0, 0), "i3": (5.0, 1)}
    captions = [
        replace(
            caption,
            damage_sum=of_image[caption.image_id][0] * (caption.variant == "object"),
            damage_tokens=of_image[caption.image_id][1],
            found=caption.image_id != "i3",
        )
        for caption in captions
    ]
    edit = by_place(figures(captions, captions))["object"]
    # The last image has no direction: it was not edited, and its tokens count. The third has none.
    assert (edit.damage.value, edit.damage.n) == (pytest.approx(4 / 9), 3)
    assert edit.damage.chance == 0.0
    assert edit.damage.ci_low is None  # three images are too few
    (row,) = [row for row in edit.figures("removal") if row.metric == "edit_damage"]
    assert (row.of, row.set, row.value) == ("removal", "object", edit.damage.value)
