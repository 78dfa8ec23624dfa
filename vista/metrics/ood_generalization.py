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

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vista.metrics.bootstrap import bootstrap_mean, resample_means
from vista.metrics.logistic import fit_logistic
from vista.metrics.result import Estimate, MetricResult, estimate
from vista.metrics.rows import Row

SPACES = ("latents", "raw", "random")
# What paired differences are of.
OURS, RIVALS = "latents", ("raw", "random")
# Columns whose F is computed at once.
_COLUMNS = 1024

Bools = NDArray[np.bool_]


class ClassImages(NamedTuple):
    """Images of one class each: vectors [n, width] by space, and classes [n]."""

    vectors: Mapping[str, NDArray[np.float32]]
    class_n: NDArray[np.str_]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Probed(_Frozen):
    """Accuracies on one set of images."""

    n_classes: int = Field(description="Classes among the images.")
    accuracy: dict[str, Estimate] = Field(
        description="Share of the images whose class the probe names among all that it was fitted "
        "on, by representation; chance: always the class that is most frequent in fitting."
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

    def rows(self) -> list[Row]:
        """Return probe_accuracy:REPRESENTATION and probe_gain:RIVAL on the run's own images, and
        with @SET on a shifted set, where there is probe_drop:REPRESENTATION@SET too."""
        rows = _rows(self.inside, "")
        for name, each in self.sets.items():
            rows += _rows(each, f"@{name}")
            rows += [x.row(f"probe_drop:{of}@{name}") for of, x in each.drop.items()]
        return rows


def _rows(probed: Probed, where: str) -> list[Row]:
    accuracies = [x.row(f"probe_accuracy:{of}{where}") for of, x in probed.accuracy.items()]
    gains = [x.row(f"probe_gain:{of}{where}") for of, x in probed.gain.items()]
    return accuracies + gains


def ood_generalization(
    fit: ClassImages,
    inside: ClassImages,
    sets: Mapping[str, ClassImages],
    *,
    sizes: Sequence[int],
    regularisation: float,
    iterations: int,
    seed: int,
    resamples: int,
    level: float,
) -> OodGeneralizationResult:
    """Fit a probe on every representation of `fit` and judge it on all other images.

    Args:
        fit: Images with vectors of all `SPACES`; of two classes or more.
        inside: Held-out images of the same distribution.
        sets: Shifted images, by name.
        sizes: The Ks.
        regularisation: scikit-learn's C of every probe.
        iterations: Of its solver.
        seed: Of the bootstrap over images.
        resamples: Of the bootstrap.
        level: Coverage of the intervals.

    Raises:
        ValueError: No image to judge, or fewer than two classes to fit on.
    """
    names, counts = np.unique(fit.class_n, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"too few classes ({len(names)}) where a probe needs two")
    right: list[dict[str, Bools]] = [{} for _ in range(1 + len(sets))]
    for of, vectors in _representations(fit, inside, sets, sorted(set(sizes))):
        first = next(vectors)
        probe = fit_logistic(
            first, fit.class_n, regularisation=regularisation, iterations=iterations
        )
        for judged, found, x_nd in zip((inside, *sets.values()), right, vectors, strict=True):
            found[of] = probe.predict(x_nd) == judged.class_n

    common = str(names[counts.argmax()])

    def probed(judged: ClassImages, right: Mapping[str, Bools]) -> dict[str, Any]:
        chance, n = float(np.mean(judged.class_n == common)), len(judged.class_n)
        more = {of: right[OURS].astype(float) - right[of] for of in RIVALS}
        return {
            "n_classes": len(np.unique(judged.class_n)),
            "accuracy": {
                of: estimate(bootstrap_mean(hit_n, seed, resamples, level), n, chance)
                for of, hit_n in right.items()
            },
            "gain": {
                of: estimate(bootstrap_mean(more_n, seed, resamples, level), n, 0.0)
                for of, more_n in more.items()
            },
        }

    def drop(judged: ClassImages, right_out: Mapping[str, Bools]) -> dict[str, Estimate]:
        same = np.isin(inside.class_n, judged.class_n)
        before = np.stack([hit_n[same] for hit_n in right[0].values()], axis=1)
        after = np.stack(list(right_out.values()), axis=1)
        value_c = before.mean(axis=0) - after.mean(axis=0)
        drawn_rc = resample_means(before, seed, resamples)
        drawn_rc = drawn_rc - resample_means(after, seed + 1, resamples)
        tail = (1 - level) / 2
        ends = np.quantile(drawn_rc, [tail, 1 - tail], axis=0, method="nearest")
        return {
            of: estimate((value, low, high), len(after), 0.0)
            for of, value, low, high in zip(right_out, value_c, *ends, strict=True)
        }

    return OodGeneralizationResult(
        n_fitted=len(fit.class_n),
        n_classes=len(names),
        inside=Probed(**probed(inside, right[0])),
        sets={
            name: Shifted(**probed(each, found), drop=drop(each, found))
            for (name, each), found in zip(sets.items(), right[1:], strict=True)
        },
    )


def _representations(
    fit: ClassImages, inside: ClassImages, sets: Mapping[str, ClassImages], sizes: Sequence[int]
) -> Iterator[tuple[str, Iterator[NDArray[Any]]]]:
    """Yield each representation's name and its vectors of all images, those of `fit` first."""
    from sklearn.decomposition import PCA

    every = (fit, inside, *sets.values())
    for space in SPACES:
        yield space, (each.vectors[space] for each in every)
        width = fit.vectors[space].shape[1]
        # Stable: of equal ones the first stays.
        best = np.argsort(-anova_f(fit.vectors[space], fit.class_n), kind="stable")
        for k in (k for k in sizes if k < width):
            yield f"{space}_{k}", (each.vectors[space][:, best[:k]] for each in every)
    raw_nd = fit.vectors["raw"]
    if fitting := [k for k in sizes if k < min(raw_nd.shape)]:
        pca = PCA(fitting[-1], svd_solver="full").fit(raw_nd)
        for k in fitting:
            yield f"pca_{k}", (pca.transform(each.vectors["raw"])[:, :k] for each in every)


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
