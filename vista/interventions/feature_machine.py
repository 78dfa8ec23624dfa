"""Recursive feature machines: directions that a fit of a concept's places depends on most.

Recursive feature machines: Radhakrishnan et al. 2024 (Science 383, arXiv 2212.13881); as directions
of concepts: universal steering (Beaglehole et al., arXiv 2502.03708). Rounds of (1) ridge
regression of the labels with the kernel exp(-|x - z|_M / bandwidth), |v|_M^2 = v M v, and (2) M :=
mean outer product of the fit's gradients at its examples, scaled to a largest entry of 1. The
direction is the top eigenvector of the outer product of the fit with the best AUROC on held-out
images; its sign is that of its correlation with the labels. Values of the grid are the source's;
labels are 1 and -1 less their mean, where the source fits 1 and 0.

Shape legend: n token, m other token, d width, c concept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vista.interventions.selection import sparse_auroc

if TYPE_CHECKING:
    from vista.interventions.search import Selection

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BANDWIDTHS = (100.0, 10.0, 1.0)
RIDGE = 1e-3
ROUNDS = 10
EXAMPLES = 2000  # tokens of a concept and as many others, at most
HELD_OUT = 4  # one image of so many chooses bandwidth, round and centring
# A later round is not tried where AUROC fell to less than this share of the best.
_STOP = 1 / 1.1
# Squared distances of tokens below it are those of equal tokens, where the kernel has no gradient.
_EQUAL = 1e-12


def images_of_tokens(selection: Selection, patches_per_image: int) -> NDArray[np.int64]:
    """Return the image of each token that directions are fitted on, [n], in their order.

    Concepts with boxes: at most `patches_per_image` patches of an image's objects, and of others.
    Words: one token an image.
    """
    images = np.arange(len(selection.rows))
    if selection.patches_cbp is None:
        return images
    inside_b = selection.patches_cbp.any(axis=0).sum(axis=1)
    outside_b = selection.patches_cbp.shape[2] - inside_b
    tokens_b = sum(np.minimum(size_b, patches_per_image) for size_b in (inside_b, outside_b))
    return np.repeat(images, tokens_b)


def rfm(
    x_nd: NDArray[Any], positive_cn: Bools, image_n: NDArray[np.int64], seed: int
) -> NDArray[np.float32]:
    """Return the direction of each concept against all other tokens, unit rows [c, d].

    Tokens are centred and divided by one number (their root mean square), so that a bandwidth means
    the same in streams of any scale. Zero for a concept that is in fewer than two images, or
    without which there are fewer.

    Args:
        x_nd: Tokens.
        positive_cn: Which concepts are at each token.
        image_n: The image that each token is of; an image is fitted on or held out as a whole.
        seed: Seed of the draws of tokens and images.
    """
    x_nd = x_nd.astype(np.float64) - x_nd.mean(0, np.float64)
    x_nd /= max(float(np.sqrt(np.square(x_nd).mean())), 1e-12)
    rows_cd = np.zeros((len(positive_cn), x_nd.shape[1]), np.float32)
    for c, positive_n in enumerate(positive_cn):
        rng = np.random.default_rng([seed, c])
        taken = _balanced(positive_n, rng)
        held_out = _held_out(image_n[taken], positive_n[taken], rng)
        if held_out is not None:
            rows_cd[c] = top_direction(x_nd[taken], positive_n[taken], held_out)
    return rows_cd


@dataclass(frozen=True)
class KernelMachine:
    """Kernel ridge regression with the kernel exp(-|x - z|_M / bandwidth).

    Attributes:
        x_nd: Examples.
        weight_n: Weight of each.
        m_dd: M, positive semidefinite.
        bandwidth: Of the kernel.
    """

    x_nd: Floats
    weight_n: Floats
    m_dd: Floats
    bandwidth: float

    @classmethod
    def fit(cls, x_nd: Floats, y_n: Floats, m_dd: Floats, bandwidth: float) -> KernelMachine:
        """Fit y with `RIDGE` on the kernel's diagonal."""
        from scipy.linalg import cho_factor, cho_solve

        kernel_nn = np.exp(-_distances(x_nd, x_nd, m_dd) / bandwidth)
        kernel_nn[np.diag_indices_from(kernel_nn)] += RIDGE
        return cls(x_nd, cho_solve(cho_factor(kernel_nn), y_n), m_dd, bandwidth)

    def predict(self, z_md: Floats) -> Floats:
        """Return the fit [m] at further tokens."""
        distance_mn = _distances(z_md, self.x_nd, self.m_dd)
        return np.asarray(np.exp(-distance_mn / self.bandwidth) @ self.weight_n)

    def gradients(self) -> Floats:
        """Return the gradient of the fit at each of its examples, [n, d].

        An example's own term has none: the kernel has a kink there.
        """
        distance_nm = _distances(self.x_nd, self.x_nd, self.m_dd)
        apart_nm = distance_nm > np.sqrt(_EQUAL)
        slope_nm = np.exp(-distance_nm / self.bandwidth) * self.weight_n
        slope_nm *= apart_nm / np.where(apart_nm, distance_nm, 1) / self.bandwidth
        pulled_nd = slope_nm.sum(axis=1)[:, None] * self.x_nd - slope_nm @ self.x_nd
        return np.asarray(-pulled_nd @ self.m_dd)


def top_direction(x_nd: Floats, positive_n: Bools, held_out_n: Bools) -> NDArray[np.float32]:
    """Return the unit direction [d] that the best machine has learnt; its sign is that of its
    correlation with the labels.

    Args:
        x_nd: Tokens, of one scale.
        positive_n: Labels.
        held_out_n: Tokens that choose among rounds, bandwidths and centring: by the AUROC of the
            fit. Of equal ones the wider kernel counts, then the earlier round: where all part the
            labels, the gradients of a narrow kernel point to single neighbours.
    """
    fitted_n = ~held_out_n
    y_n = np.where(positive_n[fitted_n], 1.0, -1.0)
    y_n -= y_n.mean()
    everywhere = np.arange(int(held_out_n.sum()))
    best, best_auroc = np.eye(x_nd.shape[1]), -1.0
    for bandwidth, centred in product(BANDWIDTHS, (True, False)):
        reached = 0.0
        for machine, outer_dd in _rounds(x_nd[fitted_n], y_n, bandwidth, centred):
            guess_m = machine.predict(x_nd[held_out_n])
            auroc = sparse_auroc(everywhere, guess_m, positive_n[held_out_n])
            assert auroc is not None
            if auroc > best_auroc:
                best, best_auroc = outer_dd, auroc
            if auroc < reached * _STOP:
                break
            reached = max(reached, auroc)
    direction_d = np.linalg.eigh(best)[1][:, -1]
    along_n = x_nd[fitted_n] @ direction_d
    sign = -1.0 if along_n @ y_n < 0 else 1.0
    return (sign * direction_d).astype(np.float32)


def _rounds(
    x_nd: Floats, y_n: Floats, bandwidth: float, centred: bool
) -> Iterator[tuple[KernelMachine, Floats]]:
    """Yield the fit of each round, and the outer product of its gradients [d, d]."""
    m_dd = np.eye(x_nd.shape[1])
    for _ in range(ROUNDS):
        machine = KernelMachine.fit(x_nd, y_n, m_dd, bandwidth)
        gradient_nd = machine.gradients()
        if centred:
            gradient_nd = gradient_nd - gradient_nd.mean(axis=0)
        m_dd = gradient_nd.T @ gradient_nd
        m_dd = m_dd / max(float(m_dd.max()), 1e-30)
        yield machine, m_dd


def _distances(z_md: Floats, x_nd: Floats, m_dd: Floats) -> Floats:
    """Return |z - x|_M, [m, n]."""
    zm_md, xm_nd = z_md @ m_dd, x_nd @ m_dd
    square_m, square_n = (zm_md * z_md).sum(axis=1), (xm_nd * x_nd).sum(axis=1)
    square_mn = square_m[:, None] - 2 * zm_md @ x_nd.T + square_n
    return np.asarray(np.sqrt(np.where(square_mn > _EQUAL, square_mn, 0)))


def _balanced(positive_n: Bools, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return as many tokens with a concept as without it, `EXAMPLES` at most, ascending."""
    sides = [np.flatnonzero(side_n) for side_n in (positive_n, ~positive_n)]
    size = min(EXAMPLES // 2, *map(len, sides))
    return np.sort(np.concatenate([rng.permutation(side)[:size] for side in sides]))


def _held_out(image_n: NDArray[np.int64], positive_n: Bools, rng: np.random.Generator) -> Any:
    """Return which tokens are of held-out images [n], about one of `HELD_OUT` of the images with
    the concept and of those without; None where one side has fewer than two images, or where both
    labels are not on both sides."""
    with_concept = np.unique(image_n[positive_n])
    without = np.setdiff1d(image_n, with_concept)
    held: list[NDArray[np.int64]] = []
    for images in (with_concept, without):
        held.append(rng.permutation(images)[: max(1, len(images) // HELD_OUT)])
    held_out_n = np.isin(image_n, np.concatenate(held))
    sides = [positive_n[held_out_n], positive_n[~held_out_n]]
    whole = all(side_n.any() and not side_n.all() for side_n in sides)
    return held_out_n if whole else None
