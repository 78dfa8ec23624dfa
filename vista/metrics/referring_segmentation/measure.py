"""Scores of maps against what expressions mean, by kind of expression, with their controls.

Suffixes: b images, x expressions, p patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.data.expressions import KINDS, Kind
from vista.metrics.bootstrap import bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.patch_scores import map_scores
from vista.metrics.rates import rate_interval
from vista.metrics.referring_segmentation.masks import (
    Overlap,
    Target,
    Threshold,
    best_on_grid,
    choose_threshold,
    overlaps,
)
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

FloatArray = NDArray[np.float64]
Method = Literal["latents", "permuted", "logit_lens", "mean_mask", "best_patches"]
# A set of maps: the method, and the layer that they were read on.
Key = tuple[Method, int | None]
# IoU from which on an expression counts as found, in percent.
PRECISIONS = (50, 70, 90)


@dataclass(frozen=True)
class Expressions:
    """Expressions of a split with what they mean.

    Attributes:
        image_x: Image of each.
        kinds: Kind of each.
        targets: What each means.
    """

    image_x: NDArray[np.int64]
    kinds: Sequence[Kind]
    targets: Sequence[Target]


class KindScores(ResultPart):
    """Scores of one method on one kind of expression."""

    kind: Kind = Field(
        description="no_place: one object, no word of place (as in RefCOCO+); place: one object, "
        "with words of place; several: several objects; none: no object."
    )
    giou: Estimate = Field(
        description="Mean over expressions of the IoU of pixels; an empty prediction for an empty "
        "truth counts 1. Chance of latents: expressions permuted among images."
    )
    ciou: Estimate = Field(description="Sum of intersections over sum of unions.")
    precision: dict[int, Estimate] = Field(
        description="Share of expressions with an IoU of at least 50, 70 and 90 percent."
    )
    auroc: Estimate = Field(
        description="Area under the ROC curve of the map over patches; mean over expressions whose "
        "truth is some and not all patches. A map without any difference: .5."
    )
    average_precision: Estimate = Field(description="Average precision over patches, the same.")
    pointing: Estimate = Field(
        description="Share of these whose strongest patch is one of the truth; a map of zeros "
        "points nowhere. Chance of the mean mask: itself."
    )


class MethodScores(ResultPart):
    """Scores of one method on one layer."""

    method: Method = Field(description="Where the maps come from.")
    layer: int | None = Field(description="Block after which the stream was read; null: none.")
    threshold: float | None = Field(
        description="Value of the map above which a pixel is predicted, chosen on validation "
        "images; null: the best mask has none."
    )
    validation_giou: float | None = Field(description="Mean IoU there.")
    kinds: list[KindScores] = Field(description="One entry a kind that has expressions.")

    def figures(self, layer: int | None) -> list[Figure]:
        """Return the figures as those of a layer, or (None) of the chosen layer."""
        method = None if self.method == "latents" else self.method
        rows = []
        for part in self.kinds:
            named = {
                "referring_giou": part.giou,
                "referring_ciou": part.ciou,
                **{f"referring_precision_{p}": part.precision[p] for p in PRECISIONS},
                "referring_auroc": part.auroc,
                "referring_average_precision": part.average_precision,
                "referring_pointing": part.pointing,
            }
            rows += [
                figure.figure(name, layer, "image", of=part.kind, method=method)
                for name, figure in named.items()
            ]
        return rows


class ReferringResult(MetricResult):
    """Referring segmentation of all layers."""

    judge: str = Field(description="Judge that says which labels are a word of an expression.")
    n_images: int = Field(description="Images measured that have an expression.")
    n_expressions: int = Field(description="Their expressions.")
    n_validation: int = Field(description="Expressions that thresholds were chosen on.")
    named: dict[int, float] = Field(
        description="Share of the expressions of which a word has a latent, by layer."
    )
    chosen: dict[Method, int] = Field(
        description="Layer with the largest mean IoU on validation images, by method."
    )
    scores: list[MethodScores] = Field(description="One entry a method and layer.")

    def figures(self) -> list[Figure]:
        """Return the figures of each layer, then those without a layer: of the chosen layer, whose
        choice no test image had a part in, and of methods that read none."""
        layers = [
            row
            for part in self.scores
            if part.layer is not None
            for row in part.figures(part.layer)
        ]
        whole = [
            row
            for part in self.scores
            if part.layer is None or part.layer == self.chosen.get(part.method)
            for row in part.figures(None)
        ]
        return [*layers, *whole]


@dataclass(frozen=True)
class _Values:
    """Scores of each expression; NaN where one has none."""

    overlap: Overlap
    auroc_x: FloatArray
    average_precision_x: FloatArray
    pointing_x: FloatArray


def referring_segmentation(
    validation: Expressions,
    test: Expressions,
    validation_maps: Mapping[Key, NDArray[Any]],
    test_maps: Mapping[Key, NDArray[Any]],
    *,
    judge_name: str,
    named: Mapping[int, float],
    thresholds: int,
    mask_cover: float,
    seed: int,
    resamples: int,
    level: float,
) -> tuple[ReferringResult, dict[Key, FloatArray]]:
    """Score maps of expressions; return the result, and the IoU of each expression by set of maps.

    Args:
        validation: Expressions that thresholds, layers and the mean mask are chosen on.
        test: Expressions that are measured.
        validation_maps: Maps [x, p] of the methods `latents` and `logit_lens` there.
        test_maps: Their maps of the measured images, and those of `permuted`, whose threshold is
            that of `latents`.
        judge_name: Name of the judge, for the record.
        named: Share of the expressions that have a latent, by layer, for the record.
        thresholds: Thresholds that are compared.
        mask_cover: Share of a patch that makes it one of the truth.
        seed: Seed of the bootstrap over images.
        resamples: Number of resamples.
        level: Coverage of the intervals.

    Raises:
        ValueError: A split has no expression.
    """
    if not test.targets or not validation.targets:
        raise ValueError("both splits need expressions")
    mean_p = np.mean([target.cover() for target in validation.targets], axis=0)
    prior: Key = ("mean_mask", None)
    fitted = {**validation_maps, prior: np.tile(mean_p, (len(validation.targets), 1))}
    chosen = {
        key: choose_threshold(validation.targets, maps_xp, thresholds)
        for key, maps_xp in fitted.items()
    }
    maps = {**test_maps, prior: np.tile(mean_p, (len(test.targets), 1))}
    by_key = {
        key: chosen["latents", key[1]] if key[0] == "permuted" else chosen[key] for key in maps
    }
    values = _values(test, maps, by_key, mask_cover)
    layers = _best_layers(chosen)
    draws = (seed, resamples, level)
    scores = []
    for key, value in values.items():
        other = values.get(("permuted", key[1])) if key[0] == "latents" else None
        scores.append(_summarise(key, by_key.get(key), test, value, other, draws))
    scores += [
        part.model_copy(update={"layer": None})
        for part in scores
        if part.method == "permuted" and part.layer == layers.get("latents")
    ]
    result = ReferringResult(
        judge=judge_name,
        n_images=len(np.unique(test.image_x)),
        n_expressions=len(test.targets),
        n_validation=len(validation.targets),
        named=dict(named),
        chosen=layers,
        scores=scores,
    )
    return result, {key: value.overlap.iou_x for key, value in values.items()}


def _best_layers(chosen: Mapping[Key, Threshold]) -> dict[Method, int]:
    """Return the layer of each method with the largest mean IoU on validation images."""
    best: dict[Method, int] = {}
    for method in ("latents", "logit_lens"):
        means = {
            layer: one.mean_iou
            for (name, layer), one in chosen.items()
            if name == method and layer is not None
        }
        if means:
            best[method] = max(sorted(means), key=means.__getitem__)
    return best


def _values(
    test: Expressions,
    maps: Mapping[Key, NDArray[Any]],
    thresholds: Mapping[Key, Threshold],
    mask_cover: float,
) -> dict[Key, _Values]:
    truth_xp = np.array([target.patches(mask_cover) for target in test.targets])
    scored_x = np.asarray(truth_xp.any(axis=1) & ~truth_xp.all(axis=1))
    pixels = overlaps(test.targets, maps, {key: one.value for key, one in thresholds.items()})
    cover_xp = np.array([target.cover() for target in test.targets])
    best: Key = ("best_patches", None)
    values = {}
    for key, maps_xp in {**maps, best: cover_xp}.items():
        columns = np.full((3, len(scored_x)), np.nan)
        if scored_x.any():
            of_patches = map_scores(maps_xp[scored_x], truth_xp[scored_x], 1, 0)
            top_x = maps_xp[scored_x].argmax(axis=1)
            hit_x = truth_xp[scored_x][np.arange(len(top_x)), top_x]
            points_x = hit_x & (maps_xp[scored_x].max(axis=1) > 0)
            columns[:, scored_x] = (of_patches.auroc_i, of_patches.average_precision_i, points_x)
        overlap = best_on_grid(test.targets) if key == best else pixels[key]
        values[key] = _Values(overlap, *columns)
    return values


def _summarise(
    key: Key,
    threshold: Threshold | None,
    test: Expressions,
    value: _Values,
    permuted: _Values | None,
    draws: tuple[int, int, float],
) -> MethodScores:
    kinds = []
    for kind in KINDS:
        rows = np.flatnonzero([name == kind for name in test.kinds])
        if not len(rows):
            continue
        own = _kind_estimates(test.image_x[rows], rows, value, draws)
        if permuted is not None:
            chance = _kind_estimates(test.image_x[rows], rows, permuted, draws)
            own = {
                name: figure.model_copy(update={"chance": chance[name].value})
                for name, figure in own.items()
            }
        precision = {p: own.pop(f"precision_{p}") for p in PRECISIONS}
        kinds.append(KindScores(kind=kind, precision=precision, **own))
    return MethodScores(
        method=key[0],
        layer=key[1],
        threshold=threshold.value if threshold else None,
        validation_giou=threshold.mean_iou if threshold else None,
        kinds=kinds,
    )


def _kind_estimates(
    image_x: NDArray[np.int64],
    rows: NDArray[np.int64],
    value: _Values,
    draws: tuple[int, int, float],
) -> dict[str, Estimate]:
    """Return the figures of some expressions by name; `image_x` is the image of each of them."""
    seed, resamples, level = draws
    images, place_x = np.unique(image_x, return_inverse=True)

    def summed(values_x: FloatArray, kept_x: NDArray[np.bool_] | None = None) -> FloatArray:
        kept = slice(None) if kept_x is None else kept_x
        return np.asarray(
            np.bincount(place_x[kept], values_x[kept], minlength=len(images)), dtype=np.float64
        )

    def mean(values_x: FloatArray, rate: bool = False) -> Estimate:
        known_x = ~np.isnan(values_x)
        sum_b = summed(values_x, known_x)
        count_b = summed(np.ones(len(values_x)), known_x)
        if rate:
            interval = rate_interval(sum_b, count_b, level)
        else:
            kept_b = count_b > 0
            interval = bootstrap_ratio(sum_b[kept_b], count_b[kept_b], seed, resamples, level)
        return estimate(interval, int(known_x.sum()))

    iou_x = value.overlap.iou_x[rows]
    union_b = summed(value.overlap.union_x[rows])
    ratio = bootstrap_ratio(
        summed(value.overlap.intersection_x[rows]), union_b, seed, resamples, level
    )
    return {
        "giou": mean(iou_x),
        "ciou": estimate(ratio, len(rows)),
        **{f"precision_{p}": mean((iou_x >= p / 100).astype(float), rate=True) for p in PRECISIONS},
        "auroc": mean(value.auroc_x[rows]),
        "average_precision": mean(value.average_precision_x[rows]),
        "pointing": mean(value.pointing_x[rows], rate=True),
    }
