"""Scores of how well an image fits the distribution that they were fitted on; larger fits better.

Scores on an SAE's latents z (the maximum over patches), defined here since of arXiv 2508.11277 only
the abstract is public:

    reconstruction       - mean over patches of |SAE(x) - x|^2 / |x|^2
    knn_latents          - distance to the k-th nearest image, of z / |z|
    mahalanobis_latents  - Mahalanobis distance to the nearest class mean
    profile_latents      - KL(z / sum z || nearest class activation profile)

One is published: Energy Profile Divergence ("Sparsity as a Key", arXiv 2604.26409, known here from
summaries of its text):

    energy_profile_latents  - KL(P || Q), both scaled to sum 1 on the core latents of the class that
                            a classifier predicts: P of z, Q of the class's mean latents, whose
                            `core_share` largest are the core. The paper reads class tokens and the
                            head of the ViT; the classifier here is the linear probe below.

Rivals on raw features x (the mean over patches):

    knn_raw              as above (Sun et al. 2022, arXiv 2204.06507)
    mahalanobis_raw      as above (Lee et al. 2018, arXiv 1807.03888)
    max_softmax_raw      largest probability of a linear probe (arXiv 1610.02136)
    energy_raw           log sum exp of its logits (Liu et al. 2020, arXiv 2010.03759)

Controls:

    knn_random           knn_latents on a random dictionary of the SAE's size and sparsity
    random               drawn uniformly

Scores that need classes count an image once for each class that it shows.

Legend: n image, d width, s latent, l core latent, q (image, class) pair, c class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.metrics.logistic import fit_logistic

Floats = NDArray[np.float64]

SAE_SCORES = (
    "reconstruction",
    "knn_latents",
    "mahalanobis_latents",
    "profile_latents",
    "energy_profile_latents",
)
RAW_SCORES = ("knn_raw", "mahalanobis_raw", "max_softmax_raw", "energy_raw")
CONTROLS = ("knn_random", "random")
SCORES = (*SAE_SCORES, *RAW_SCORES, *CONTROLS)

# Rows whose similarities to all fitted images are held at once.
_ROWS = 256


@dataclass(frozen=True)
class Images:
    """What the scores read of images.

    Attributes:
        vectors: Vectors [n, width] by space: latents, raw, and random, of a random dictionary.
        error_n: Reconstruction errors of the SAE.
    """

    vectors: Mapping[str, NDArray[np.float32]]
    error_n: NDArray[np.float32]


class OodScores:
    """All scores, fitted on images of the distribution.

    These images stay in memory; computing principal components needs twice their latents' memory
    more.
    """

    def __init__(
        self,
        fit: Images,
        classes: Sequence[Sequence[str]],
        *,
        neighbours: int,
        components: int,
        smoothing: float,
        core_share: float,
        regularisation: float,
        iterations: int,
        seed: int,
    ) -> None:
        """Fit them.

        Args:
            fit: The images of the distribution.
            classes: The classes that each of them shows; two or more in all.
            neighbours: k of the nearest-neighbour distance.
            components: Principal components that Mahalanobis distances are measured in, at most.
            smoothing: Share of the uniform distribution in every class profile.
            core_share: Share of the latents that are the core of a class.
            regularisation: scikit-learn's C of the linear probe.
            iterations: Of its solver.
            seed: Of the control and of the components.

        Raises:
            ValueError: Fewer images than neighbours, or fewer than two classes.
        """
        if len(fit.error_n) < neighbours:
            raise ValueError(f"{neighbours} neighbours of {len(fit.error_n)} images")
        names, class_q = np.unique(
            [name for of_image in classes for name in of_image], return_inverse=True
        )
        if len(names) < 2:
            raise ValueError(f"too few classes ({len(names)}) where scores need two")
        image_q = np.repeat(np.arange(len(classes)), [len(of_image) for of_image in classes])
        self._neighbours = {
            space: Neighbours(x_nd, neighbours) for space, x_nd in fit.vectors.items()
        }
        self._gaussians = {
            space: ClassGaussians(fit.vectors[space], image_q, class_q, components, seed)
            for space in ("latents", "raw")
        }
        self._profiles_cs = class_profiles(fit.vectors["latents"], image_q, class_q, smoothing)
        self._energy = EnergyProfiles(
            fit.vectors["latents"], image_q, class_q, core_share, smoothing
        )
        self._probe = fit_logistic(
            fit.vectors["raw"][image_q],
            names[class_q],
            regularisation=regularisation,
            iterations=iterations,
        )
        self._rng = np.random.default_rng(seed)

    def of(self, images: Images) -> dict[str, Floats]:
        """Return the scores [n] of further images, by name; each call draws new random ones."""
        latents_ns, raw_nd = images.vectors["latents"], images.vectors["raw"]
        logits_nc = _class_logits(self._probe.decision_function(raw_nd))
        energy_n, largest_n = _probe_scores(logits_nc)
        scores = {
            "reconstruction": -images.error_n.astype(np.float64),
            "knn_latents": -self._neighbours["latents"].distance(latents_ns),
            "mahalanobis_latents": -self._gaussians["latents"].distance(latents_ns),
            "profile_latents": -profile_divergence(self._profiles_cs, latents_ns),
            "energy_profile_latents": -self._energy.divergence(latents_ns, logits_nc.argmax(1)),
            "knn_raw": -self._neighbours["raw"].distance(raw_nd),
            "mahalanobis_raw": -self._gaussians["raw"].distance(raw_nd),
            "max_softmax_raw": largest_n,
            "energy_raw": energy_n,
            "knn_random": -self._neighbours["random"].distance(images.vectors["random"]),
            "random": self._rng.random(len(images.error_n)),
        }
        return {score: scores[score] for score in SCORES}


class Neighbours:
    """Directions x / |x| of rows, which those of other rows are compared with."""

    def __init__(self, x_nd: NDArray[Any], neighbours: int) -> None:
        self._x_nd, self._neighbours = x_nd, neighbours
        self._norm_n = _norms(x_nd)

    def distance(self, x_nd: NDArray[Any]) -> Floats:
        """Return the distance [n] of each x / |x| to its k-th nearest row, k being `neighbours`."""
        norm_n, out_n = _norms(x_nd), np.empty(len(x_nd))
        for start in range(0, len(x_nd), _ROWS):
            part = slice(start, start + _ROWS)
            near = x_nd[part] @ self._x_nd.T / self._norm_n / norm_n[part, None]
            out_n[part] = np.partition(near, -self._neighbours, axis=1)[:, -self._neighbours]
        # A row of zeros has the distance of an orthogonal one to all rows.
        return np.asarray(np.sqrt(np.maximum(2 - 2 * out_n, 0)))


class ClassGaussians:
    """One Gaussian a class, of one covariance, in principal components.

    The covariance is that of the (image, class) pairs around their class means, shrunk as by
    Ledoit and Wolf (2004): a dictionary has more latents than there are images.
    """

    def __init__(
        self,
        x_nd: NDArray[Any],
        image_q: NDArray[np.int64],
        class_q: NDArray[np.int64],
        components: int,
        seed: int,
    ) -> None:
        from sklearn.covariance import ledoit_wolf
        from sklearn.decomposition import PCA

        size = min(components, *x_nd.shape)
        solver = "randomized" if size < min(x_nd.shape) else "full"
        self._pca = PCA(size, svd_solver=solver, random_state=seed)
        z_nk = self._pca.fit_transform(x_nd).astype(np.float64)
        means_ck = _class_means(z_nk, image_q, class_q)
        covariance, _ = ledoit_wolf(z_nk[image_q] - means_ck[class_q], assume_centered=True)
        self._cholesky = np.linalg.cholesky(covariance)
        self._means_ck = self._whitened(means_ck)

    def distance(self, x_nd: NDArray[Any]) -> Floats:
        """Return the Mahalanobis distance [n] to the nearest class mean."""
        z_nk = self._whitened(self._pca.transform(x_nd).astype(np.float64))
        square_nc = (
            np.square(z_nk).sum(1)[:, None]
            - 2 * z_nk @ self._means_ck.T
            + np.square(self._means_ck).sum(1)
        )
        return np.asarray(np.sqrt(np.maximum(square_nc.min(axis=1), 0)))

    def _whitened(self, z_nk: Floats) -> Floats:
        from scipy.linalg import solve_triangular

        return np.asarray(solve_triangular(self._cholesky, z_nk.T, lower=True).T)


def class_profiles(
    latents_ns: NDArray[Any], image_q: NDArray[np.int64], class_q: NDArray[np.int64], share: float
) -> Floats:
    """Return the mean over a class's images of z / sum z, mixed with `share` of the uniform
    distribution, [c, s]."""
    return _smoothed(_class_means(latents_ns, image_q, class_q, _distribution), share)


def profile_divergence(profiles_cs: Floats, latents_ns: NDArray[Any]) -> Floats:
    """Return KL(z / sum z || profile) in nats for the nearest profile, [n]."""
    log_cs = np.log(profiles_cs)
    out_n = np.empty(len(latents_ns))
    for start in range(0, len(latents_ns), _ROWS):
        p_ns = _distribution(latents_ns[start : start + _ROWS]).astype(np.float64)
        out_n[start : start + _ROWS] = _negative_entropy(p_ns) - (p_ns @ log_cs.T).max(axis=1)
    return out_n


class EnergyProfiles:
    """How the activation of a class is spread over its core latents (arXiv 2604.26409).

    The mean latents of a class are its activation profile; its core are their largest.
    """

    def __init__(
        self,
        latents_ns: NDArray[Any],
        image_q: NDArray[np.int64],
        class_q: NDArray[np.int64],
        core_share: float,
        smoothing: float,
    ) -> None:
        means_cs = _class_means(latents_ns, image_q, class_q)
        size = max(1, round(core_share * means_cs.shape[1]))
        self._core_cl = np.argsort(-means_cs, axis=1, kind="stable")[:, :size]
        core_cl = _distribution(np.take_along_axis(means_cs, self._core_cl, axis=1))
        # A class of few images fires on fewer latents than its core has; the divergence of one that
        # fires on another would be infinite.
        self._log_cl = np.log(_smoothed(core_cl, smoothing))

    def divergence(self, latents_ns: NDArray[Any], class_n: NDArray[np.int64]) -> Floats:
        """Return KL(P || Q) in nats of images from the profile of a class of each, [n]."""
        core_nl = np.take_along_axis(latents_ns, self._core_cl[class_n], axis=1)
        p_nl = _distribution(core_nl).astype(np.float64)
        negative_entropy_n = _negative_entropy(p_nl)
        return np.asarray(negative_entropy_n - (p_nl * self._log_cl[class_n]).sum(axis=1))


def _norms(x_nd: NDArray[Any]) -> NDArray[Any]:
    """Return the length of each row, in the rows' type; 1 for a row of zeros."""
    norm_n = np.sqrt(np.einsum("nd,nd->n", x_nd, x_nd, dtype=np.float64))
    return np.where(norm_n > 0, norm_n, 1).astype(x_nd.dtype)


def _distribution(latents_ns: NDArray[Any]) -> NDArray[Any]:
    """Return rows scaled to sum 1; uniform for an image on which no latent fires."""
    sum_n1 = latents_ns.sum(axis=1, keepdims=True)
    uniform = np.float32(1 / latents_ns.shape[1])
    return np.where(sum_n1 > 0, latents_ns / np.where(sum_n1 > 0, sum_n1, 1), uniform)


def _smoothed(profiles_cs: NDArray[Any], share: float) -> Floats:
    """Return distributions mixed with `share` of the uniform one."""
    return np.asarray((1 - share) * profiles_cs + share / profiles_cs.shape[1])


def _negative_entropy(p_ns: Floats) -> Floats:
    """Return the sum of p log p of each row, in nats."""
    return np.asarray((p_ns * np.log(np.where(p_ns > 0, p_ns, 1))).sum(axis=1))


def _class_means(
    x_nd: NDArray[Any],
    image_q: NDArray[np.int64],
    class_q: NDArray[np.int64],
    transform: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray,
) -> Floats:
    """Return the mean of each class's images [c, d], in float64, after `transform`."""
    classes = range(int(class_q.max()) + 1)
    rows_c = (image_q[class_q == c] for c in classes)
    return np.stack([transform(x_nd[rows]).mean(axis=0, dtype=np.float64) for rows in rows_c])


def _class_logits(logits: NDArray[Any]) -> Floats:
    """Return a logit a class [n, c], in float64."""
    # Of two classes scikit-learn gives the difference of the logits; here they sum to 0, as its
    # logits of more classes do.
    logits_nc = np.stack([-logits / 2, logits / 2], 1) if logits.ndim == 1 else logits
    return logits_nc.astype(np.float64)


def _probe_scores(logits_nc: Floats) -> tuple[Floats, Floats]:
    """Return log sum exp, the negative energy, and the largest probability of each image, [n]."""
    top_n = logits_nc.max(axis=1)
    energy_n = top_n + np.log(np.exp(logits_nc - top_n[:, None]).sum(axis=1))
    return energy_n, np.exp(top_n - energy_n)
