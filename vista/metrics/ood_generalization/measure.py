"""Do linear probes keep their accuracy where the distribution shifts?

A probe reads the class of an image off its latents, or off a rival representation of as many
numbers (arXiv 2508.11277 is public in its abstract only; the definitions are ours):

    latents, latents_K   all latents of the SAE; the K whose ANOVA F over classes is largest
    raw, raw_K           mean patch features; their K best channels, chosen alike
    random, random_K     latents of a random dictionary of the SAE's size and sparsity
    pca_K                the first K principal components of the raw features

K is left out where a representation has no more numbers than that. Channels, components and
probes are fitted on the same images. Legend: n image, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vista.metrics.bootstrap import bootstrap_mean, resample_means
from vista.metrics.figure import Figure
from vista.metrics.logistic import fit_logistic
from vista.metrics.result import Estimate, MetricResult, estimate

SPACES = ("latents", "raw", "random")
# What paired differences are of.
OURS, RIVALS = "latents", ("raw", "random")
# Columns whose F is computed at once.
_COLUMNS = 1024

Bools = NDArray[np.bool_]
# Vectors [n, width] -> those of a representation.
_Reading = Callable[[NDArray[Any]], NDArray[Any]]


class Judged(NamedTuple):
    """Images of one class each: classes [n], and whether each probe names them [n]."""

    class_n: NDArray[np.str_]
    right: Mapping[str, Bools]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Probed(_Frozen):
    """Accuracies on one set of images."""

    n_classes: int = Field(description="Classes among the images.")
    accuracy: dict[str, Estimate] = Field(
        description="Share of the images whose class the probe names among all that it was fitted "
        "on, by representation; chance: always the class that most of these images have, which "
        "no guess without a look does better than."
    )
    gain: dict[str, Estimate] = Field(
        description="Accuracy on all latents less that on all of each rival's numbers, on the same "
        "resampled images; chance 0."
    )


class Shifted(Probed):
    """Accuracies on one shifted set."""

    drop: dict[str, Estimate] = Field(
        description="Accuracy on the run's own images of the classes that the set has, less that "
        "on the set; either side's images are drawn anew. Chance, without a shift, is 0."
    )


class OodGeneralizationResult(MetricResult):
    """Accuracies in and out of the distribution that probes were fitted on."""

    n_fitted: int = Field(description="Images that probes were fitted on.")
    n_classes: int = Field(description="Classes among them.")
    inside: Probed = Field(description="On held-out images of the run's data.")
    sets: dict[str, Shifted] = Field(description="On shifted sets, by name.")

    def figures(self) -> list[Figure]:
        """Return probe_accuracy:REPRESENTATION and probe_gain:RIVAL on the run's own images, and
        with @SET on a shifted set, where there is probe_drop:REPRESENTATION@SET too."""
        rows = _rows(self.inside, "")
        for name, each in self.sets.items():
            rows += _rows(each, f"@{name}")
            rows += [x.figure(f"probe_drop:{of}@{name}") for of, x in each.drop.items()]
        return rows


def _rows(probed: Probed, where: str) -> list[Figure]:
    accuracies = [x.figure(f"probe_accuracy:{of}{where}") for of, x in probed.accuracy.items()]
    gains = [x.figure(f"probe_gain:{of}{where}") for of, x in probed.gain.items()]
    return accuracies + gains


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
        self._probes: dict[str, tuple[str, _Reading, Any]] = {}
        for name, space, read in _representations(vectors, class_n, sorted(set(sizes))):
            x_nd = read(vectors[space])
            fitted = fit_logistic(
                x_nd, class_n, regularisation=regularisation, iterations=iterations
            )
            self._probes[name] = space, read, fitted

    def right(
        self, vectors: Mapping[str, NDArray[Any]], class_n: NDArray[np.str_]
    ) -> dict[str, Bools]:
        """Whether each probe names the class of further images, [n] by representation."""
        return {
            name: fitted.predict(read(vectors[space])) == class_n
            for name, (space, read, fitted) in self._probes.items()
        }


def ood_generalization(
    fit_class_n: NDArray[np.str_],
    inside: Judged,
    sets: Mapping[str, Judged],
    *,
    seed: int,
    resamples: int,
    level: float,
) -> OodGeneralizationResult:
    """Return the accuracies of probes.

    Args:
        fit_class_n: Classes of the images that they were fitted on.
        inside: Held-out images of the same distribution.
        sets: Shifted images, by name.
        seed: Of the bootstrap over images.
        resamples: Of the bootstrap.
        level: Coverage of the intervals.

    Raises:
        ValueError: No image to judge.
    """

    def probed(judged: Judged) -> dict[str, Any]:
        n, right = len(judged.class_n), judged.right
        names, counts = np.unique(judged.class_n, return_counts=True)
        chance = float(counts.max() / n)
        more = {of: right[OURS].astype(float) - right[of] for of in RIVALS}
        return {
            "n_classes": len(names),
            "accuracy": {
                of: estimate(bootstrap_mean(hit_n, seed, resamples, level), n, chance)
                for of, hit_n in right.items()
            },
            "gain": {
                of: estimate(bootstrap_mean(more_n, seed, resamples, level), n, 0.0)
                for of, more_n in more.items()
            },
        }

    def drop(judged: Judged) -> dict[str, Estimate]:
        same = np.isin(inside.class_n, judged.class_n)
        before = np.stack([hit_n[same] for hit_n in inside.right.values()], axis=1)
        after = np.stack(list(judged.right.values()), axis=1)
        value_c = before.mean(axis=0) - after.mean(axis=0)
        drawn_rc = resample_means(before, seed, resamples)
        drawn_rc = drawn_rc - resample_means(after, seed + 1, resamples)
        tail = (1 - level) / 2
        ends = np.quantile(drawn_rc, [tail, 1 - tail], axis=0, method="nearest")
        return {
            of: estimate((value, low, high), len(after), 0.0)
            for of, value, low, high in zip(judged.right, value_c, *ends, strict=True)
        }

    return OodGeneralizationResult(
        n_fitted=len(fit_class_n),
        n_classes=len(np.unique(fit_class_n)),
        inside=Probed(**probed(inside)),
        sets={name: Shifted(**probed(each), drop=drop(each)) for name, each in sets.items()},
    )


def _representations(
    vectors: Mapping[str, NDArray[Any]], class_n: NDArray[np.str_], sizes: Sequence[int]
) -> Iterator[tuple[str, str, _Reading]]:
    """Yield each representation's name, its space, and how it is read off that."""
    from sklearn.decomposition import PCA

    for space in SPACES:
        yield space, space, np.asarray
        # Stable: of equal ones the first stays.
        best = np.argsort(-anova_f(vectors[space], class_n), kind="stable")
        for k in (k for k in sizes if k < len(best)):
            yield f"{space}_{k}", space, partial(np.take, indices=best[:k], axis=1)
    if fitting := [k for k in sizes if k < min(vectors["raw"].shape)]:
        pca = PCA(fitting[-1], svd_solver="full").fit(vectors["raw"])
        for k in fitting:
            yield f"pca_{k}", "raw", partial(_components, pca, k)


def _components(pca: Any, k: int, x_nd: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(pca.transform(x_nd)[:, :k])


def anova_f(x_nd: NDArray[Any], class_n: NDArray[np.str_]) -> NDArray[np.float64]:
    """F of each column over the classes [d]; -1 for a column that never changes."""
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
