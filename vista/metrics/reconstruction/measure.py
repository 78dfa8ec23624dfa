"""Reconstruction error and sparsity of the text SAE on the residual stream.

Measured on visual tokens, on the text after them and on a text control (the image replaced by the
reference answer), as in the VISTA paper (arXiv 2605.24946).

Suffixes: b images, t tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap, bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class TokenSums:
    """Sums over the valid tokens of each image, for one layer and token kind.

    Attributes:
        tokens_b: Number of valid tokens.
        error_b: Sum of the squared error, itself a mean over dimensions.
        norm2_b: Sum of the squared residual stream, a mean over dimensions.
        active_b: Sum of the number of active latents.
        total2_b: Squared sum of the residual stream, a mean over dimensions; None if unknown.
    """

    tokens_b: FloatArray
    error_b: FloatArray
    norm2_b: FloatArray
    active_b: FloatArray
    total2_b: FloatArray | None = None


def token_sums(
    error_bt: NDArray[Any],
    norm2_bt: NDArray[Any],
    nnz_bt: NDArray[Any],
    valid_bt: NDArray[Any],
    total2_b: FloatArray | None = None,
) -> TokenSums:
    """Sum values of tokens within each image, without tokens that are not valid (padding).

    All arguments are [b, t]; `total2_b` [b] is taken over as it is.

    Raises:
        ValueError: Shapes differ, or a valid token's error is not finite.
    """
    shapes = {error_bt.shape, norm2_bt.shape, nnz_bt.shape, valid_bt.shape}
    if len(shapes) != 1:
        raise ValueError(f"shapes differ: {sorted(shapes)}")
    valid = valid_bt.astype(bool)
    tokens_b, error_b, norm2_b, active_b = (
        np.where(valid, part, 0).sum(axis=1, dtype=np.float64)
        for part in (np.ones_like(valid), error_bt, norm2_bt, nnz_bt)
    )
    if not all(np.isfinite(part).all() for part in (error_b, norm2_b, active_b)):
        raise ValueError("error or norm of a valid token is not finite")
    return TokenSums(tokens_b, error_b, norm2_b, active_b, total2_b)


def join_sums(parts: list[TokenSums]) -> TokenSums:
    """Join the sums of consecutive images, as they come from a store read in pieces."""
    totals = [part.total2_b for part in parts if part.total2_b is not None]
    return TokenSums(
        np.concatenate([part.tokens_b for part in parts]),
        np.concatenate([part.error_b for part in parts]),
        np.concatenate([part.norm2_b for part in parts]),
        np.concatenate([part.active_b for part in parts]),
        np.concatenate(totals) if len(totals) == len(parts) else None,
    )


class LayerReconstruction(ResultPart):
    """Reconstruction on one layer and one kind of tokens."""

    layer: int = Field(description="Residual stream after this block, counted from 0.")
    token_kind: str = Field(description="image, text or control.")
    n_images: int = Field(description="Images with at least one token of this kind.")
    mse: Estimate = Field(description="Mean over tokens and dimensions of (SAE(x) - x)^2.")
    fvu: Estimate = Field(
        description="Fraction of variance unexplained: MSE / total variance. A dictionary that "
        "always answers the mean has 1, which is the chance level. The interval takes the mean "
        "vector of the stream as known."
    )
    l0: Estimate = Field(description="Mean number of active latents a token.")
    active_share: Estimate = Field(description="L0 / size of the dictionary, as published.")
    fired_share: Estimate = Field(
        description="Share of the dictionary's latents that fire on at least one token. n counts "
        "latents; a share that grows with the number of images has no bootstrap interval."
    )
    variance: Estimate = Field(
        description="Variance of the stream over tokens, mean over dimensions: what FVU divides "
        "by. The interval takes the mean vector as known."
    )
    stream_rms: Estimate = Field(
        description="Root of the mean over tokens and dimensions of x^2: how large the tokens are."
    )
    image_variance: Estimate = Field(
        description="Its part between images: variance of the images' mean vectors, weighted by "
        "their tokens. n counts images. None where the latents do not hold the images' totals."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of this layer and kind."""
        return [
            figure.figure(metric, self.layer, self.token_kind)
            for metric, figure in (
                ("mse", self.mse),
                ("fvu", self.fvu),
                ("l0", self.l0),
                ("active_share", self.active_share),
                ("fired_share", self.fired_share),
                ("variance", self.variance),
                ("stream_rms", self.stream_rms),
                ("image_variance", self.image_variance),
            )
        ]


class ReconstructionResult(MetricResult):
    """Reconstruction of all layers and token kinds."""

    parts: list[LayerReconstruction] = Field(description="One entry a layer and token kind.")

    def figures(self) -> list[Figure]:
        """Return the figures of every layer and kind."""
        return [row for part in self.parts for row in part.figures()]


def reconstruct_layer(
    sums: TokenSums,
    mean_square: float,
    fired_s: NDArray[np.bool_],
    *,
    layer: int,
    token_kind: str,
    seed: int,
    resamples: int,
    level: float,
) -> LayerReconstruction:
    """Return the figures of one layer and kind of tokens, with intervals over images.

    Args:
        sums: Sums over the tokens of each image.
        mean_square: Mean over dimensions of the squared mean vector of the stream.
        fired_s: Whether each latent of the dictionary fires on any of the tokens.
        layer: Block after which the stream was read.
        token_kind: image, text or control.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.
    """
    has = sums.tokens_b > 0
    tokens, error = sums.tokens_b[has], sums.error_b[has]
    norm2, active = sums.norm2_b[has], sums.active_b[has]
    n_tokens, n_images, n_latents = int(tokens.sum()), int(has.sum()), len(fired_s)

    def variance(means: FloatArray) -> FloatArray:
        # Below 0 by rounding only.
        return np.maximum(means[:, 1] / means[:, 0] - mean_square, 0.0)

    def rms(means: FloatArray) -> FloatArray:
        return np.sqrt(means[:, 1] / means[:, 0])

    def fvu(means: FloatArray) -> FloatArray:
        explainable = means[:, 1] / means[:, 0] - mean_square
        # A stream that never changes has no variance to explain.
        return np.where(explainable > 0, means[:, 2] / means[:, 0] / explainable, np.nan)

    draws = (seed, resamples, level)
    ratios = [bootstrap_ratio(part, tokens, *draws) for part in (error, active, active / n_latents)]
    fvu_interval = bootstrap(np.stack([tokens, norm2, error], 1), fvu, *draws)
    between = Estimate(value=None, n=0)
    if sums.total2_b is not None:
        # An image of n tokens counts n times its squared mean vector, (total / n)^2.
        columns = np.stack([tokens, sums.total2_b[has] / tokens], 1)
        between = estimate(bootstrap(columns, variance, *draws), n_images)
    return LayerReconstruction(
        layer=layer,
        token_kind=token_kind,
        n_images=n_images,
        mse=estimate(ratios[0], n_tokens),
        fvu=estimate(fvu_interval, n_tokens, chance=1.0),
        l0=estimate(ratios[1], n_tokens),
        active_share=estimate(ratios[2], n_tokens),
        fired_share=Estimate(value=float(fired_s.mean()) if n_tokens else None, n=n_latents),
        variance=estimate(bootstrap(np.stack([tokens, norm2], 1), variance, *draws), n_tokens),
        stream_rms=estimate(bootstrap(np.stack([tokens, norm2], 1), rms, *draws), n_tokens),
        image_variance=between,
    )
