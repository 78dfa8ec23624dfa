"""Scores of maps against what expressions mean, by kind of expression, with their controls.

Suffixes: b images, x expressions, p patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.data.expressions import KINDS, Kind
from vista.metrics.bootstrap import bootstrap, bootstrap_ratio
from vista.metrics.groups import group_rows
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
from vista.metrics.referring_segmentation.scores import (
    GAINS,
    PERMUTED_OF,
    PRECISIONS,
    RIVALS,
    KindOrAll,
    KindScores,
    Method,
    MethodScores,
    ReferringResult,
)
from vista.metrics.result import Estimate, estimate

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]
# A set of maps: the method, and the layer that they were read on.
Key = tuple[Method, int | None]


@dataclass(frozen=True)
class Expressions:
    """Expressions of a split with what they mean.

    Attributes:
        image_x: Image of each.
        kinds: Kind of each.
        targets: What each means.
        groups: Group of the image of each.
    """

    image_x: Rows
    kinds: Sequence[Kind]
    targets: Sequence[Target]
    groups: Sequence[str | None] = ()


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
        test_maps: Their maps of the measured images, and those of both on permuted expressions,
            whose threshold is that of the method.
        judge_name: Name of the judge, for the record.
        named: Share of the expressions that name a latent, by layer, for the record.
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
    by_key = {(method, layer): chosen[_unpermuted(method), layer] for method, layer in maps}
    values = _values(test, maps, by_key, mask_cover)
    iou_x = {key: value.overlap.iou_x for key, value in values.items()}
    layers = _best_layers(chosen)
    for method, layer in list(maps):
        if layer is not None and layer == layers.get(_unpermuted(method)):
            values[method, None], by_key[method, None] = (
                values[method, layer],
                by_key[method, layer],
            )
    parts = _rows_by_kind(test.kinds, np.arange(len(test.kinds)))
    groups = {
        name: _rows_by_kind(test.kinds, rows) for name, rows in group_rows(test.groups).items()
    }
    sums = {
        key: _Sums(test.image_x, value, draws=(seed, resamples, level))
        for key, value in values.items()
    }
    scores = [
        MethodScores(
            method=key[0],
            layer=key[1],
            threshold=by_key[key].value if key in by_key else None,
            validation_giou=by_key[key].mean_iou if key in by_key else None,
            kinds=_kind_scores(key, parts, sums),
            groups={name: _kind_scores(key, part, sums) for name, part in groups.items()}
            if key[1] is None
            else {},
        )
        for key in sums
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
    return result, iou_x


def _unpermuted(method: Method) -> Method:
    return PERMUTED_OF.get(method, method)


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


def _rows_by_kind(kinds: Sequence[Kind], rows: Rows) -> dict[KindOrAll, Rows]:
    """Return which of some expressions are of each kind that has one, then all of them."""
    kind_x = np.array([kinds[x] for x in rows.tolist()])
    of_kind: dict[KindOrAll, Rows] = {kind: rows[kind_x == kind] for kind in KINDS}
    return {kind: own for kind, own in of_kind.items() if len(own)} | {"all": rows}


def _kind_scores(
    key: Key, parts: Mapping[KindOrAll, Rows], sums: Mapping[Key, _Sums]
) -> list[KindScores]:
    """Return the scores of one set of maps on each kind, with its chance level and its gains."""
    method, layer = key
    level = next((sums.get((one, layer)) for one, of in PERMUTED_OF.items() if of == method), None)
    rivals = {rival: sums.get((rival, layer), sums.get((rival, None))) for rival in RIVALS}
    kinds = []
    for kind, rows in parts.items():
        own = sums[key].estimates(rows)
        if level is not None:
            chance = level.estimates(rows)
            own = {
                name: one.model_copy(update={"chance": chance[name].value})
                for name, one in own.items()
            }
        gains = {
            rival: sums[key].gains(rows, other)
            for rival, other in rivals.items()
            if method == "latents" and other is not None
        }
        precision = {p: own.pop(f"precision_{p}") for p in PRECISIONS}
        kinds.append(KindScores(kind=kind, precision=precision, gains=gains, **own))
    return kinds


@dataclass(frozen=True)
class _Ratio:
    """A score as the ratio of two sums over images.

    Attributes:
        numerator_b, denominator_b: Sums over the expressions of each image that has the score.
        n: Expressions that have it.
        is_rate: Whether each of them is a hit or a miss.
    """

    numerator_b: FloatArray
    denominator_b: FloatArray
    n: int
    is_rate: bool


@dataclass(frozen=True)
class _Sums:
    """Scores of one set of maps, to be summed within images.

    Attributes:
        image_x: Image of each expression.
        values: Scores of each expression.
        draws: Seed, resamples and level of the intervals.
    """

    image_x: Rows
    values: _Values
    draws: tuple[int, int, float]

    def ratios(self, rows: Rows) -> dict[str, _Ratio]:
        """Return the scores of some expressions by name."""
        images, place_x = np.unique(self.image_x[rows], return_inverse=True)

        def summed(values_x: FloatArray) -> FloatArray:
            sum_b = np.bincount(place_x, values_x, minlength=len(images))
            return np.asarray(sum_b, dtype=np.float64)

        def mean(values_x: FloatArray, is_rate: bool = False) -> _Ratio:
            known_x = ~np.isnan(values_x)
            count_b = summed(known_x.astype(float))
            kept_b = count_b > 0
            sum_b = summed(np.where(known_x, values_x, 0.0))
            return _Ratio(sum_b[kept_b], count_b[kept_b], int(known_x.sum()), is_rate)

        overlap, iou_x = self.values.overlap, self.values.overlap.iou_x[rows]
        intersection_b, union_b = (
            summed(pixels_x[rows]) for pixels_x in (overlap.intersection_x, overlap.union_x)
        )
        return {
            "giou": mean(iou_x),
            "ciou": _Ratio(intersection_b, union_b, len(rows), is_rate=False),
            **{f"precision_{p}": mean((iou_x >= p / 100).astype(float), True) for p in PRECISIONS},
            "auroc": mean(self.values.auroc_x[rows]),
            "average_precision": mean(self.values.average_precision_x[rows]),
            "pointing": mean(self.values.pointing_x[rows], True),
        }

    def estimates(self, rows: Rows) -> dict[str, Estimate]:
        """Return the figures of some expressions by name."""
        seed, resamples, level = self.draws
        figures = {}
        for name, ratio in self.ratios(rows).items():
            sums = ratio.numerator_b, ratio.denominator_b
            interval = (
                rate_interval(*sums, level)
                if ratio.is_rate
                else bootstrap_ratio(*sums, seed, resamples, level)
            )
            figures[name] = estimate(interval, ratio.n)
        return figures

    def gains(self, rows: Rows, rival: _Sums) -> dict[str, Estimate]:
        """Return the scores less those of a rival, on the same resampled images."""
        ours, theirs = self.ratios(rows), rival.ratios(rows)
        figures = {}
        for name in GAINS:
            # A score depends on the truth alone for which expressions have it: images are the same.
            sums_b4 = np.stack(
                [
                    *(ours[name].numerator_b, ours[name].denominator_b),
                    *(theirs[name].numerator_b, theirs[name].denominator_b),
                ],
                axis=1,
            )
            interval = bootstrap(
                sums_b4, lambda m: m[:, 0] / m[:, 1] - m[:, 2] / m[:, 3], *self.draws
            )
            figures[name] = estimate(interval, ours[name].n, 0.0)
        return figures
