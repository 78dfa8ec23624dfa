"""Loss recovered: how much of what an ablation costs the SAE's reconstruction gives back.

(CE_ablated - CE_spliced) / (CE_ablated - CE_clean), each a cross-entropy over the same tokens; 1
where the reconstruction is as good as the stream, 0 where it is as bad as the ablation. With zero
ablation this is "loss recovered" of SAE papers (Rajamanoharan et al. 2024, arXiv 2404.16014,
section 4.1); mean ablation is the stricter reference, since a constant can supply the mean.

Suffixes: b images, l layers, r resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap, bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

FloatArray = NDArray[np.float64]

ABLATIONS = ("mean", "zero")


@dataclass(frozen=True)
class KindLosses:
    """Nats over the scored tokens of each image, of one token kind; all arrays are [b].

    Attributes:
        tokens_b: Number of scored tokens; images with 0 are left out.
        clean_b: With nothing replaced.
        layers: By layer, then by what takes the stream's place: spliced, mean, zero.
    """

    tokens_b: NDArray[Any]
    clean_b: NDArray[Any]
    layers: Mapping[int, Mapping[str, NDArray[Any]]]


class Recovered(ResultPart):
    """Share of an ablation's cost that the reconstruction recovers."""

    share: Estimate = Field(
        description="(ablated - spliced) / (ablated - clean), ratio of sums over images; level "
        "without the effect: 0, the ablation. Above 1 where the reconstruction helps. Over all "
        "layers: the mean of the layers' shares. An end of the interval is None where the ablation "
        "costs nothing in so many resamples that the share is unbounded."
    )
    cost: float | None = Field(
        description="Nats a token by which the ablation raises the cross-entropy; over all layers: "
        "the mean."
    )
    undefined: str | None = Field(description="Why there is no share; None where there is one.")


class LayerLoss(ResultPart):
    """Cross-entropies with the stream after one block replaced, in nats a token."""

    layer: int = Field(description="Residual stream after this block, counted from 0.")
    spliced: Estimate = Field(description="Replaced by the SAE's reconstruction.")
    mean: Estimate = Field(description="Replaced by the mean stream of mean_split.")
    zero: Estimate = Field(description="Replaced by zeros.")
    recovered: dict[str, Recovered] = Field(description="By ablation: mean, zero.")


class KindLoss(ResultPart):
    """Figures of one kind of tokens."""

    token_kind: str = Field(
        description="image: replaced at the visual tokens, the reference answer is scored; "
        "control: replaced at the text control, whose own next tokens are scored."
    )
    n_images: int = Field(description="Images with a scored token.")
    n_tokens: int = Field(description="Tokens that are scored.")
    clean: Estimate = Field(description="Cross-entropy with nothing replaced, in nats a token.")
    layers: list[LayerLoss] = Field(description="One entry a layer.")
    recovered: dict[str, Recovered] = Field(
        description="By ablation, the mean over layers; None where a layer's is undefined."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of this kind: those over all layers, then layer by layer."""
        name, kind = "spliced_cross_entropy", self.token_kind
        rows = [self.clean.figure(name, None, kind, of="clean")]
        rows += _shares(self.recovered, None, kind)
        for part in self.layers:
            for of in ("spliced", *ABLATIONS):
                rows.append(getattr(part, of).figure(name, part.layer, kind, of=of))
            rows += _shares(part.recovered, part.layer, kind)
        return rows


class SplicedLossResult(MetricResult):
    """Figures of visual tokens and of the text control."""

    mean_split: str = Field(description="Split over whose images the stream is averaged.")
    n_mean_images: int = Field(description="Number of these images.")
    min_ablation_cost: float = Field(
        description="Nats a token that an ablation must cost for a share to be defined."
    )
    kinds: list[KindLoss] = Field(description="One entry a kind of tokens.")

    def figures(self) -> list[Figure]:
        """Return the figures of every kind."""
        return [row for part in self.kinds for row in part.figures()]


def kind_figures(
    losses: KindLosses,
    token_kind: str,
    *,
    min_ablation_cost: float,
    seed: int,
    resamples: int,
    level: float,
) -> KindLoss:
    """Return the figures of one kind of tokens, with intervals over images.

    All sums of an image are drawn together, so the intervals of shares are paired.

    Args:
        losses: Nats of each image.
        token_kind: image or control.
        min_ablation_cost: Nats a token by which an ablation must raise the cross-entropy; where
            it costs less, its share is undefined.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.

    Raises:
        ValueError: A loss has another length than `tokens_b`.
    """
    lengths = {
        len(losses.clean_b),
        *(len(b) for part in losses.layers.values() for b in part.values()),
    }
    if lengths != {len(losses.tokens_b)}:
        raise ValueError(f"losses of {sorted(lengths)} images for {len(losses.tokens_b)}")
    draws = (seed, resamples, level)
    scored = np.asarray(losses.tokens_b) > 0
    tokens, clean = (
        np.asarray(column, np.float64)[scored] for column in (losses.tokens_b, losses.clean_b)
    )
    n = int(scored.sum())

    def entropy(loss: FloatArray) -> Estimate:
        return estimate(bootstrap_ratio(loss, tokens, *draws), n)

    layers: list[LayerLoss] = []
    gains: dict[str, list[FloatArray]] = {ablation: [] for ablation in ABLATIONS}
    costs: dict[str, list[FloatArray]] = {ablation: [] for ablation in ABLATIONS}
    for layer in sorted(losses.layers):
        sums = {
            name: np.asarray(column, np.float64)[scored]
            for name, column in losses.layers[layer].items()
        }
        shares = {}
        for ablation in ABLATIONS:
            gain, cost = sums[ablation] - sums["spliced"], sums[ablation] - clean
            gains[ablation].append(gain)
            costs[ablation].append(cost)
            shares[ablation] = _recovered([gain], [cost], tokens, min_ablation_cost, draws)
        entropies = {name: entropy(sums[name]) for name in ("spliced", *ABLATIONS)}
        layers.append(LayerLoss(layer=layer, recovered=shares, **entropies))
    return KindLoss(
        token_kind=token_kind,
        n_images=n,
        n_tokens=int(tokens.sum()),
        clean=entropy(clean),
        layers=layers,
        recovered={
            ablation: _over_layers(
                _recovered(gains[ablation], costs[ablation], tokens, min_ablation_cost, draws),
                {part.layer: part.recovered[ablation] for part in layers},
            )
            for ablation in ABLATIONS
        },
    )


def _recovered(
    gains: Sequence[FloatArray],
    costs: Sequence[FloatArray],
    tokens: FloatArray,
    min_ablation_cost: float,
    draws: tuple[int, int, float],
) -> Recovered:
    """Return the mean over layers of the sum of gains / the sum of costs; each array is [b]."""
    if not len(tokens):
        share = Estimate(value=None, n=0)
        return Recovered(share=share, cost=None, undefined="no image has a token to score")
    a_token = [float(cost.sum() / tokens.sum()) for cost in costs]
    cost = float(np.mean(a_token))
    if min(a_token) < min_ablation_cost:
        reason = (
            f"the ablation costs {min(a_token):.2g} nats a token, less than min_ablation_cost "
            f"({min_ablation_cost:g})"
        )
        share = Estimate(value=None, n=len(tokens))
        return Recovered(share=share, cost=cost, undefined=reason)
    columns = np.stack([*gains, *costs], axis=1)
    interval = bootstrap(columns, _mean_share, *draws)
    share = estimate(interval, len(tokens), chance=0.0)
    return Recovered(share=share, cost=cost, undefined=None)


def _mean_share(means: FloatArray) -> FloatArray:
    """Mean over layers of gain / cost: means [r, gains then costs] -> [r].

    Where the cost of a resample is not positive its share is unbounded, on the side of its gain:
    the sign of a quotient would say nothing.
    """
    gain_rl, cost_rl = np.split(means, 2, axis=1)
    share_rl = np.where(cost_rl > 0, gain_rl / cost_rl, np.sign(gain_rl) * np.inf)
    return np.asarray(share_rl.mean(axis=1))


def _over_layers(mean: Recovered, parts: Mapping[int, Recovered]) -> Recovered:
    """Return the mean over layers; where it is undefined, with the layers that are the reason."""
    lacking = [str(layer) for layer, part in parts.items() if part.undefined is not None]
    if not lacking:
        return mean
    reason = f"undefined after block {', '.join(lacking)}: {mean.undefined}"
    return mean.model_copy(update={"undefined": reason})


def _shares(recovered: Mapping[str, Recovered], layer: int | None, kind: str) -> list[Figure]:
    return [
        part.share.figure("spliced_loss_recovered", layer, kind, of=ablation)
        for ablation, part in recovered.items()
    ]
