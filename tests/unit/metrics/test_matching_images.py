"""Matching rate by what a judge sees, on verdicts that are known one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from vista.config.metrics import MaskBounds
from vista.judges import NO, UNANSWERED, YES
from vista.metrics.matching_rate.images import image_scores
from vista.metrics.matching_rate.measure import LayerInput, MatchingResult, matching_rate
from vista.metrics.matching_rate.scores import Scores, TopK, VerdictArray
from vista.metrics.ranking import LatentMask, Ranked
from vista.metrics.shuffled import other_images

Label = str | None


@dataclass
class Looker:
    """Sees in each image what `sees` holds and leaves open what `open` holds, as image: labels."""

    sees: dict[int, set[str]]
    open: dict[int, set[str]] = field(default_factory=dict)
    images: list[int] = field(default_factory=list)
    shown: list[list[Label]] = field(default_factory=list)

    def __call__(self, images: Sequence[int], labels: Sequence[Sequence[Label]]) -> VerdictArray:
        assert not self.images, "one call: a budget and a progress bar are for all questions"
        self.images, self.shown = list(images), [list(row) for row in labels]
        verdicts = [
            [self._verdict(b, label) for label in row]
            for b, row in zip(images, labels, strict=True)
        ]
        width = len(labels[0]) if labels else 0
        return np.array(verdicts, dtype=np.int8).reshape(len(images), width)

    def _verdict(self, image: int, label: Label) -> int:
        if label is not None and label in self.open.get(image, ()):
            return UNANSWERED
        return YES if label in self.sees.get(image, ()) else NO


def layer(latents: list[list[int]], labels: list[Label], width: int = 3) -> LayerInput:
    latent = np.full((len(latents), width), -1)
    for b, row in enumerate(latents):
        latent[b, : len(row)] = row
    ranked = Ranked(latent, np.where(latent < 0, -1, 0), (latent >= 0).astype(float))
    return LayerInput(ranked, labels, LatentMask(*np.zeros((3, len(labels)), bool)))


def measure(
    layers: dict[int, LayerInput], n: int, look: Looker, ks: tuple[int, ...] = (1, 2), seed: int = 0
) -> tuple[MatchingResult, Scores]:
    scores = image_scores(layers, n, look, ks, seed)
    settings: dict[str, Any] = {
        "judge_name": "api:some",
        "top_k": 2,
        "bounds": MaskBounds(0.05, 0.005),
        "mask_images": "evaluated",
        "n_mask_images": 4,
        "n_without_objects": 0,
        "seed": 0,
        "resamples": 200,
        "level": 0.95,
    }
    return matching_rate(layers, scores, ks=ks, **settings), scores


def top(result: MatchingResult, k: int, position: int = 0) -> TopK:
    return next(each for each in result.layers[position].top if each.k == k)


def test_by_hand_with_labels_left_open() -> None:
    # Of two images each is the other's other one.
    labels: list[Label] = ["cat", "red", "grass", "umbrella"]
    look = Looker(
        sees={0: {"red", "umbrella"}, 1: {"umbrella"}}, open={0: {"grass"}, 1: {"cat", "grass"}}
    )
    result, scores = measure({5: layer([[0, 1], [2, 3]], labels)}, 2, look)
    assert scores.layers[5].named_bn.tolist() == [[NO, YES], [UNANSWERED, YES]]
    first, both = top(result, 1), top(result, 2)
    # k 1: image 0's "cat" is refused; image 1's "grass" is open, as are both labels exchanged.
    assert (first.matching.value, first.matching.n) == (0.0, 1)
    assert (first.n_unanswered, first.n_unanswered_shuffled) == (1, 2)
    assert first.matching.chance is None
    assert first.gain.value is None and first.ratio.value is None
    # k 2: an accepted label settles it, whatever is open beside it. Image 0's labels shown with
    # image 1 are open and refused; image 1's shown with image 0 open and accepted.
    assert (both.matching.value, both.matching.n) == (1.0, 2)
    assert (both.n_unanswered, both.n_unanswered_shuffled) == (0, 1)
    assert both.matching.chance == 1.0
    assert (both.gain.value, both.ratio.value) == (0.0, 1.0)


def test_chance_gain_and_ratio_by_hand() -> None:
    # Four images whose first label is right; "sky" is in the last two images only.
    labels: list[Label] = ["a", "b", "c", "d", "sky"]
    sees = {0: {"a"}, 1: {"b"}, 2: {"c", "sky"}, 3: {"d", "sky"}}
    look = Looker(sees)
    result, _ = measure({0: layer([[0, 4], [4, 1], [4, 2], [4, 3]], labels)}, 4, look)
    assert top(result, 1).matching.value == 0.75
    assert top(result, 2).matching.value == 1.0
    other = look.images[4:]
    expected = sum(other[b] in (2, 3) for b in (1, 2, 3)) / 4
    assert top(result, 1).matching.chance == expected
    assert top(result, 1).gain.value == pytest.approx(0.75 - expected)
    assert top(result, 1).ratio.value == pytest.approx(0.75 / expected)
    assert top(result, 2).matching.chance == 0.5


def test_each_image_is_shown_with_its_own_labels_and_they_with_another_image() -> None:
    labels: list[Label] = ["b", "a", None, " ", "never"]
    layers = {
        3: layer([[0, 1, 4], [2, 3, 4], [], [1, 1, 4]], labels),
        1: layer([[1, 0, 4], [0, 2, 4], [], [3, 2, 4]], ["a", "c", "b", None, "never"]),
    }
    look = Looker({})
    measure(layers, 4, look, seed=3)
    assert look.images[:4] == [0, 1, 2, 3]
    assert sorted(look.images[4:]) == [0, 1, 2, 3]
    assert all(other != b for b, other in enumerate(look.images[4:]))
    # All layers at once, each label once, none beyond the largest k, padded to one width.
    mine = [["a", "b", "c"], ["a", "b", None], [None] * 3, ["a", "b", None]]
    assert look.shown == mine + mine


def test_silent_and_unlabelled_latents_match_nothing_and_are_no_open_question() -> None:
    # -1 indexes the last label in Python: it must not speak for a silent image.
    labels: list[Label] = [None, "", "cat"]
    look = Looker({b: {"cat"} for b in range(4)}, {b: {""} for b in range(4)})
    result, _ = measure({0: layer([[], [0], [1, 0], [2]], labels)}, 4, look)
    assert (top(result, 2).matching.value, top(result, 2).matching.n) == (0.25, 4)
    assert top(result, 2).matching.chance == 0.25
    assert result.layers[0].silent_images.value == 0.25


def test_an_average_over_layers_is_over_what_was_answered() -> None:
    labels: list[Label] = ["cat", "fog"]
    layers = {0: layer([[0], [1]], labels), 2: layer([[0], [0]], labels)}
    look = Looker({0: {"cat"}, 1: set()}, {1: {"fog"}})
    result, _ = measure(layers, 2, look)
    [average] = [each for each in result.over_layers if each.k == 1]
    # Image 0 matches on both layers, image 1 is open on layer 0 and does not match on layer 2.
    assert average.matching.value == pytest.approx(2 / 3)
    assert (average.matching.n, average.n_unanswered) == (2, 1)
    # Exchanged: image 0's "cat" is refused twice, image 1's "fog" too, its "cat" accepted.
    assert average.matching.chance == pytest.approx(1 / 4)
    assert average.gain.value == pytest.approx(2 / 3 - 1 / 4)


def test_a_judge_that_accepts_everything_gains_nothing() -> None:
    labels: list[Label] = ["cat", "dog"]
    look = Looker({b: {"cat"} for b in range(50)})
    # Only the 20 images with the label match, and so do their labels elsewhere.
    result, _ = measure({0: layer([[b % 5 > 1] for b in range(50)], labels)}, 50, look)
    figures = top(result, 1)
    assert figures.matching.value == figures.matching.chance == 0.4
    # The same images match both times, so the paired figures have no width.
    assert (figures.gain.value, figures.gain.ci_low, figures.gain.ci_high) == (0, 0, 0)
    assert (figures.ratio.ci_low, figures.ratio.ci_high) == (1, 1)
    assert figures.matching.ci_low is not None and figures.matching.ci_low < 0.4


def test_rows_name_no_recall_and_carry_the_images_behind_them() -> None:
    look = Looker({0: {"cat"}}, {1: {"cat"}})
    result, _ = measure({2: layer([[0]] * 3, ["cat"])}, 3, look)
    rows = {(row.metric, row.k, row.layer): row for row in result.figures()}
    assert not [name for name, _, _ in rows if "recall" in name]
    assert (result.evidence, result.n_categories, result.n_images) == ("image", None, 3)
    for name in ("matching_rate", "matching_gain", "matching_ratio"):
        assert rows[name, 2, 2].n == 2
    assert rows["matching_rate", 2, 2].value == 0.5
    assert rows["silent_images", None, 2].n == 3
    for layer_ in (2, None):
        open_ = rows["matching_unanswered", 2, layer_]
        assert (open_.value, open_.chance, open_.n) == (
            pytest.approx(1 / 3),
            pytest.approx(1 / 3),
            3,
        )


def test_one_image_has_no_other() -> None:
    look = Looker({0: {"cat"}})
    result, _ = measure({0: layer([[0]], ["cat"])}, 1, look)
    assert look.images == [0]
    assert (top(result, 1).matching.value, top(result, 1).matching.chance) == (1.0, None)
    assert top(result, 1).gain.value is None


def test_no_images_leave_figures_undefined() -> None:
    result, _ = measure({0: layer([], ["cat"])}, 0, Looker({}))
    assert (top(result, 1).matching.value, top(result, 1).matching.n) == (None, 0)


def test_what_does_not_fit_is_refused_before_a_judge_is_asked() -> None:
    look = Looker({})
    with pytest.raises(ValueError, match="does not fit 2 images and k 2"):
        image_scores({0: layer([[0]], ["cat"])}, 2, look, (1, 2), 0)
    assert not look.images


@pytest.mark.parametrize("n", [2, 3, 4, 50])
def test_a_derangement_gives_every_image_another_one(n: int) -> None:
    for seed in range(20):
        other = other_images(n, seed)
        assert sorted(other.tolist()) == list(range(n))
        assert (other != np.arange(n)).all()
        assert (other_images(n, seed) == other).all()


def test_a_derangement_prefers_no_pair_of_images() -> None:
    drawn = np.array([other_images(4, seed) for seed in range(3000)])
    for b in range(4):
        share = np.bincount(drawn[:, b], minlength=4) / 3000
        assert share[b] == 0
        assert np.delete(share, b) == pytest.approx([1 / 3] * 3, abs=0.04)
    with pytest.raises(ValueError, match="no other image"):
        other_images(1, 0)


def test_groups_are_a_part_of_what_was_seen() -> None:
    look = Looker({0: {"cat"}, 1: {"dog"}})
    layers = {0: layer([[0], [0], [0]], ["cat"])}
    scores = image_scores(layers, 3, look, (1,), 0, ["a", "b", "b"])
    assert {name: part[0].matching[1].own_b.tolist() for name, part in scores.groups.items()} == {
        "a": [1.0],
        "b": [0.0, 0.0],
    }
    shuffled_b = scores.layers[0].matching[1].shuffled_b
    assert scores.groups["b"][0].matching[1].shuffled_b.tolist() == shuffled_b[1:].tolist()
    assert scores.groups["b"][0].named_bn.shape == (2, 1)
