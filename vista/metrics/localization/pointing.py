"""The pointing game: does the token where a matched latent fires most lie on its class?

Defined by the VISTA paper (arXiv 2605.24946) and its authors' program. Added here: the share of the
patches that the boxes cover, and a stronger level: the token with the largest norm of the residual
stream in the place of the latent's, for the same turns.

Suffixes: b images, n ranked latents, p patches, x boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap
from vista.metrics.figure import Figure
from vista.metrics.matching_rate.measure import JudgeFunction, label_verdicts
from vista.metrics.ranking import Ranked
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, ResultPart, estimate

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Target:
    """Where one class is in one image.

    Attributes:
        image: Position of the image among those measured.
        category: Name of the class.
        box_p: Patches that touch the union of the class's boxes.
        mask_p: Patches that its masks cover enough of, or None if it has no mask.
        boxes_xp: Patches that touch each of its boxes; None: it has one box, `box_p`.
    """

    image: int
    category: str
    box_p: BoolArray
    mask_p: BoolArray | None
    boxes_xp: BoolArray | None = None

    def playing(self, min_patches: int, max_patches: int) -> BoolArray:
        """Return the patches [p] of the boxes that touch so many patches each; none: all False."""
        boxes_xp = self.box_p[None] if self.boxes_xp is None else self.boxes_xp
        size_x = boxes_xp.sum(axis=1)
        fits_x = (size_x >= min_patches) & (size_x <= max_patches)
        return np.asarray(boxes_xp[fits_x].any(axis=0))


@dataclass(frozen=True)
class Play:
    """One turn of the pointing game: a matched latent that is named after a class in the image.

    Attributes:
        image: Position of the image.
        layer: Layer of the latent.
        category: The class.
        latent: The latent.
        token: Token where it fires most.
        hit: Whether that token touches the class's boxes.
        salient: Token with the largest norm of the residual stream.
        salient_hit: Whether that one does.
        covered: Share of the patches that touch the boxes.
    """

    image: int
    layer: int
    category: str
    latent: int
    token: int
    hit: bool
    salient: int
    salient_hit: bool
    covered: float


class PointingGame(ResultPart):
    """The pointing game on one layer, or pooled over all layers."""

    pointing: Estimate = Field(
        description="Pointing game: share of matched latents (label is the class word, class in "
        "the image with a box within the size limits) whose strongest token touches these boxes; "
        "n counts (image, latent, class). Chance: mean share of the patches that they cover."
    )
    pointing_gain: Estimate = Field(description="Pointing game minus its chance level, paired.")
    pointing_salient: Estimate = Field(
        description="The same for the visual token with the largest norm of the residual stream "
        "in the place of the latent's strongest, over the same (image, latent, class)."
    )
    pointing_salient_gain: Estimate = Field(
        description="Pointing game minus that of the token with the largest norm, paired."
    )
    n_pointing_images: int = Field(description="Images with at least one such latent.")

    def game_figures(
        self, layer: int | None, group: str | None, of: Literal["unmasked"] | None
    ) -> list[Figure]:
        """Return the figures of a layer or (None) all layers, of a group of the images or (None)
        all, with the latents of both masks or (`of`) without."""
        return [
            figure.figure(metric, layer, "image", of=of, set=group)
            for metric, figure in (
                ("pointing_game", self.pointing),
                ("pointing_gain", self.pointing_gain),
                ("pointing_salient", self.pointing_salient),
                ("pointing_salient_gain", self.pointing_salient_gain),
            )
        ]


def scaled_limits(min_patches: int, max_patches: int, n_patches: int) -> tuple[int, int]:
    """Scale size limits of 256 patches to a grid of `n_patches`, rounded inwards.

    The lower one is at least 1: 5..200 of 256 are 1..28 of 36.
    """
    low = -(-min_patches * n_patches // 256)
    return max(1, low), max(1, max_patches * n_patches // 256)


def pointing_plays(
    layer: int,
    ranked: Ranked,
    labels: Sequence[str | None],
    salient_b: IntArray,
    targets: Sequence[tuple[Target, BoolArray]],
    judge: JudgeFunction,
) -> list[Play]:
    """Return every turn of the game on one layer.

    Args:
        layer: The layer, for the record.
        ranked: Strongest eligible latents of each image.
        labels: Label of every latent, None where it has none.
        salient_b: Token of each image with the largest norm of the residual stream.
        targets: Classes in images, each with the patches of its boxes that play.
        judge: Says which labels are the class word.
    """
    categories = sorted({target.category for target, _ in targets})
    column = {name: c for c, name in enumerate(categories)}
    verdict_bnc = label_verdicts(ranked, labels, categories, judge)
    plays = []
    for target, playing_p in targets:
        b = target.image
        for n in np.flatnonzero(verdict_bnc[b, :, column[target.category]]):
            token, salient = int(ranked.token_bn[b, n]), int(salient_b[b])
            plays.append(
                Play(
                    image=b,
                    layer=layer,
                    category=target.category,
                    latent=int(ranked.latent_bn[b, n]),
                    token=token,
                    hit=bool(playing_p[token]),
                    salient=salient,
                    salient_hit=bool(playing_p[salient]),
                    covered=float(playing_p.mean()),
                )
            )
    return plays


def pointing_game(
    plays: Sequence[Play], n_images: int, draws: tuple[int, int, float]
) -> PointingGame:
    """Return the game over some turns; the bootstrap of `draws` is over their images."""
    image = np.array([play.image for play in plays], dtype=np.int64)
    n = len(image)
    columns_bc = np.stack(
        [
            np.bincount(image, weights=weights, minlength=n_images)
            for weights in (
                [float(play.hit) for play in plays],
                [play.covered for play in plays],
                [float(play.salient_hit) for play in plays],
                np.ones(n),
            )
        ],
        axis=1,
    )
    columns = columns_bc[columns_bc[:, 3] > 0]
    hits, covered, salient, pairs = columns.T
    gain = bootstrap(columns, lambda m: (m[:, 0] - m[:, 1]) / m[:, 3], *draws)
    over_salient = bootstrap(columns, lambda m: (m[:, 0] - m[:, 2]) / m[:, 3], *draws)
    chance = float(covered.sum() / n) if n else None
    return PointingGame(
        pointing=estimate(rate_interval(hits, pairs, draws[2]), n, chance),
        pointing_gain=estimate(gain, n),
        pointing_salient=estimate(rate_interval(salient, pairs, draws[2]), n, chance),
        pointing_salient_gain=estimate(over_salient, n),
        n_pointing_images=len(pairs),
    )
