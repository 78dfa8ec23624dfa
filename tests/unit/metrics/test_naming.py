"""Share of classes with a latent of their own."""

from __future__ import annotations

import math

import pytest

from vista.metrics.naming.measure import Label, naming
from vista.metrics.naming.report import SHOWN
from vista.report.shown import MetricPlace

LABELS = {
    0: [
        *(Label("cat", 0.9), Label("dog", 0.4), Label(None, 0.3), Label("Cow", 0.8)),
        Label("cat", 0.95),
    ],
    2: [Label("grass", 0.9)],
}


def test_only_the_class_word_with_enough_share_counts() -> None:
    result = naming(["dog", "Cat", "cow", "cat", "traffic light"], LABELS, min_share=0.5)
    first, second = result.layers
    assert first.share.value == 2 / 4  # cat, cow; dog's share is too small
    assert first.share.n == 4
    assert first.latents == {"cat": 4, "cow": 3}
    assert first.unnamed == ["dog", "traffic light"]
    assert first.share.ci_low is None  # 4 classes are too few
    assert second.share.value == 0.0
    assert second.unnamed == ["cat", "cow", "dog", "traffic light"]


def test_a_word_inside_a_label_is_not_the_label() -> None:
    result = naming(
        ["cat"], {0: [Label("cattle", 1.0), Label("a cat", 1.0)]}, min_share=0.5, seed=0
    )
    assert result.layers[0].share.value == 0.0


def test_the_interval_is_over_classes() -> None:
    classes = [*"abcdefgh", "cat"]
    share = naming(classes, {0: [Label("cat", 1.0)]}, 0.5, level=0.9).layers[0].share
    low, high = share.ci_low, share.ci_high
    assert low is not None and high is not None
    # Mid-P limits of 1 hit in 9: the tails of the binomial are .05.
    assert 1 - (1 - low) ** 9 - 9 * low * (1 - low) ** 8 / 2 == pytest.approx(0.05)
    assert (1 - high) ** 9 + 9 * high * (1 - high) ** 8 / 2 == pytest.approx(0.05)


def test_rows_are_one_a_layer() -> None:
    rows = naming(["cat", "dog"], LABELS, min_share=0.5).figures()
    assert [(row.metric, row.layer, row.value, row.n) for row in rows] == [
        ("named_classes", 0, 0.5, 2),
        ("named_classes", 2, 0.0, 2),
    ]


def test_a_plural_names_its_class() -> None:
    result = naming(
        ["car", "glass", "hot dog"], {0: [Label("Cars", 0.9), Label("hot", 0.9)]}, 0.5, 0, 20
    )
    assert result.layers[0].latents == {"car": 0}
    assert result.layers[0].unnamed == ["glass", "hot dog"]


def test_the_report_lists_nouns_without_a_latent() -> None:
    result = naming(["car", "a|b"], {3: [Label("car", 0.9)], 7: [Label("car", 0.9)]}, 0.5, 0, 20)
    note = SHOWN.note(MetricPlace(metric="naming", llm="m"), result.model_dump())
    assert note == (
        "Nouns of the data without a latent of their own (m): layer 3: a&#124;b; layer 7: a&#124;b."
    )
    whole = naming(["car"], {3: [Label("car", 0.9)]}, 0.5, 0, 20)
    assert SHOWN.note(MetricPlace(metric="naming", llm="m"), whole.model_dump()) is None


def test_labels_of_named_classes_are_scored_on_held_out_text() -> None:
    scored = [
        *(Label("cat", 0.9, 0.99), Label("cat", 0.7, 0.2), Label("dog", 0.9, 0.79)),
        # Not a class; a class whose word the text does not hold; one with too small a share.
        *(Label("grass", 0.9, 0.1), Label("cow", 0.9), Label("owl", 0.3, 0.1)),
    ]
    result = naming(["cat", "dog", "cow", "owl"], {0: scored, 1: [Label("cat", 0.9)]}, 0.5, 0, 200)
    score = result.layers[0].label_auroc
    assert score is not None and score.value == pytest.approx((0.99 + 0.79) / 2)
    assert (score.n, score.chance) == (2, 0.5)
    assert result.layers[1].label_auroc is None
    figures = [(f.metric, f.of, f.layer) for f in result.figures()]
    assert figures[2:] == [("label_auroc", "named_classes", 0)]


def test_no_named_class_that_was_scored_is_no_figure_of_nought() -> None:
    labels = [Label("cat", 0.9), Label("grass", 0.9, 0.8)]
    score = naming(["cat"], {0: labels}, 0.5, 0, 20).layers[0].label_auroc
    assert score is not None and (score.value, score.n) == (None, 0)
    assert math.isnan(labels[0].auroc)
