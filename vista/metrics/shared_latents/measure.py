"""Shared latents: latents of a text SAE that are selective for a concept in words and in images.

A latent is selective if the AUROC with which its activation tells the tokens of the concept from
all others reaches a bound. On text the tokens of the concept are those of its word, on images the
patches that it covers. The chance level is exact, without a random draw: the words of one concept
with the patches of every other one. (Definitions ours: of arXiv 2508.11277 only the abstract is
public.)

Legend of shape suffixes: n entry (a latent that fires on a token), t token, c concept, s latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class LayerShared(ResultPart):
    """Concepts with selective latents of one layer, or (layer null) of any layer."""

    layer: int | None = Field(description="Residual stream after this block, counted from 0.")
    shared: Estimate = Field(
        description="Share of concepts with a latent that is selective for them on text and on "
        "images. Chance: on the text of one concept and the images of another, mean over all pairs."
    )
    on_text: Estimate = Field(
        description="Share of concepts with a latent selective on text. Chance: the latent is "
        "selective on the texts of another concept, too (it fires on every noun), mean over all "
        "pairs."
    )
    on_images: Estimate = Field(
        description="Share of concepts with a latent selective on images; chance likewise."
    )
    transfer: Estimate | None = Field(
        description="AUROC on images of each concept's best latent on text, mean over concepts. "
        "Chance: on the images of every other concept. Null over layers."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of this layer."""
        rows = [
            self.shared.figure("shared_concepts", self.layer),
            self.on_text.figure("selective_concepts", self.layer, "control"),
            self.on_images.figure("selective_concepts", self.layer, "image"),
        ]
        if self.transfer is not None:
            rows.append(self.transfer.figure("transfer_auroc", self.layer, "image"))
        return rows


class SharedLatentsResult(MetricResult):
    """Shared latents of all layers."""

    min_auroc: float = Field(description="AUROC from which a latent is selective.")
    n_concepts: int = Field(description="Concepts with enough images and texts.")
    n_too_rare: int = Field(description="Concepts left out: in too few images or texts.")
    layers: list[LayerShared] = Field(description="One entry a layer, ascending.")
    any_layer: LayerShared = Field(description="A latent of any layer counts.")

    def figures(self) -> list[Figure]:
        """Return the figures of each layer, then those of any layer (layer None)."""
        return [row for part in (*self.layers, self.any_layer) for row in part.figures()]


def mark(token_m: IntArray, concept_m: IntArray, n_tokens: int, n_concepts: int) -> Any:
    """Return which concepts each token belongs to as a sparse array [t, c].

    Args:
        token_m: Token of each pair of token and concept; a pair may come twice.
        concept_m: Its concept.
        n_tokens: Number of tokens.
        n_concepts: Number of concepts.
    """
    from scipy.sparse import csr_array

    token_m, concept_m = np.unique(np.stack([token_m, concept_m]), axis=1)
    return csr_array((np.ones(len(token_m)), (token_m, concept_m)), (n_tokens, n_concepts))


def selectivity(
    latent_n: NDArray[Any],
    token_n: NDArray[Any],
    value_n: NDArray[Any],
    positive_tc: Any,
    size: int,
) -> FloatArray:
    """Return the exact AUROC of each of `size` latents for each concept over all tokens, [s, c].

    A latent is 0 on most tokens, so only its entries are ranked: its zeros share one rank below
    them. A tie counts half. NaN for a concept of no token, or of all tokens.

    Args:
        latent_n: Latent of each entry, below `size`.
        token_n: Token of each entry.
        value_n: Activation of each entry, above 0.
        positive_tc: Which concepts each token belongs to, as `mark` gives it.
        size: Number of latents.
    """
    from scipy.sparse import csr_array

    n_tokens = positive_tc.shape[0]
    order = np.lexsort((value_n, latent_n))
    latent_n, token_n, value_n = latent_n[order], token_n[order], value_n[order]
    place_n = np.arange(len(order))
    starts_n = np.ones(len(order), dtype=bool)
    starts_n[1:] = (latent_n[1:] != latent_n[:-1]) | (value_n[1:] != value_n[:-1])
    # Equal values share the mean of their ranks.
    tie_n = np.cumsum(starts_n) - 1
    rank_n = (np.bincount(tie_n, place_n) / np.maximum(np.bincount(tie_n), 1))[tie_n]
    fired_s = np.bincount(latent_n, minlength=size)
    first_s = np.cumsum(fired_s) - fired_s
    zeros_s = n_tokens - fired_s
    rank_n += 1 + (zeros_s - first_s)[latent_n]

    def sums(weight_n: FloatArray) -> FloatArray:
        weight_st = csr_array((weight_n, (latent_n, token_n)), (size, n_tokens))
        return np.asarray((weight_st @ positive_tc).toarray(), dtype=np.float64)

    positive_c = positive_tc.sum(axis=0)
    silent_sc = positive_c - sums(np.ones(len(order)))
    rank_sc = sums(rank_n) + silent_sc * ((zeros_s + 1) / 2)[:, None]
    pairs_c = positive_c * (n_tokens - positive_c)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((rank_sc - positive_c * (positive_c + 1) / 2) / pairs_c)


def least_entries(positive_tc: Any, min_auroc: float) -> float:
    """Return on how many tokens a latent must fire to reach `min_auroc` for some concept.

    On positives where it is silent, it wins at most half of their pairs.
    """
    return (2 * min_auroc - 1) * float(positive_tc.sum(axis=0).min())


@dataclass(frozen=True)
class LayerSelectivity:
    """AUROC of each latent for each concept, by kind of token.

    Attributes:
        text_sc: AUROC on text.
        image_sc: AUROC on images; may be NaN for latents that cannot reach the bound, but not for
            those of `best_c`.
        best_c: Each concept's best latent on text (the first of equals).
    """

    text_sc: FloatArray
    image_sc: FloatArray
    best_c: IntArray


def shared_latents(
    layers: Mapping[int, LayerSelectivity],
    *,
    min_auroc: float,
    n_too_rare: int,
    seed: int,
    resamples: int,
    level: float,
) -> SharedLatentsResult:
    """Measure which concepts have a latent that is selective in words and in images.

    Args:
        layers: AUROCs by layer, all over the same concepts, two or more.
        min_auroc: AUROC from which a latent is selective.
        n_too_rare: Concepts that were left out, for the record.
        seed: Seed of the bootstrap over concepts.
        resamples: Number of resamples.
        level: Coverage of the intervals.

    Raises:
        ValueError: Fewer than two concepts: there is no other one to compare with.
    """
    n_concepts = next(iter(layers.values())).text_sc.shape[1]
    if n_concepts < 2:
        raise ValueError(f"{n_concepts} concepts: there is no other one to compare with")

    def share(common_cc: BoolArray) -> Estimate:
        interval = rate_interval(np.diagonal(common_cc), np.ones(n_concepts), level)
        return estimate(interval, n_concepts, off_diagonal(common_cc))

    def summary(layer: int | None, both: Sequence[BoolArray]) -> LayerShared:
        shared, on_text, on_images = map(share, both)
        transfer = None
        if layer is not None:
            auroc_cc = layers[layer].image_sc[layers[layer].best_c]
            interval = bootstrap_mean(np.diagonal(auroc_cc), seed, resamples, level)
            transfer = estimate(interval, n_concepts, off_diagonal(auroc_cc))
        return LayerShared(
            layer=layer, shared=shared, on_text=on_text, on_images=on_images, transfer=transfer
        )

    # By layer: concepts with a common latent on text and images, on text, and on images.
    common: dict[int, list[BoolArray]] = {}
    for layer, aurocs in sorted(layers.items()):
        # NaN reaches no bound.
        text, image = aurocs.text_sc >= min_auroc, aurocs.image_sc >= min_auroc
        common[layer] = [_common(*pair) for pair in ((text, image), (text, text), (image, image))]
    any_layer = [np.logical_or.reduce(both) for both in zip(*common.values(), strict=True)]
    return SharedLatentsResult(
        min_auroc=min_auroc,
        n_concepts=n_concepts,
        n_too_rare=n_too_rare,
        layers=[summary(layer, both) for layer, both in common.items()],
        any_layer=summary(None, any_layer),
    )


def _common(one_sc: BoolArray, other_sc: BoolArray) -> BoolArray:
    """Return which pairs of concepts have a latent that is selective for the first in one kind of
    tokens and for the second in the other, [c, c]."""
    common_cc: BoolArray = one_sc.T.astype(np.float32) @ other_sc.astype(np.float32) > 0
    return common_cc


def off_diagonal(values_cc: NDArray[Any]) -> float:
    """Return the mean over all pairs of two different concepts."""
    n = len(values_cc)
    return float((values_cc.sum(dtype=np.float64) - np.trace(values_cc)) / (n * (n - 1)))
