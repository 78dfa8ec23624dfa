"""Accuracy of linear probes where the distribution shifts.

A probe predicts the class of an image from its latents, or from a rival representation of as many
dimensions (defined here: of arXiv 2508.11277 only the abstract is public):

    latents, latents_K   all latents of the SAE; the K whose ANOVA F over classes is largest
    raw, raw_K           mean patch features; the K channels chosen likewise
    random, random_K     latents of a random dictionary of the SAE's size and sparsity
    pca_K                the first K principal components of the raw features

A representation of K dimensions is left out where its space has no more than K. Dimensions,
components and probes are chosen on the same images. Legend: n image, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer

from vista.metrics.bootstrap import bootstrap_mean, percentile_interval, resample_means
from vista.metrics.figure import Figure
from vista.metrics.logistic import fit_logistic
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

SPACES = ("latents", "raw", "random")
# Columns whose F is computed at once.
_COLUMNS = 1024

Bools = NDArray[np.bool_]
# Vectors [n, width] of a space -> those of a representation.
_Transform = Callable[[NDArray[Any]], NDArray[Any]]


class Representation(NamedTuple):
    """What a probe reads.

    Attributes:
        space: `latents`, `raw`, `random` or `pca`.
        k: Number of dimensions; None: all.
    """

    space: str
    k: int | None = None

    @property
    def key(self) -> str:
        """Its key in result.json."""
        return self.space if self.k is None else f"{self.space}_{self.k}"


# What paired differences are of.
OURS, RIVALS = Representation("latents"), (Representation("raw"), Representation("random"))
Key = Annotated[Representation, PlainSerializer(lambda representation: representation.key)]


class Answers(NamedTuple):
    """Answers of probes on images of one class each.

    Attributes:
        class_n: Class of each image.
        right: Whether the probe on each representation predicts it [n].
    """

    class_n: NDArray[np.str_]
    right: Mapping[Representation, Bools]


class Probed(ResultPart):
    """Accuracies on one set of images."""

    n_classes: int = Field(description="Classes among the images.")
    accuracy: dict[Key, Estimate] = Field(
        description="Share of the images whose class the probe predicts among all that it was "
        "fitted on, by representation; chance: always the class that most of these images have, "
        "the best constant answer."
    )
    gain: dict[Key, Estimate] = Field(
        description="Accuracy on all latents less that on all dimensions of each rival, on the "
        "same resampled images; chance 0."
    )


class Shifted(Probed):
    """Accuracies on one shifted set."""

    drop: dict[Key, Estimate] = Field(
        description="Accuracy on the run's own images of the classes that the set has, less that "
        "on the set; the images of either side are resampled. Chance, without a shift, is 0."
    )


class OodGeneralizationResult(MetricResult):
    """Accuracies in and out of the distribution that probes were fitted on."""

    n_fitted: int = Field(description="Images that probes were fitted on.")
    n_classes: int = Field(description="Classes among them.")
    inside: Probed = Field(description="On held-out images of the run's data.")
    sets: dict[str, Shifted] = Field(description="On shifted sets, by name.")

    def figures(self) -> list[Figure]:
        """Return accuracies and gains on the run's own images and on each set, and there drops."""
        rows = _rows(self.inside, None)
        for name, shifted in self.sets.items():
            rows += [*_rows(shifted, name), *_figures("probe_drop", shifted.drop, name)]
        return rows


def _rows(probed: Probed, set_name: str | None) -> list[Figure]:
    return [
        *_figures("probe_accuracy", probed.accuracy, set_name),
        *_figures("probe_gain", probed.gain, set_name),
    ]


def _figures(
    metric: str, estimates: Mapping[Representation, Estimate], set_name: str | None
) -> list[Figure]:
    return [
        value.figure(metric, of=representation.space, k=representation.k, set=set_name)
        for representation, value in estimates.items()
    ]


class Probes:
    """A probe on every representation of the images that it was fitted on."""

    def __init__(
        self,
        vectors: Mapping[str, NDArray[Any]],
        class_n: NDArray[np.str_],
        *,
        sizes: Sequence[int],
        regularisation: float,
        iterations: int,
    ) -> None:
        """Fit them on vectors [n, width] of all `SPACES` and the classes [n] of their images.

        `sizes` are the Ks, `regularisation` is scikit-learn's C, `iterations` are of its solver.
        Raises ValueError for fewer than two classes.
        """
        if (classes := len(np.unique(class_n))) < 2:
            raise ValueError(f"too few classes ({classes}) where a probe needs two")
        self._probes: dict[Representation, tuple[str, _Transform, Any]] = {}
        for representation, space, transform in _representations(
            vectors, class_n, sorted(set(sizes))
        ):
            probe = fit_logistic(
                transform(vectors[space]),
                class_n,
                regularisation=regularisation,
                iterations=iterations,
            )
            self._probes[representation] = space, transform, probe

    def right(
        self, vectors: Mapping[str, NDArray[Any]], class_n: NDArray[np.str_]
    ) -> dict[Representation, Bools]:
        """Return whether each probe predicts the class of further images, [n] by representation."""
        return {
            representation: probe.predict(transform(vectors[space])) == class_n
            for representation, (space, transform, probe) in self._probes.items()
        }


def ood_generalization(
    fit_class_n: NDArray[np.str_],
    inside: Answers,
    sets: Mapping[str, Answers],
    *,
    seed: int,
    resamples: int,
    level: float,
) -> OodGeneralizationResult:
    """Return the accuracies of probes.

    Args:
        fit_class_n: Classes of the images that they were fitted on.
        inside: Answers on held-out images of the same distribution.
        sets: Answers on shifted images, by name of the set.
        seed: Of the bootstrap over images.
        resamples: Of the bootstrap.
        level: Coverage of the intervals.

    Raises:
        ValueError: There is no image.
    """

    def probed(answers: Answers) -> dict[str, Any]:
        n, right = len(answers.class_n), answers.right
        names, counts = np.unique(answers.class_n, return_counts=True)
        chance = float(counts.max() / n)
        gains = {rival: right[OURS].astype(float) - right[rival] for rival in RIVALS}
        return {
            "n_classes": len(names),
            "accuracy": {
                representation: estimate(rate_interval(right_n, np.ones(n), level), n, chance)
                for representation, right_n in right.items()
            },
            "gain": {
                rival: estimate(bootstrap_mean(gain_n, seed, resamples, level), n, 0.0)
                for rival, gain_n in gains.items()
            },
        }

    def drop(answers: Answers) -> dict[Representation, Estimate]:
        same = np.isin(inside.class_n, answers.class_n)
        before = np.stack([right_n[same] for right_n in inside.right.values()], axis=1)
        after = np.stack(list(answers.right.values()), axis=1)
        value_c = before.mean(axis=0) - after.mean(axis=0)
        drawn_rc = resample_means(before, seed, resamples)
        drawn_rc = drawn_rc - resample_means(after, seed + 1, resamples)
        n = min(len(before), len(after))
        return {
            representation: estimate(
                percentile_interval(float(value), drawn_r, n, level), len(after), 0.0
            )
            for representation, value, drawn_r in zip(
                answers.right, value_c, drawn_rc.T, strict=True
            )
        }

    return OodGeneralizationResult(
        n_fitted=len(fit_class_n),
        n_classes=len(np.unique(fit_class_n)),
        inside=Probed(**probed(inside)),
        sets={
            name: Shifted(**probed(answers), drop=drop(answers)) for name, answers in sets.items()
        },
    )


def _representations(
    vectors: Mapping[str, NDArray[Any]], class_n: NDArray[np.str_], sizes: Sequence[int]
) -> Iterator[tuple[Representation, str, _Transform]]:
    """Yield each representation, the space of its vectors, and how it is computed from these."""
    from sklearn.decomposition import PCA

    for space in SPACES:
        yield Representation(space), space, np.asarray
        # Stable: of equal ones the first stays.
        best = np.argsort(-anova_f(vectors[space], class_n), kind="stable")
        for k in (k for k in sizes if k < len(best)):
            yield Representation(space, k), space, partial(np.take, indices=best[:k], axis=1)
    if fitting := [k for k in sizes if k < min(vectors["raw"].shape)]:
        pca = PCA(fitting[-1], svd_solver="full").fit(vectors["raw"])
        for k in fitting:
            yield Representation("pca", k), "raw", partial(_components, pca, k)


def _components(pca: Any, k: int, x_nd: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(pca.transform(x_nd)[:, :k])


def anova_f(x_nd: NDArray[Any], class_n: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return F of each column over the classes [d]; -1 for a constant column."""
    import warnings

    from sklearn.feature_selection import f_classif

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # Of constant columns.
        warnings.simplefilter("ignore", UserWarning)
        parts = [
            f_classif(x_nd[:, start : start + _COLUMNS].astype(np.float64), class_n)[0]
            for start in range(0, x_nd.shape[1], _COLUMNS)
        ]
    return np.asarray(np.nan_to_num(np.concatenate(parts), nan=-1.0))
