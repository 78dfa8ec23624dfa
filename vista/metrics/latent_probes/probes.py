"""Logistic probes on one number, for all latents and classes at once.

A probe p(class) = sigmoid(w x + b) depends on a latent's activations through how many patches have
each value, and how many of those show the class. So activations are put into quantile bins while
latents are compared, and the fit takes no pass over patches; zero, where most of a sparse latent's
patches are, is a bin of its own.

Shape legend: n patch, s latent, v distinct value or bin of a latent, c class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# Activations of some patches [n, s]: of a sparse dictionary a scipy.sparse.csc_array, which has no
# types, else an array.
Activations: TypeAlias = Any

_STEPS = 40
# Of one Newton step in w and b: a full one overshoots where hardly a patch shows the class.
_LONGEST_STEP = 3.0
_CONVERGED = 1e-8
# Numbers [s, v, c] in memory at once.
_BLOCK_CELLS = 4_000_000


class Histogram(NamedTuple):
    """Values of latents: value_sv, patches of each value count_sv, and how many of them show each
    class positive_svc. Unused places have a count of 0."""

    value_sv: Floats
    count_sv: Floats
    positive_svc: Floats


class Probes(NamedTuple):
    """Probes of latents for classes: weight, bias and mean loss of a patch in nats, each [s, c]."""

    weight_sc: Floats
    bias_sc: Floats
    loss_sc: Floats


class Choice(NamedTuple):
    """The latent of each class whose probe has the smallest loss, and the sign of its weight: more
    activation speaks for the class, or against it. Each [c]."""

    latent_c: NDArray[np.int64]
    sign_c: Floats


def fit_probes(histogram: Histogram, ridge: float) -> Probes:
    """Fit a probe for each latent and class by Newton's method.

    Activations are scaled to a root mean square of 1 over the patches that they are not 0 on;
    weights are in these units squared, times `ridge` / 2, added to the mean loss.
    """
    value_sv, count_sv, positive_svc = histogram
    used_sv = count_sv * (value_sv != 0)
    square_s = (used_sv * value_sv**2).sum(axis=1) / np.maximum(used_sv.sum(axis=1), 1)
    scale_s = np.where(square_s > 0, np.sqrt(square_s), 1.0)
    n_s11 = count_sv.sum(axis=1)[:, None, None]
    x_sv1 = (value_sv / scale_s[:, None])[:, :, None]
    count_sv1 = count_sv[:, :, None]
    share_sc = np.clip(positive_svc.sum(axis=1) / n_s11[:, 0], 1e-6, 1 - 1e-6)
    bias_sc = np.log(share_sc / (1 - share_sc))
    weight_sc = np.zeros_like(bias_sc)
    for _ in range(_STEPS):
        p_svc = _sigmoid(weight_sc[:, None] * x_sv1 + bias_sc[:, None])
        error_svc = (count_sv1 * p_svc - positive_svc) / n_s11
        curve_svc = count_sv1 * p_svc * (1 - p_svc) / n_s11
        g_b, g_w = error_svc.sum(axis=1), (error_svc * x_sv1).sum(axis=1) + ridge * weight_sc
        h_bb = curve_svc.sum(axis=1) + 1e-9
        h_bw = (curve_svc * x_sv1).sum(axis=1)
        h_ww = (curve_svc * x_sv1**2).sum(axis=1) + ridge
        determinant = h_bb * h_ww - h_bw**2
        step_b = (h_ww * g_b - h_bw * g_w) / determinant
        step_w = (h_bb * g_w - h_bw * g_b) / determinant
        length = np.maximum(np.hypot(step_b, step_w), 1e-300)
        shorter = np.minimum(1.0, _LONGEST_STEP / length)
        bias_sc = bias_sc - shorter * step_b
        weight_sc = weight_sc - shorter * step_w
        if float(length.max()) < _CONVERGED:
            break
    z_svc = weight_sc[:, None] * x_sv1 + bias_sc[:, None]
    loss_svc = count_sv1 * np.logaddexp(0, z_svc) - positive_svc * z_svc
    return Probes(weight_sc / scale_s[:, None], bias_sc, (loss_svc / n_s11).sum(axis=1))


def choose_latents(activation: Activations, shown_nc: Bools, bins: int, ridge: float) -> Choice:
    """Return the best latent of each class.

    Args:
        activation: Activations of the patches [n, s].
        shown_nc: Which classes each patch shows.
        bins: Quantile bins on each side of 0.
        ridge: As of `fit_probes`.
    """
    classes = np.arange(shown_nc.shape[1])
    best_c = np.full(len(classes), np.inf)
    latent_c, sign_c = np.zeros(len(classes), dtype=np.int64), np.ones(len(classes))
    for first, histogram in _histograms(activation, shown_nc, bins):
        probes = fit_probes(histogram, ridge)
        place_c = probes.loss_sc.argmin(axis=0)
        loss_c = probes.loss_sc[place_c, classes]
        better_c = loss_c < best_c
        best_c[better_c] = loss_c[better_c]
        latent_c[better_c] = first + place_c[better_c]
        sign_c[better_c] = np.sign(probes.weight_sc[place_c, classes])[better_c]
    return Choice(latent_c, np.where(sign_c == 0, 1.0, sign_c))


def column(activation: Activations, latent: int) -> Floats:
    """Return the activations of one latent [n]."""
    if isinstance(activation, np.ndarray):
        return np.asarray(activation[:, latent], dtype=np.float64)
    return np.asarray(activation[:, [latent]].toarray()[:, 0], dtype=np.float64)


def histogram_of(x_n: Floats, shown_nc: Bools, bins: int) -> Histogram:
    """Return the histogram of one latent: 0, and up to `bins` bins of equal numbers of patches on
    each side of it, each at the mean of its values; equal values stay together."""
    value_v, count_v, positive_vc = _binned(np.flatnonzero(x_n), x_n[x_n != 0], shown_nc, bins)
    return Histogram(value_v[None], count_v[None], positive_vc[None])


def _histograms(
    activation: Activations, shown_nc: Bools, bins: int
) -> Iterator[tuple[int, Histogram]]:
    """Yield histograms of consecutive latents, each with the number of the first."""
    latents, classes, wide = activation.shape[1], shown_nc.shape[1], 2 * bins + 1
    block = max(1, _BLOCK_CELLS // (wide * classes))
    for first in range(0, latents, block):
        size = min(block, latents - first)
        value_sv, count_sv = np.zeros((size, wide)), np.zeros((size, wide))
        positive_svc = np.zeros((size, wide, classes))
        for s in range(size):
            rows, values = _nonzero(activation, first + s)
            value_v, count_v, positive_vc = _binned(rows, values, shown_nc, bins)
            used = slice(0, len(value_v))
            value_sv[s, used], count_sv[s, used] = value_v, count_v
            positive_svc[s, used] = positive_vc
        yield first, Histogram(value_sv, count_sv, positive_svc)


def _nonzero(activation: Activations, latent: int) -> tuple[NDArray[np.int64], Floats]:
    if isinstance(activation, np.ndarray):
        x_n = np.asarray(activation[:, latent], dtype=np.float64)
        return np.flatnonzero(x_n), x_n[x_n != 0]
    part = slice(activation.indptr[latent], activation.indptr[latent + 1])
    return activation.indices[part].astype(np.int64), activation.data[part].astype(np.float64)


def _binned(
    rows: NDArray[np.int64], values: Floats, shown_nc: Bools, bins: int
) -> tuple[Floats, Floats, Floats]:
    """Value, count and positives of the bins of a latent that is 0 on all patches but `rows`."""
    order = np.argsort(values, kind="stable")
    rows, values = rows[order], values[order]
    below = int(np.searchsorted(values, 0.0))
    edges = np.concatenate(
        [_edges(values[:below], bins), below + _edges(values[below:], bins)]
    ).astype(np.int64)
    zeros = len(shown_nc) - len(values)
    silent_c = shown_nc.sum(axis=0) - shown_nc[rows].sum(axis=0)
    if not len(edges):
        return np.zeros(1), np.array([float(zeros)]), silent_c[None].astype(np.float64)
    count_v = np.diff(np.append(edges, len(values))).astype(np.float64)
    value_v = np.add.reduceat(values, edges) / count_v
    positive_vc = np.add.reduceat(shown_nc[rows].astype(np.int64), edges, axis=0)
    return (
        np.append(value_v, 0.0),
        np.append(count_v, float(zeros)),
        np.concatenate([positive_vc, silent_c[None]]).astype(np.float64),
    )


def _edges(values: Floats, bins: int) -> NDArray[np.int64]:
    """Starts of at most `bins` parts of sorted values, none of them between equal values."""
    if not len(values):
        return np.empty(0, dtype=np.int64)
    wanted = np.linspace(0, len(values), bins, endpoint=False).astype(np.int64)
    return np.unique(np.searchsorted(values, values[wanted], side="left"))


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * z)))
