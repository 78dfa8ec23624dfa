"""Directions as detectors: AUROC of projections of tokens, by block and over blocks.

Images of the fit split are parted: directions are fitted on most of them, and on the rest, for each
class and method, a logistic regression of the class on the projections of all blocks. Both are
scored on the test split. Classes that lack images, or a direction of some method, are left out for
all methods.

Shape legend: n token, d width, c class, l block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.interventions.directions import unit_rows
from vista.interventions.feature_machine import rfm
from vista.interventions.methods.logistic import logistic
from vista.interventions.methods.mean_difference import mean_difference
from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate
from vista.metrics.selectivity import selectivity

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Rows = NDArray[np.float32]

OURS, RANDOM = "rfm", "random"
# Place of the combination of all blocks among the blocks.
STACKED = -1


@dataclass(frozen=True)
class Tokens:
    """Sampled visual tokens.

    Attributes:
        x_nd: The stream at each token, by block.
        positive_cn: Which classes are at each token.
        image_n: The image of each token.
    """

    x_nd: Mapping[int, NDArray[Any]]
    positive_cn: Bools
    image_n: NDArray[np.int64]

    def of(self, chosen_n: Bools) -> Tokens:
        """Return the chosen tokens."""
        x_nd = {layer: x_nd[chosen_n] for layer, x_nd in self.x_nd.items()}
        return Tokens(x_nd, self.positive_cn[:, chosen_n], self.image_n[chosen_n])


class MethodDetection(ResultPart):
    """One method's directions; means over classes."""

    layers: dict[int, Estimate] = Field(description="Block -> AUROC of the projection.")
    stacked: Estimate = Field(description="AUROC of the combination of all blocks' projections.")


class DirectionDetectionResult(MetricResult):
    """AUROC of projections of test tokens; chance is .5."""

    classes: int = Field(description="Classes that figures are means over.")
    left_out: list[str] = Field(description="Classes with too few images or without a direction.")
    fit_images: int = Field(description="Images that directions are fitted on.")
    stack_images: int = Field(description="Images that combinations are fitted on.")
    images: int = Field(description="Images that both are scored on.")
    tokens: int = Field(description="Tokens of these images.")
    methods: dict[str, MethodDetection] = Field(
        description="Method, or random: a random direction a class with the better sign."
    )
    gains: dict[str, MethodDetection] = Field(
        description="Rival -> AUROC of rfm less that of the rival, over the same classes."
    )

    def figures(self) -> list[Figure]:
        """Return a row for each method and block, and one over blocks (layer None); then the gains
        of rfm."""
        return [
            *(
                score.figure("detection_auroc", layer, method=method)
                for method, detection in self.methods.items()
                for layer, score in _places(detection)
            ),
            *(
                gain.figure("detection_gain", layer, of=rival, method=OURS)
                for rival, detection in self.gains.items()
                for layer, gain in _places(detection)
            ),
        ]


def _places(detection: MethodDetection) -> list[tuple[int | None, Estimate]]:
    return [*sorted(detection.layers.items()), (None, detection.stacked)]


def detect(
    names: Sequence[str],
    fit: Tokens,
    test: Tokens,
    methods: Sequence[str],
    *,
    stacked: float,
    min_images: int,
    regularisation: float,
    seed: int,
    bootstrap_seed: int,
    resamples: int,
    level: float,
) -> tuple[DirectionDetectionResult, dict[str, list[Any]]]:
    """Fit directions and combinations, and score them.

    Args:
        names: The classes.
        fit: Tokens to fit on.
        test: Tokens to score on, at the same blocks.
        methods: Methods of directions.
        stacked: Share of the images of `fit` that combinations are fitted on.
        min_images: Images of either split that a class is in, at least.
        regularisation: L2 penalty of logistic regressions.
        seed: Of all draws.
        bootstrap_seed: Of the intervals, over classes.
        resamples: Bootstrap samples.
        level: Coverage of the intervals.

    Returns:
        The result, and columns of one row a method, block (-1: all) and class: its AUROC.

    Raises:
        ValueError: No class is left.
    """
    images = np.unique(fit.image_n)
    drawn = np.random.default_rng(seed).permutation(images)
    for_stack_n = np.isin(fit.image_n, drawn[: max(1, round(stacked * len(images)))])
    base, stack = fit.of(~for_stack_n), fit.of(for_stack_n)
    enough_c = (_images_with(fit) >= min_images) & (_images_with(test) >= min_images)
    enough_c &= _both_labels(base) & _both_labels(stack) & _both_labels(test)
    directions = {
        (method, layer): _directions(method, base, layer, enough_c, regularisation, seed)
        for method in (*methods, RANDOM)
        for layer in fit.x_nd
    }
    for rows_cd in directions.values():
        enough_c &= rows_cd.any(axis=1)
    if not enough_c.any():
        raise ValueError(
            f"no class is in {min_images} images of either split and has a direction of each method"
        )
    kept = np.flatnonzero(enough_c)
    auroc = {
        method: _aurocs(
            {layer: directions[method, layer][kept] for layer in fit.x_nd},
            (stack, test),
            kept,
            regularisation,
        )
        for method in (*methods, RANDOM)
    }

    def summary(values: Mapping[int, Floats], chance: float) -> MethodDetection:
        means = {
            layer: estimate(
                bootstrap_mean(value_c, bootstrap_seed, resamples, level), len(value_c), chance
            )
            for layer, value_c in values.items()
        }
        return MethodDetection(stacked=means.pop(STACKED), layers=means)

    rivals = [method for method in auroc if method != OURS] if OURS in auroc else []
    result = DirectionDetectionResult(
        classes=len(kept),
        left_out=[name for name, enough in zip(names, enough_c, strict=True) if not enough],
        fit_images=len(np.unique(base.image_n)),
        stack_images=len(np.unique(stack.image_n)),
        images=len(np.unique(test.image_n)),
        tokens=len(test.image_n),
        methods={method: summary(values, 0.5) for method, values in auroc.items()},
        gains={
            rival: summary({at: auroc[OURS][at] - auroc[rival][at] for at in auroc[rival]}, 0.0)
            for rival in rivals
        },
    )
    rows = [
        (method, layer, names[c], float(value))
        for method, values in auroc.items()
        for layer, value_c in values.items()
        for c, value in zip(kept.tolist(), value_c, strict=True)
    ]
    columns = zip(*rows, strict=True)
    return result, {
        key: list(column)
        for key, column in zip(("method", "layer", "class", "auroc"), columns, strict=True)
    }


def _directions(
    method: str, tokens: Tokens, layer: int, enough_c: Bools, regularisation: float, seed: int
) -> Rows:
    """Return a method's directions of the classes that are scored, unit rows [c, d]; zeros of the
    others."""
    x_nd, positive_cn = tokens.x_nd[layer], tokens.positive_cn[enough_c]
    rows_cd = np.zeros((len(enough_c), x_nd.shape[1]), np.float32)
    if method == "mean_difference":
        rows_cd[enough_c] = mean_difference(x_nd, positive_cn)
    elif method == "logistic":
        rows_cd[enough_c] = logistic(x_nd, positive_cn, regularisation)
    elif method == OURS:
        rows_cd[enough_c] = rfm(x_nd, positive_cn, tokens.image_n, seed)
    else:
        drawn_cd = np.random.default_rng([seed, layer]).standard_normal(rows_cd.shape)
        # As the sign of an eigenvector is.
        means_cd = mean_difference(x_nd, positive_cn)
        drawn_cd[enough_c] *= np.where((drawn_cd[enough_c] * means_cd).sum(1) < 0, -1, 1)[:, None]
        rows_cd[enough_c] = unit_rows(drawn_cd)[enough_c]
    return rows_cd


def _aurocs(
    rows_cd: Mapping[int, Rows],
    splits: tuple[Tokens, Tokens],
    kept: NDArray[np.int64],
    regularisation: float,
) -> dict[int, Floats]:
    """Return the AUROC of each class [c] on the second split, by block; of all blocks under
    `STACKED`: of the combination that is fitted on the first split."""
    from sklearn.linear_model import LogisticRegression

    stack_lnc, test_lnc = (
        np.stack([tokens.x_nd[layer] @ rows.T for layer, rows in rows_cd.items()])
        for tokens in splits
    )
    stack_nc, test_nc = (tokens.positive_cn[kept].T for tokens in splits)
    # One block's projections differ in scale from another's.
    scale_lc = np.maximum(stack_lnc.std(axis=1), 1e-12)
    combined_nc = np.empty(test_nc.shape)
    for c in range(len(kept)):
        model = LogisticRegression(C=1 / regularisation, class_weight="balanced")
        model.fit(stack_lnc[:, :, c].T / scale_lc[:, c], stack_nc[:, c])
        combined_nc[:, c] = model.decision_function(test_lnc[:, :, c].T / scale_lc[:, c])
    scores = {**dict(zip(rows_cd, test_lnc, strict=True)), STACKED: combined_nc}
    return {place: _own(score_nc, test_nc) for place, score_nc in scores.items()}


def _own(score_nc: NDArray[Any], positive_nc: Bools) -> Floats:
    """Return the AUROC of each score for the class of its column, [c]."""
    return np.array(
        [selectivity(score_nc[:, [c]], positive_nc[:, [c]])[0, 0] for c in range(score_nc.shape[1])]
    )


def _images_with(tokens: Tokens) -> NDArray[np.int64]:
    """Return in how many images each class is, [c]."""
    return np.array([len(np.unique(tokens.image_n[row_n])) for row_n in tokens.positive_cn])


def _both_labels(tokens: Tokens) -> Bools:
    return np.asarray(tokens.positive_cn.any(axis=1) & ~tokens.positive_cn.all(axis=1))
