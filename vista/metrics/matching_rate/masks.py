"""The matching rate without its masks, along the bound of one of them, and what they hide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.config.metrics import Without
from vista.metrics.bootstrap import bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.matching_rate.scores import LayerScores, Scores, TopK, difference, summarise
from vista.metrics.ranking import LatentMask
from vista.metrics.result import Estimate, ResultPart, estimate

# Why a latent is not ranked; None: either mask hides it.
Hides = Literal["frequency", "density", "unlabelled"]


class HiddenLatents(ResultPart):
    """What a mask hides on one layer, of the latents and of their activation."""

    by: Hides | None = Field(
        description="The mask; null: either of the two; unlabelled: latents that are skipped "
        "because they have no label."
    )
    latents: Estimate = Field(
        description="Share of the latents that fire at a visual token of the measured images."
    )
    activation: Estimate = Field(
        description="Share of the activation, summed over latents and visual tokens; the interval "
        "is over images, the masks stay as they are."
    )

    def figures(self, layer: int) -> list[Figure]:
        """Return the figures; `of` names the mask."""
        return [
            self.latents.figure("masked_latents", layer, "image", of=self.by),
            self.activation.figure("masked_activation", layer, "image", of=self.by),
        ]


class MatchingWithout(ResultPart):
    """Matching rates without a mask, of the same images by the same judge."""

    of: Without = Field(
        description="no_frequency_mask, no_density_mask, or unmasked: without both. Latents whose "
        "density on text is unknown, or that have no label, are skipped in any case."
    )
    layers: dict[int, list[TopK]] = Field(description="Layer -> one entry a k, ascending.")
    over_layers: list[TopK] = Field(description="The same figures averaged over the layers.")
    difference: dict[int, Estimate] = Field(
        description="k -> matching rate without the mask minus that with both masks, averaged over "
        "layers, paired by image."
    )

    def figures(self, n_images: int) -> list[Figure]:
        """Return the figures; `n_images` were put to the judge."""
        return [
            *(
                row
                for layer, tops in self.layers.items()
                for top in tops
                for row in top.figures(layer, n_images, of=self.of)
            ),
            *(
                row
                for top in self.over_layers
                for row in top.figures(None, n_images * len(self.layers), of=self.of)
            ),
            *(
                gap.figure("matching_mask_difference", None, "image", of=self.of, k=k)
                for k, gap in self.difference.items()
            ),
        ]


class MatchingAtBound(ResultPart):
    """Matching rate under another bound of the frequency mask; the density mask is the same."""

    max_image_share: float = Field(description="The bound: 1 is no frequency mask.")
    layers: dict[int, TopK] = Field(description="Layer -> figures at the k of the headline.")
    over_layers: TopK = Field(description="The same figures averaged over the layers.")

    def figures(self) -> list[Figure]:
        """Return the figures; `of` is the bound as text."""
        of = f"{self.max_image_share:g}"
        places: list[tuple[int | None, TopK]] = [*self.layers.items(), (None, self.over_layers)]
        return [
            figure.figure(metric, layer, "image", of=of, k=top.k)
            for layer, top in places
            for metric, figure in (
                ("matching_by_mask", top.matching),
                ("matching_gain_by_mask", top.gain),
            )
        ]


def hidden_latents(
    mask: LatentMask,
    fires_s: NDArray[np.bool_],
    activation_bm: NDArray[Any],
    draws: tuple[int, int, float],
) -> list[HiddenLatents]:
    """Return what each mask hides.

    Args:
        mask: The masks of a layer.
        fires_s: Which latents fire in the measured images.
        activation_bm: Summed activation of each image: of all latents, then of those that are too
            frequent, too dense, either, unlabelled.
        draws: Seed, number of resamples and level of the bootstrap over images.
    """
    hidden: list[tuple[Hides | None, NDArray[np.bool_]]] = [
        ("frequency", mask.frequent_s),
        ("density", mask.dense_s),
        (None, mask.masked_s),
        ("unlabelled", mask.unlabelled_s),
    ]
    n_fires = int(fires_s.sum())
    total_b = activation_bm[:, 0]
    shares = []
    for column, (by, hidden_s) in enumerate(hidden, start=1):
        share = int((hidden_s & fires_s).sum()) / n_fires if n_fires else None
        interval = bootstrap_ratio(activation_bm[:, column], total_b, *draws)
        shares.append(
            HiddenLatents(
                by=by,
                latents=Estimate(value=share, n=n_fires),
                activation=estimate(interval, int((total_b > 0).sum())),
            )
        )
    return shares


def matching_without(
    masked: Scores,
    without: Mapping[Without, Scores],
    ks: Sequence[int],
    draws: tuple[int, int, float],
) -> list[MatchingWithout]:
    """Return the matching rates without masks, beside those of `masked`, under both."""
    return [
        MatchingWithout(
            of=name,
            layers={
                layer: [summarise(k, [of_layer], draws) for k in ks]
                for layer, of_layer in sorted(scores.layers.items())
            },
            over_layers=[summarise(k, _layers(scores), draws) for k in ks],
            difference={k: difference(k, _layers(scores), _layers(masked), draws) for k in ks},
        )
        for name, scores in without.items()
        if scores.layers
    ]


def matching_curve(
    curve: Mapping[float, Scores], k: int, draws: tuple[int, int, float]
) -> list[MatchingAtBound]:
    """Return the matching rate at one k for each bound of the frequency mask, ascending."""
    return [
        MatchingAtBound(
            max_image_share=bound,
            layers={
                layer: summarise(k, [of_layer], draws)
                for layer, of_layer in sorted(scores.layers.items())
            },
            over_layers=summarise(k, _layers(scores), draws),
        )
        for bound, scores in sorted(curve.items())
        if scores.layers
    ]


def _layers(scores: Scores) -> list[LayerScores]:
    return [of_layer for _, of_layer in sorted(scores.layers.items())]
