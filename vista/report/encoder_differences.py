"""Which of two encoders is better: differences between points of the sweep, paired over images.

Both points have the same language model, weight of the SAE term and seed, and no control. An
image's value is

matching_rate   the mean over layers of whether one of its top latents names what it shows
pointing_game   the share of its turns, of all layers, in which a latent points at its object

so that an image in which one encoder's latents have no turn is left out of that pair. Intervals are
over images, and are not corrected for the number of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pyarrow.parquet as pq

from vista.engine.artifacts import Artifact
from vista.metrics.figure import Figure
from vista.metrics.results import read_result
from vista.report import grid
from vista.report.controls_section import gain
from vista.report.differences import Rates, image_rates, paired_figures
from vista.report.grid import Grid, Name, Section
from vista.report.shown import Measured, MetricPlace
from vista.report.table import groups

METRIC = "encoder_difference"
# More encoders than this are compared with the best one only.
MOST_IN_PAIRS = 4


def encoder_differences(metrics: Sequence[tuple[MetricPlace, Artifact]]) -> list[Figure]:
    """Return encoder - second encoder (column `method`) of each pair, in the order of their names:
    for each seed that both have, and (seed None) for the mean over these seeds."""
    # Figure, k, language model and weight -> encoder -> seed -> values.
    values: dict[tuple[Any, ...], dict[str, dict[int, Rates]]] = {}
    for place, artifact in metrics:
        if place.metric not in _READERS or place.control is not None or place.encoder is None:
            continue
        of, k, rates = _READERS[place.metric](artifact)
        point = (place.metric, of, k, place.llm, place.sae_weight)
        by_seed = values.setdefault(point, {}).setdefault(place.encoder, {})
        by_seed[place.seed or 0] = rates
    figures: list[Figure] = []
    for (stage, of, k, llm, weight), by_encoder in values.items():
        for first, second in combinations(sorted(by_encoder), 2):
            ours, others = by_encoder[first], by_encoder[second]
            paired = {seed: (ours[seed], others[seed]) for seed in ours if seed in others}
            columns = {"encoder": first, "method": second, "llm": llm, "sae_weight": weight}
            figures += paired_figures(paired, METRIC, stage, of=of, k=k, **columns)
    return figures


def pointing_rates(artifact: Artifact) -> Rates:
    """Return for each image with a turn of the pointing game the share of its turns that hit."""
    table = pq.read_table(artifact.file("items.parquet"), columns=["image_id", "hit"])
    turns: dict[str, list[bool]] = {}
    for image, hit in zip(*(column.to_pylist() for column in table.columns), strict=True):
        turns.setdefault(image, []).append(hit)
    return {image: sum(hits) / len(hits) for image, hits in turns.items()}


def rankings_section(measured: Measured) -> Section:
    """Return for each pair of encoders the difference and whether it is a ranking: one whose
    interval excludes 0. Of many encoders only the pairs with the best one are shown."""
    rows: list[list[str]] = []
    n_held, has_many = 0, False
    for (of, k, llm, weight), figures in groups(
        measured.controls.select(METRIC), "of", "k", "llm", "sae_weight"
    ):
        pairs = _from_best(figures)
        if len({name for pair in pairs for name in pair}) > MOST_IN_PAIRS:
            best, has_many = next(iter(pairs))[0], True
            pairs = {pair: of_pair for pair, of_pair in pairs.items() if pair[0] == best}
        for (first, second), of_pair in pairs.items():
            (whole,) = (f for f in of_pair if f.seed is None)
            held = is_ranking(whole)
            n_held += held
            rows.append(
                [
                    *(Name(_SAID[of].format(k=k)), grid.name(llm), grid.weight(weight)),
                    *(grid.name(first), grid.name(second), gain(of_pair)),
                    *("yes" if held else "no", str(len(of_pair) - 1), str(whole.n)),
                ]
            )
    return Section(
        "Encoder rankings",
        "First encoder - second one, same LLM, weight and seed, paired over the images that both "
        "have a value of; in brackets the 95 % interval over images of the mean over seeds, then "
        "each seed's difference. The pointing game counts each image once, by the share of its "
        "turns that hit, where both encoders' latents have a turn. Ranked: the interval excludes "
        "0; otherwise these images do not tell which of the two is better. Intervals are those of "
        "single pairs; seeds and trained projectors vary beside them."
        + (f" More than {MOST_IN_PAIRS} encoders: only pairs with the best." if has_many else ""),
        [
            Grid(
                (
                    *("figure", "LLM", "λ", "first", "second", "difference"),
                    *("ranked", "seeds", "n"),
                ),
                rows,
            )
        ],
        [f"{n_held} of {len(rows)} differences are rankings."] if rows else [],
    )


def is_ranking(difference: Figure) -> bool:
    """Return whether the interval of a difference excludes 0; one without an interval does not."""
    low, high = difference.ci_low, difference.ci_high
    return (low is not None and low > 0) or (high is not None and high < 0)


def _from_best(figures: Sequence[Figure]) -> dict[tuple[str, str], list[Figure]]:
    """Return the figures of each pair, the better encoder first, pairs with the best one first.

    Encoders are ordered by the sum of their differences from all others.
    """
    sums: dict[str, float] = {}
    for f in figures:
        if f.seed is None:
            for name, sign in ((f.encoder, 1), (f.method, -1)):
                sums[str(name)] = sums.get(str(name), 0.0) + sign * (f.value or 0.0)
    order = sorted(sums, key=lambda name: (-sums[name], name))
    pairs: dict[tuple[str, str], list[Figure]] = {pair: [] for pair in combinations(order, 2)}
    for f in figures:
        pair = (str(f.encoder), str(f.method))
        if pair in pairs:
            pairs[pair].append(f)
        else:
            pairs[pair[::-1]].append(_reversed(f))
    # Without a common seed a pair has no figure.
    return {pair: of_pair for pair, of_pair in pairs.items() if of_pair}


def _reversed(f: Figure) -> Figure:
    """Return second - first."""
    value, low, high = (None if x is None else -x for x in (f.value, f.ci_low, f.ci_high))
    return replace(f, encoder=f.method, method=f.encoder, value=value, ci_low=high, ci_high=low)


def _matching(artifact: Artifact) -> tuple[str, int | None, Rates]:
    top_k = int(read_result(artifact)["top_k"])
    return "matching_rate", top_k, image_rates(artifact, top_k)


def _pointing(artifact: Artifact) -> tuple[str, int | None, Rates]:
    return "pointing_game", None, pointing_rates(artifact)


# Stage -> what is read of its items: name and k of the figure, and the values.
_READERS: dict[str, Callable[[Artifact], tuple[str, int | None, Rates]]] = {
    "matching_rate": _matching,
    "localization": _pointing,
}
_SAID = {"matching_rate": "matching rate@{k}", "pointing_game": "pointing game"}
