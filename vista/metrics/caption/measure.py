"""Captions: how well the language model predicts the reference, and what its own captions name.

Object hallucination follows CHAIR (Rohrbach et al., 2018): an object category that a caption
mentions and the image does not have is hallucinated. Categories count once a caption.

Suffixes: b images, c object categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.groups import group_rows
from vista.metrics.matching_rate.measure import JudgeFunction
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate
from vista.metrics.shuffled import shuffled_level

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class CaptionFigures(ResultPart):
    """Figures over images."""

    n_images: int = Field(description="Images with a reference, over which cross-entropy is taken.")
    n_with_objects: int = Field(description="Images with an object and a generated caption.")
    cross_entropy: Estimate = Field(
        description="Mean negative log likelihood of the reference answer's tokens, in nats a "
        "token. Chance, where measured: the visual tokens of another image."
    )
    object_recall: Estimate = Field(
        description="Share of an image's object categories that its caption names, mean over "
        "images; chance: against all other images' objects."
    )
    one_object_named: Estimate = Field(
        description="Share of the images with exactly one object whose caption names it; chance: "
        "against the other one-object images."
    )
    hallucinated_mentions: Estimate = Field(
        description="CHAIR_i: hallucinated mentions / mentions over all captions; n counts "
        "mentions; chance: against all other images' objects."
    )
    hallucinating_captions: Estimate = Field(
        description="CHAIR_s: share of captions with a hallucinated object; chance: against all "
        "other images' objects."
    )

    def rows(self, group: str | None) -> list[Figure]:
        """Return the figures, of the whole (None) or of a group of images; token kind "text" for
        the cross-entropy only."""
        return [
            self.cross_entropy.figure("caption_cross_entropy", None, "text", set=group),
            self.object_recall.figure("caption_object_recall", set=group),
            self.one_object_named.figure("caption_names_object", set=group),
            self.hallucinated_mentions.figure("chair_mentions", set=group),
            self.hallucinating_captions.figure("chair_captions", set=group),
        ]


class CaptionResult(CaptionFigures, MetricResult):
    """Figures over the held-out images."""

    judge: str = Field(description="Name of the judge of object mentions.")
    n_categories: int = Field(description="Object categories that a caption could mention.")
    groups: dict[str, CaptionFigures] = Field(
        default_factory=dict,
        exclude_if=lambda groups: not groups,
        description="The same of each group of the images, if there are any; levels are over the "
        "images of the group, that of the cross-entropy over all.",
    )

    def figures(self) -> list[Figure]:
        """Return the figures of the whole, then those of the groups (column `set`)."""
        return [
            *self.rows(None),
            *(row for name, part in self.groups.items() for row in part.rows(name)),
        ]


@dataclass(frozen=True)
class CaptionItems:
    """Per-image values, all [b], NaN for images without an object.

    Attributes:
        recall_b: Share of the image's categories that the caption names.
        mentions_b: Categories that the caption mentions.
        hallucinated_b: Those that the image does not have.
    """

    recall_b: FloatArray
    mentions_b: FloatArray
    hallucinated_b: FloatArray


def caption_figures(
    loss_b: NDArray[Any],
    tokens_b: NDArray[Any],
    captions: Sequence[str],
    objects: Sequence[Sequence[str]],
    vocabulary: Sequence[str],
    judge: JudgeFunction,
    *,
    judge_name: str,
    seed: int,
    resamples: int,
    level: float,
    shuffled_loss_b: NDArray[Any] | None = None,
    groups: Sequence[str | None] | None = None,
) -> tuple[CaptionResult, CaptionItems]:
    """Return the figures of losses and captions, and the values of each image.

    Args:
        loss_b: Sum of the negative log likelihood over the answer tokens of each image, in nats.
        tokens_b: Number of those tokens; images with 0 are left out of the cross-entropy.
        captions: Generated caption of each image.
        objects: Names of every object of each image, one entry an object: an image whose only
            object stands there once is a one-object image. May be empty.
        vocabulary: Every category of the data set, not only of these images: a category that
            is never present can still be hallucinated.
        judge: Decides which categories a caption names.
        judge_name: Its name, for the record.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.
        shuffled_loss_b: As `loss_b`, with the visual tokens of another image.
        groups: Group of each image; None where the images have none.

    Raises:
        ValueError: Lengths differ, or an object's name is not in the vocabulary.
    """
    n = len(captions)
    if not n == len(loss_b) == len(tokens_b) == len(objects):
        raise ValueError("losses, tokens, captions and objects must have one entry an image")
    names = sorted(set(vocabulary))
    column = {name: c for c, name in enumerate(names)}
    unknown = sorted({name for image in objects for name in image} - set(names))
    if unknown:
        raise ValueError(f"object {unknown[0]!r} is not in the vocabulary")
    present_bc = np.zeros((n, len(names)), dtype=bool)
    for b, image in enumerate(objects):
        present_bc[b, [column[name] for name in image]] = True
    measured = _Measured(
        loss_b=np.asarray(loss_b, np.float64),
        tokens_b=np.asarray(tokens_b, np.float64),
        other_loss_b=None if shuffled_loss_b is None else np.asarray(shuffled_loss_b, np.float64),
        named_bc=judge(list(captions), names),
        present_bc=present_bc,
        one_b=np.array([len(image) == 1 for image in objects], dtype=bool),
    )
    draws = (seed, resamples, level)
    whole, items = _figures(measured, draws)
    result = CaptionResult(
        judge=judge_name,
        n_categories=len(names),
        groups={
            name: CaptionFigures(**_figures(measured.of(rows), draws)[0])
            for name, rows in group_rows(groups or ()).items()
        },
        **whole,
    )
    return result, items


@dataclass(frozen=True)
class _Measured:
    """What is known of each image; `one_b`: it has exactly one object."""

    loss_b: FloatArray
    tokens_b: FloatArray
    other_loss_b: FloatArray | None
    named_bc: BoolArray
    present_bc: BoolArray
    one_b: BoolArray

    def of(self, rows: NDArray[np.int64]) -> _Measured:
        """Return the same of some images."""
        other_b = self.other_loss_b
        return _Measured(
            self.loss_b[rows],
            self.tokens_b[rows],
            None if other_b is None else other_b[rows],
            self.named_bc[rows],
            self.present_bc[rows],
            self.one_b[rows],
        )


def _figures(
    measured: _Measured, draws: tuple[int, int, float]
) -> tuple[dict[str, Any], CaptionItems]:
    """Return the fields of `CaptionFigures`, and the values of each image."""
    level = draws[2]

    def share(values_b: FloatArray) -> tuple[float, float, float]:
        return rate_interval(values_b, np.ones(len(values_b)), level)

    loss, tokens, other = measured.loss_b, measured.tokens_b, measured.other_loss_b
    answered = tokens > 0
    other_loss = None
    if other is not None and answered.any():
        other_loss = float(other[answered].sum() / tokens.sum())
    has = np.asarray(measured.present_bc.any(axis=1), dtype=bool)
    named, present = measured.named_bc[has], measured.present_bc[has]
    recall = shuffled_level(named, present, "share")
    extra = shuffled_level(named, present, "extra")
    any_extra_b = extra.own_b > 0
    mentions = named.sum(axis=1).astype(np.float64)
    one = measured.one_b[has]
    single = shuffled_level(named[one], present[one], "any")
    n_has, n_mentions = int(has.sum()), int(mentions.sum())
    fields: dict[str, Any] = {
        "n_images": int(answered.sum()),
        "n_with_objects": n_has,
        "cross_entropy": estimate(
            bootstrap_ratio(loss[answered], tokens[answered], *draws),
            int(answered.sum()),
            other_loss,
        ),
        "object_recall": estimate(share(recall.own_b), n_has, recall.shuffled),
        "one_object_named": estimate(share(single.own_b), int(one.sum()), single.shuffled),
        "hallucinated_mentions": estimate(
            rate_interval(extra.own_b, mentions, level),
            n_mentions,
            extra.shuffled * n_has / n_mentions if n_mentions else None,
        ),
        "hallucinating_captions": estimate(
            share(any_extra_b.astype(np.float64)),
            n_has,
            shuffled_level(named, present, "any_extra").shuffled,
        ),
    }
    return fields, CaptionItems(
        _spread(recall.own_b, has), _spread(mentions, has), _spread(extra.own_b, has)
    )


def _spread(values: FloatArray, has: BoolArray) -> FloatArray:
    full = np.full(len(has), np.nan)
    full[has] = values
    return full
