"""Matching rate by a judge that is shown the image, as published.

By the VISTA paper (arXiv 2605.24946) an image matches if one of its strongest latents' labels
describes something in it. Its chance level is measured, too: the same labels are shown with another
image, so that the two questions differ in the image alone.

A label that the judge left open does not count as refused: an image with an accepted label matches,
one with all labels refused does not, and any other is left out and counted.

Suffixes: b images, n ranked latents of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vista.judges import NO, UNANSWERED, YES
from vista.metrics.groups import group_rows
from vista.metrics.matching_rate.measure import LayerInput, require_fit
from vista.metrics.matching_rate.scores import LayerScores, Scores, VerdictArray
from vista.metrics.shuffled import Level, other_images

# (images, labels shown with each, padded with None to one width) -> YES, NO or UNANSWERED,
# [images, labels], as vista.judges.LookingJudge.judge_images. An image may come several times.
LookFunction = Callable[[Sequence[int], Sequence[Sequence[str | None]]], VerdictArray]


def image_scores(
    layers: dict[int, LayerInput],
    n_images: int,
    look: LookFunction,
    ks: Sequence[int],
    seed: int,
    groups: Sequence[str | None] = (),
) -> Scores:
    """Show each image with the labels of its strongest latents, and them with another image.

    A judge sees all distinct labels of an image at once, over all layers, in alphabetical order:
    neither layer nor rank can sway it, and equal sets of labels are one question. A latent that
    is missing, or whose label is None or blank, cannot match.

    Args:
        layers: Rankings and labels, by layer.
        n_images: Number of images.
        look: Called once, with every image twice (once, if there is only one).
        ks: Numbers of latents to score.
        seed: Seed of the other images.
        groups: Group of each image; none: they have none.

    Raises:
        ValueError: As `require_fit`.
    """
    label_bn = {
        layer: [_labels(entry, row[: max(ks)]) for row in entry.ranked.latent_bn]
        for layer, entry in require_fit(layers, n_images, ks)
    }
    distinct = [
        sorted({label for rows in label_bn.values() for label in rows[b] if label is not None})
        for b in range(n_images)
    ]
    images = [*range(n_images), *(other_images(n_images, seed).tolist() if n_images > 1 else ())]
    shown = (distinct * 2)[: len(images)]
    width = max(map(len, shown), default=0)
    verdicts = look(images, [[*labels, *[None] * (width - len(labels))] for labels in shown])
    by_label = [
        dict(zip(labels, row, strict=False))
        for labels, row in zip(shown, verdicts.tolist(), strict=True)
    ]
    scores = {}
    for layer, rows in label_bn.items():
        own_bn, other_bn = (
            _verdicts(rows, part, max(ks)) for part in (by_label[:n_images], by_label[n_images:])
        )
        levels = {k: Level(_matches(own_bn[:, :k]), _matches(other_bn[:, :k])) for k in ks}
        scores[layer] = LayerScores(own_bn, levels, {})
    of_groups = {
        name: {layer: of_layer.of(rows) for layer, of_layer in scores.items()}
        for name, rows in group_rows(groups).items()
    }
    return Scores("image", n_images, None, scores, of_groups)


def _labels(entry: LayerInput, latents: NDArray[np.int64]) -> list[str | None]:
    """Return the label of each latent of one image, None where it is missing or blank."""
    labels = (entry.labels[s] if s >= 0 else None for s in latents.tolist())
    return [label if label and label.strip() else None for label in labels]


def _verdicts(
    label_bn: Sequence[Sequence[str | None]], by_label: Sequence[dict[str, int]], width: int
) -> VerdictArray:
    """Return the verdict on each label, [b, n]; UNANSWERED where there is no second image."""
    verdict_bn = np.full((len(label_bn), width), UNANSWERED, dtype=np.int8)
    for b, verdicts in enumerate(by_label):
        verdict_bn[b] = [NO if text is None else verdicts[text] for text in label_bn[b]]
    return verdict_bn


def _matches(verdict_bn: VerdictArray) -> NDArray[np.float64]:
    """Return [b]: 1 where a label is accepted, 0 where all are refused, NaN where one is open."""
    unknown_b = np.where((verdict_bn == UNANSWERED).any(axis=1), np.nan, 0.0)
    return np.where((verdict_bn == YES).any(axis=1), 1.0, unknown_b)
