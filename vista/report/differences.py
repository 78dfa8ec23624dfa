"""Differences of the matching rate between points and their controls, paired over images.

Gains of the SAE term at one weight, each between two sides that are read in the same way:

as_run         with the term - without it
norm_matched   with the term - the baseline in the norm of the tokens with the term
text_scale     both sides read by the SAEs in the scale of text
best_scale     both sides in the scale that names most on validation images

Suffixes: b images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vista.engine.artifacts import Artifact
from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.result import estimate
from vista.metrics.results import read_result
from vista.report.compare import BASELINE
from vista.report.shown import MetricPlace

METRIC = "matching_difference"
STAGE = "matching_rate"
# Comparison -> the control of the side with the term, and that of the side without it. That of the
# baseline in another norm stands at the weight whose norm it has.
COMPARISONS: Mapping[str, tuple[str | None, str | None]] = {
    "as_run": (None, None),
    "norm_matched": (None, "norm_matched"),
    "text_scale": ("text_scale", "text_scale"),
    "best_scale": ("best_scale", "best_scale"),
}
_AT_THE_WEIGHT = "norm_matched"
COMPARISON_NAMES = {
    "as_run": "as run",
    "norm_matched": "norm-matched",
    "text_scale": "both in text's scale",
    "best_scale": "both at best scale",
}

# Encoder, language model, weight, seed, control.
_Point = tuple[Any, ...]
# Value of each image, by its id.
Rates = dict[str, float]


def differences(metrics: Sequence[tuple[MetricPlace, Artifact]]) -> list[Figure]:
    """Return each difference for each seed, and (seed None) for the mean over the seeds that have
    it; intervals are over images.

    An image's value is the mean over layers of whether one of its top latents names what it shows,
    at the k of the metric's settings.
    """
    rates: dict[_Point, Rates] = {}
    top_k = 0
    for place, artifact in metrics:
        if place.metric == STAGE:
            top_k = int(read_result(artifact)["top_k"])
            rates[_point(place)] = image_rates(artifact, top_k)
    figures: list[Figure] = []
    for (encoder, llm, weight), seeds in _weights(rates).items():
        for name in COMPARISONS:
            paired = {
                seed: sides
                for seed in seeds
                if (sides := _sides(rates, (encoder, llm, weight, seed), name)) is not None
            }
            columns = {"encoder": encoder, "llm": llm, "sae_weight": weight}
            figures += paired_figures(paired, METRIC, STAGE, of=name, k=top_k, **columns)
    return figures


def paired_figures(
    paired: Mapping[int, tuple[Rates, Rates]], metric: str, stage: str, **columns: Any
) -> Iterator[Figure]:
    """Yield the mean difference over images of each seed, and (seed None) of the mean over seeds.

    Args:
        paired: The values of both sides, by image, of each seed; images that one side lacks are
            left out.
        metric: Name of the figures.
        stage: The stage that measured the values.
        columns: The other columns of the figures.
    """
    for seed, difference_b in _differences(paired):
        interval = estimate(bootstrap_mean(difference_b, 0), len(difference_b))
        yield replace(interval.figure(metric), stage=stage, seed=seed, **columns)


def image_rates(artifact: Artifact, k: int) -> Rates:
    """Return for each image the mean over layers of whether it matches at `k`; images that the
    judge left open on all layers are left out."""
    table = pq.read_table(artifact.file("items.parquet"), columns=["image_id", f"matched@{k}"])
    sums: dict[str, list[bool]] = {}
    for image, matched in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if matched is not None:
            sums.setdefault(image, []).append(matched)
    return {image: sum(values) / len(values) for image, values in sums.items()}


def _point(place: MetricPlace) -> _Point:
    return place.encoder, place.llm, place.sae_weight, place.seed, place.control


def _weights(rates: Mapping[_Point, Rates]) -> dict[tuple[Any, ...], list[int]]:
    """Return the seeds of each encoder, language model and positive weight."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for encoder, llm, weight, seed, control in sorted(rates, key=lambda p: tuple(map(str, p))):
        if control is None and weight is not None and weight != BASELINE:
            found.setdefault((encoder, llm, weight), []).append(seed)
    return found


def _sides(
    rates: Mapping[_Point, Rates], point: tuple[Any, ...], comparison: str
) -> tuple[Rates, Rates] | None:
    """Return the images' values with the term and without it; None where one was not measured."""
    encoder, llm, weight, seed = point
    with_term, without = COMPARISONS[comparison]
    other = weight if without == _AT_THE_WEIGHT else BASELINE
    sides = (
        rates.get((encoder, llm, weight, seed, with_term)),
        rates.get((encoder, llm, other, seed, without)),
    )
    return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])


def _differences(
    paired: Mapping[int, tuple[Rates, Rates]],
) -> Iterator[tuple[int | None, NDArray[np.float64]]]:
    """Yield the differences [b] of the images that both sides have: of each seed, then, as None, of
    the mean over seeds on the images that all have."""
    by_seed = {
        seed: {image: ours[image] - rival[image] for image in ours if image in rival}
        for seed, (ours, rival) in paired.items()
    }
    for seed, values in by_seed.items():
        yield seed, np.array(list(values.values()))
    if by_seed:
        first, *others = by_seed.values()
        shared = [image for image in first if all(image in other for other in others)]
        rows = [[values[image] for image in shared] for values in by_seed.values()]
        yield None, np.array(rows, dtype=np.float64).mean(axis=0)
