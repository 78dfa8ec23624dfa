"""Localization: do latents that are named after a class fire where the class is?

Two measurements. The pointing game of the VISTA paper (arXiv 2605.24946) is about latents that
matched: does the token where such a latent fires most touch its class's boxes? Activation maps are
scored for every (image, class in it) for which the class has a latent of its own, whether or not
the latent fires there: how well does its activation separate the object's patches? The pointing
game is in `vista.metrics.localization.pointing`.

Suffixes: b images, p patches, i (image, class) pairs, r permutations, s latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.config.metrics import MaskImages
from vista.metrics.bootstrap import bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.groups import group_rows
from vista.metrics.localization.pointing import (
    Play,
    PointingGame,
    Target,
    pointing_game,
    pointing_plays,
)
from vista.metrics.matching_rate.measure import JudgeFunction
from vista.metrics.patch_scores import MapScores, map_scores
from vista.metrics.ranking import Ranked
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Truth = Literal["box", "mask"]


@dataclass(frozen=True)
class LayerMaps:
    """Ranked latents, labels and activation maps of one layer.

    Attributes:
        ranked: Strongest eligible latents of each image, those of the pointing game.
        labels: Label of every latent, None where it has none.
        own_latent: Class -> its own latent, for classes that have one (see `own_latents`).
        activation: (image, latent) -> activation on every patch, [p], zeros where it is silent.
        unmasked: As `ranked`, without frequency and density mask.
        salient_b: Token of each image with the largest norm of the residual stream.
    """

    ranked: Ranked
    labels: Sequence[str | None]
    own_latent: dict[str, int]
    activation: Callable[[int, int], NDArray[Any]]
    unmasked: Ranked
    salient_b: NDArray[np.int64]


class MapFigures(ResultPart):
    """How well the class's own latent marks the class's patches, against boxes or masks."""

    truth: Truth = Field(description="box: patches that touch the boxes; mask: patches covered.")
    auroc: Estimate = Field(
        description="Area under the ROC curve of the activation over patches; mean over all "
        "(image, class present) pairs whose class has a latent of its own, whether or not it "
        "matched or fires (silent: .5). Pairs in which all patches or none are the object are "
        "left out."
    )
    average_precision: Estimate = Field(
        description="Average precision over patches, same pairs; chance: the map's patches "
        "permuted."
    )
    iou_active: Estimate = Field(
        description="Intersection over union of the patches where the latent fires (activation "
        "> 0) with the object's, same pairs; silent: 0. Chance: the map's patches permuted."
    )
    iou_best: Estimate = Field(
        description="The same at each pair's best threshold above 0: an upper bound, so compare "
        "it with its chance level, which has the same freedom."
    )

    def figures(self, layer: int | None, group: str | None = None) -> list[Figure]:
        """Return the figures against this truth (`of`), on a layer or (None) over all layers, of
        one group of the images or (None) all."""
        return [
            figure.figure(metric, layer, "image", of=self.truth, set=group)
            for metric, figure in (
                ("auroc", self.auroc),
                ("average_precision", self.average_precision),
                ("iou_active", self.iou_active),
                ("iou_best", self.iou_best),
            )
        ]


class LayerLocalization(PointingGame):
    """Localization on one layer, or pooled over all layers."""

    layer: int | None = Field(description="Block after which the stream was read; null: all.")
    n_named_classes: int = Field(
        description="Classes that have a latent of their own: of those whose label is the class "
        "word the one whose label dominates its contexts most; at a tie the label of fewest words, "
        "then the lowest number. It does not depend on the images."
    )
    unmasked: PointingGame = Field(
        description="The pointing game with the latents that rank first without frequency and "
        "density mask."
    )
    maps: list[MapFigures] = Field(description="Figures against boxes, then against masks.")

    def figures(self, group: str | None = None) -> list[Figure]:
        """Return the figures of this layer, of one group of the images or (None) all."""
        return [
            *self.game_figures(self.layer, group, None),
            *self.unmasked.game_figures(self.layer, group, "unmasked"),
            *(row for figures in self.maps for row in figures.figures(self.layer, group)),
        ]


class LocalizationResult(MetricResult):
    """Localization of all layers."""

    judge: str = Field(description="Judge that decides which label is the class word.")
    n_images: int = Field(description="Images measured.")
    n_patches: int = Field(description="Patches of an image.")
    min_patches: int = Field(description="Least patches of a box in the pointing game.")
    max_patches: int = Field(description="Most patches of a box in the pointing game.")
    mask_images: MaskImages = Field(
        description="Images that the frequency mask's shares were estimated on: the validation "
        "split, or the measured images themselves (as published, or for want of others)."
    )
    n_mask_images: int = Field(description="Number of those images.")
    n_targets: int = Field(description="(image, class present) pairs in all.")
    n_targets_in_limits: int = Field(description="Those with a box within the size limits.")
    layers: list[LayerLocalization] = Field(description="One entry a layer, ascending.")
    over_layers: LayerLocalization = Field(description="Pairs of all layers pooled.")
    groups: dict[str, LayerLocalization] = Field(
        default_factory=dict,
        exclude_if=lambda groups: not groups,
        description="The same of each group of the images, if there are any.",
    )

    def figures(self) -> list[Figure]:
        """Return the figures of each layer, then those pooled over layers (layer None), then those
        of groups of images (column `set`)."""
        return [
            *(row for part in (*self.layers, self.over_layers) for row in part.figures()),
            *(row for name, part in self.groups.items() for row in part.figures(name)),
        ]


def own_latents(
    labels: Sequence[str | None],
    share_s: NDArray[Any],
    categories: Sequence[str],
    judge: JudgeFunction,
) -> dict[str, int]:
    """Return the one latent that is named after each class, without looking at images.

    Of several latents whose label is the class word, the one whose label dominates its contexts
    most (largest `share_s`, NaN last) is taken. Imported labels are sentences and all tie there: of
    them the one of fewest words is taken, which adds least to the class. Then the lowest number.
    """
    share_s = np.nan_to_num(np.asarray(share_s, dtype=np.float64), nan=-1.0)
    words_s = [len((label or "").split()) for label in labels]
    labelled = [s for s, label in enumerate(labels) if label and label.strip()]
    verdict_lc = judge([labels[s] for s in labelled], categories)
    chosen: dict[str, int] = {}
    for c, category in enumerate(categories):
        latents = [labelled[i] for i in np.flatnonzero(verdict_lc[:, c])]
        if latents:
            chosen[category] = min(latents, key=lambda s: (-share_s[s], words_s[s], s))
    return chosen


@dataclass(frozen=True)
class _LayerValues:
    """Turns of the pointing game with masks and without, and per-pair scores of the maps with the
    pairs' images."""

    plays: list[Play]
    unmasked: list[Play]
    scores: dict[Truth, tuple[NDArray[np.int64], MapScores]]

    def of(self, rows: NDArray[np.int64]) -> _LayerValues:
        """Return the values of some images."""
        chosen = set(rows.tolist())
        kept = {truth: np.isin(images, rows) for truth, (images, _) in self.scores.items()}
        return _LayerValues(
            [play for play in self.plays if play.image in chosen],
            [play for play in self.unmasked if play.image in chosen],
            {
                truth: (images[kept[truth]], scores.of(kept[truth]))
                for truth, (images, scores) in self.scores.items()
            },
        )


def localization(
    layers: dict[int, LayerMaps],
    targets: Sequence[Target],
    judge: JudgeFunction,
    *,
    judge_name: str,
    n_images: int,
    n_patches: int,
    min_patches: int,
    max_patches: int,
    mask_images: MaskImages,
    n_mask_images: int,
    permutations: int,
    seed: int,
    resamples: int,
    level: float,
    groups: Sequence[str | None] = (),
) -> tuple[LocalizationResult, list[Play]]:
    """Return the pointing game and the scores of the maps of every layer, and every turn played.

    Args:
        layers: Rankings, labels and activations, by layer.
        targets: Every class in every image, at most one entry a pair.
        judge: Strict judge: whole word, singular or plural.
        judge_name: Its name, for the record.
        n_images: Number of images measured.
        n_patches: Patches of an image.
        min_patches: Least patches of a box to play, on this grid.
        max_patches: Most patches, on this grid.
        mask_images: Images that the frequency mask was estimated on, for the record.
        n_mask_images: Their number, for the record.
        permutations: Permutations for the chance levels of average precision and IoU.
        seed: Seed of the bootstrap and the permutations.
        resamples: Number of resamples.
        level: Coverage of the intervals.
        groups: Group of each image; none: they have none.

    Raises:
        ValueError: An image or patch array does not fit, or a pair comes twice.
    """
    for target in targets:
        if not 0 <= target.image < n_images or target.box_p.shape != (n_patches,):
            raise ValueError(f"{target.category} in image {target.image} does not fit")
    if len({(t.image, t.category) for t in targets}) != len(targets):
        raise ValueError("a class comes twice for one image: join its boxes first")
    playing = [(target, target.playing(min_patches, max_patches)) for target in targets]
    in_limits = [(target, playing_p) for target, playing_p in playing if playing_p.any()]
    draws = (seed, resamples, level)
    values: dict[int, _LayerValues] = {}
    for layer, maps in sorted(layers.items()):
        plays, unmasked = (
            pointing_plays(layer, ranked, maps.labels, maps.salient_b, in_limits, judge)
            for ranked in (maps.ranked, maps.unmasked)
        )
        scores = {truth: _scores(maps, targets, truth, permutations, seed) for truth in _TRUTHS}
        values[layer] = _LayerValues(plays, unmasked, scores)
    pooled = _pool(list(values.values()))
    named = set().union(*(maps.own_latent for maps in layers.values()))
    result = LocalizationResult(
        judge=judge_name,
        n_images=n_images,
        n_patches=n_patches,
        min_patches=min_patches,
        max_patches=max_patches,
        mask_images=mask_images,
        n_mask_images=n_mask_images,
        n_targets=len(targets),
        n_targets_in_limits=len(in_limits),
        layers=[
            _summarise(layer, part, len(layers[layer].own_latent), n_images, draws)
            for layer, part in values.items()
        ],
        over_layers=_summarise(None, pooled, len(named), n_images, draws),
        groups={
            name: _summarise(None, pooled.of(rows), len(named), n_images, draws)
            for name, rows in group_rows(groups).items()
        },
    )
    return result, pooled.plays


_TRUTHS: tuple[Truth, Truth] = ("box", "mask")


def _scores(
    maps: LayerMaps, targets: Sequence[Target], truth: Truth, permutations: int, seed: int
) -> tuple[NDArray[np.int64], MapScores]:
    """Return the image of each pair of image and class, and the scores of its latent's map."""
    chosen = []
    for target in targets:
        truth_p = target.box_p if truth == "box" else target.mask_p
        if truth_p is not None and truth_p.any() and not truth_p.all():
            latent = maps.own_latent.get(target.category)
            if latent is not None:
                chosen.append((target.image, latent, truth_p))
    images = np.array([image for image, _, _ in chosen], dtype=np.int64)
    if not chosen:
        return images, MapScores.empty()
    activation_ip = np.stack([maps.activation(image, latent) for image, latent, _ in chosen])
    truth_ip = np.stack([truth_p for _, _, truth_p in chosen])
    return images, map_scores(activation_ip, truth_ip, permutations, seed)


def _pool(parts: list[_LayerValues]) -> _LayerValues:
    none = np.zeros(0, dtype=np.int64)
    return _LayerValues(
        [play for part in parts for play in part.plays],
        [play for part in parts for play in part.unmasked],
        {
            truth: (
                np.concatenate([none, *(part.scores[truth][0] for part in parts)]),
                MapScores.join([part.scores[truth][1] for part in parts]),
            )
            for truth in _TRUTHS
        },
    )


def _summarise(
    layer: int | None,
    values: _LayerValues,
    n_named: int,
    n_images: int,
    draws: tuple[int, int, float],
) -> LayerLocalization:
    return LayerLocalization(
        **dict(pointing_game(values.plays, n_images, draws)),
        layer=layer,
        n_named_classes=n_named,
        unmasked=pointing_game(values.unmasked, n_images, draws),
        maps=[_figures(truth, *values.scores[truth], n_images, draws) for truth in _TRUTHS],
    )


def _figures(
    truth: Truth,
    image_i: NDArray[np.int64],
    scores: MapScores,
    n_images: int,
    draws: tuple[int, int, float],
) -> MapFigures:
    count_b = np.bincount(image_i, minlength=n_images).astype(np.float64)
    has = count_b > 0
    n = len(image_i)

    def mean(score_i: FloatArray, chance: float | None) -> Estimate:
        sum_b = np.bincount(image_i, weights=score_i, minlength=n_images)
        interval = bootstrap_ratio(sum_b[has], count_b[has], *draws)
        return estimate(interval, n, chance if n else None)

    def level(chance_i: FloatArray) -> float | None:
        return float(chance_i.mean()) if n else None

    return MapFigures(
        truth=truth,
        auroc=mean(scores.auroc_i, 0.5),
        average_precision=mean(
            scores.average_precision_i, level(scores.average_precision_chance_i)
        ),
        iou_active=mean(scores.iou_active_i, level(scores.iou_active_chance_i)),
        iou_best=mean(scores.iou_best_i, level(scores.iou_best_chance_i)),
    )
