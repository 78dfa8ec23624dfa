"""Dictionaries compared by how well one of their latents tells the patches of a class.

By probe1d of saev (Stevens et al., arXiv 2502.06755 and 2511.17735; its program
contrib/trait_discovery): for each class the latent whose logistic probe has the smallest loss on
labelled patches, scored on held-out ones by average precision. Purity and coverage here are the
probe's precision and recall at the threshold of the largest F1 on the fitted patches. There, purity
is that of a latent's 16 top patches, and coverage the share of classes of which the average
precision reaches .3, which here is `classes_found`.

Shape legend: n patch, s latent, c class, r resample.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import percentile_interval
from vista.metrics.figure import Figure
from vista.metrics.latent_probes.probes import (
    Activations,
    choose_latents,
    column,
    fit_probes,
    histogram_of,
)
from vista.metrics.latent_probes.scores import (
    ClassScores,
    best_threshold,
    class_scores,
    count_images,
    resampled_scores,
)
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
SAE = "sae"
# Names of the figures by the fields of `DictionaryProbes`.
FIGURES = {
    "average_precision": "probe_average_precision",
    "auroc": "probe_auroc",
    "purity": "probe_purity",
    "coverage": "probe_coverage",
    "classes_found": "probe_classes_found",
    "gain": "probe_precision_gain",
}


@dataclass(frozen=True)
class Patches:
    """Patches of one split: which classes each shows [n, c], and its image [n], from 0."""

    shown_nc: Bools
    image_n: NDArray[np.int64]


class DictionaryProbes(ResultPart):
    """Scores of one dictionary, means over classes; n is the number of held-out images, of
    `classes_found` that of classes."""

    latents: int = Field(description="Latents that a class could choose from.")
    average_precision: Estimate = Field(description="Mean average precision.")
    auroc: Estimate = Field(description="Mean AUROC.")
    purity: Estimate = Field(description="Precision at the threshold.")
    coverage: Estimate = Field(description="Recall at the threshold.")
    classes_found: Estimate = Field(description="Share of classes of enough average precision.")
    gain: Estimate | None = Field(
        description="The SAE's mean average precision less this dictionary's; None of the SAE."
    )


class LatentProbesResult(MetricResult):
    """How well one latent tells the patches of a class, by dictionary."""

    layer: int | None = Field(None, description="Block that the SAE reads, counted from 0.")
    classes: int = Field(description="Classes that are probed.")
    images: int = Field(description="Held-out images.")
    patches: int = Field(description="Held-out patches.")
    fitted_images: int = Field(description="Images that probes are fitted on.")
    dictionaries: dict[str, DictionaryProbes] = Field(description="Scores by dictionary.")

    def figures(self) -> list[Figure]:
        """Return a row for each dictionary and score, and the number of classes."""
        rows = [Figure("probe_classes", layer=self.layer, value=self.classes, n=self.patches)]
        for name, scores in self.dictionaries.items():
            latents = scores.latents
            rows.append(
                Figure("probe_latents", of=name, layer=self.layer, value=latents, n=latents)
            )
            for field, figure in FIGURES.items():
                if (score := getattr(scores, field)) is not None:
                    rows.append(score.figure(figure, self.layer, "image", of=name))
        return rows


class ClassProbe(NamedTuple):
    """The probe of each class: its latent (-1 of a probe on all channels) and the sign of its
    weight [c], and scores of the fitted and the held-out patches [n, c]."""

    latent_c: NDArray[np.int64]
    sign_c: Floats
    fit_nc: Floats
    held_nc: Floats


class Measured(NamedTuple):
    """A dictionary's scores of each class, columns of the items; the resamples of its mean average
    precision [r]; and its result without the gain."""

    items: dict[str, Any]
    drawn_r: Floats
    scores: DictionaryProbes


def one_latent_probes(
    fit_ns: Activations, held_ns: Activations, shown_nc: Bools, bins: int, ridge: float
) -> ClassProbe:
    """Choose a latent for each class on the fitted patches, and score all patches by its probe."""
    choice = choose_latents(fit_ns, shown_nc, bins, ridge)
    fit_nc = np.empty(shown_nc.shape)
    held_nc = np.empty((held_ns.shape[0], shown_nc.shape[1]))
    sign_c = choice.sign_c.copy()
    for c, latent in enumerate(choice.latent_c.tolist()):
        x_n = column(fit_ns, latent)
        probe = fit_probes(histogram_of(x_n, shown_nc[:, [c]], len(x_n)), ridge)
        weight, bias = float(probe.weight_sc[0, 0]), float(probe.bias_sc[0, 0])
        fit_nc[:, c] = weight * x_n + bias
        held_nc[:, c] = weight * column(held_ns, latent) + bias
        sign_c[c] = np.sign(weight)
    return ClassProbe(choice.latent_c, sign_c, fit_nc, held_nc)


def measure_dictionary(
    probe: ClassProbe,
    latents: int,
    fit: Patches,
    held: Patches,
    *,
    found: float,
    seed: int,
    resamples: int,
    level: float,
) -> Measured:
    """Score the probes of a dictionary on held-out patches, with intervals over images.

    Args:
        probe: The probes, with a class for each of `fit` and `held`.
        latents: Latents of the dictionary.
        fit: Patches that thresholds are chosen on.
        held: Patches that are scored.
        found: Average precision from which on a class counts as found.
        seed: Seed of the bootstrap: equal seeds draw equal images.
        resamples: Bootstrap samples.
        level: Coverage of the intervals.
    """
    by_class: list[ClassScores] = []
    drawn: list[ClassScores] = []
    threshold_c, chosen_c = [], []
    for c in range(fit.shown_nc.shape[1]):
        at = best_threshold(probe.fit_nc[:, c], fit.shown_nc[:, c])
        counts = count_images(probe.held_nc[:, c], held.shown_nc[:, c], held.image_n, at)
        by_class.append(class_scores(counts))
        drawn.append(resampled_scores(counts, seed, resamples))
        threshold_c.append(at)
        chosen_c.append(float((counts.hit_b.sum() + counts.miss_b.sum()) / len(held.image_n)))
    images = int(held.image_n.max()) + 1
    share = float(held.shown_nc.mean())

    def score(name: str, chance: float) -> Estimate:
        value = float(_mean([getattr(scores, name) for scores in by_class]))
        drawn_r = _mean([getattr(scores, name) for scores in drawn])
        return estimate(percentile_interval(value, drawn_r, images, level), images, chance)

    precision = [s.average_precision for s in by_class]
    drawn_precision = [s.average_precision for s in drawn]
    reached_c = np.array(precision) >= found
    # Of a count over a bound resamples are biased, so its interval is over classes.
    of_classes = rate_interval(reached_c, np.ones(len(reached_c)), level)
    scores = DictionaryProbes(
        latents=latents,
        average_precision=score("average_precision", share),
        auroc=score("auroc", 0.5),
        purity=score("purity", share),
        coverage=score("coverage", float(np.mean(chosen_c))),
        classes_found=estimate(of_classes, len(reached_c)),
        gain=None,
    )
    items = {
        "latent": probe.latent_c,
        "sign": probe.sign_c,
        "threshold": threshold_c,
        "patches": held.shown_nc.sum(axis=0),
        **{name: [getattr(s, name) for s in by_class] for name in ClassScores._fields},
    }
    return Measured(items, _mean(drawn_precision), scores)


def with_gains(measured: Mapping[str, Measured], level: float) -> dict[str, DictionaryProbes]:
    """Return the scores of all dictionaries, each with what the SAE gains over it on the same
    images."""
    sae = measured[SAE]
    mean = sae.scores.average_precision
    results = {}
    for name, (_, drawn_r, scores) in measured.items():
        if name != SAE and mean.value is not None and scores.average_precision.value is not None:
            value = mean.value - scores.average_precision.value
            interval = percentile_interval(value, sae.drawn_r - drawn_r, mean.n, level)
            scores = scores.model_copy(update={"gain": estimate(interval, mean.n, 0.0)})
        results[name] = scores
    return results


def common_classes(fit: list[set[str]], held: list[set[str]], least: int) -> Iterator[str]:
    """Yield the classes, sorted, that `least` images of both splits show.

    Args:
        fit: Classes on the patches of each image that probes are fitted on.
        held: Those of each held-out image.
        least: Images of either split.
    """
    for name in sorted(set().union(*fit) & set().union(*held)):
        if all(sum(name in shown for shown in images) >= least for images in (fit, held)):
            yield name


def _mean(values: list[Any]) -> Any:
    """Mean over classes of values or of their resamples [r], without the undefined ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a resample without any class
        return np.nanmean(np.array(values, dtype=np.float64), axis=0)
