"""How alike two dictionaries are, by the directions that their latents write.

Rows of both decoders are matched one to one so that the sum of cosines is largest (Hungarian
method, as Paulo and Belrose, arXiv 2501.16615); of dictionaries of different sizes, all rows of the
smaller one are matched. Beside it MMCS, the mean over the same rows of the largest cosine to any
row of the other dictionary (Sharkey, Braun and Millidge, Taking features out of superposition with
sparse autoencoders, 2022).

A latent writes in one direction only, so that opposite rows have cosine -1 and do not match.

Chance: random unit rows, as many as the two dictionaries have. SAEs of one model agree on where its
activations vary, whatever their latents are; `random_matched` has random rows with the second
moments of the two dictionaries, and is the level of that alone.

Shape legend: a row of the first dictionary, b row of the second, m matched pair, s latent, d width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Dictionary:
    """The latents of an SAE that are compared.

    Attributes:
        name: Name in the config.
        architecture: Name of its architecture.
        d_sae: Latents of the SAE, those that never fire included.
        row_sd: Decoder rows of those that fire, of any norm.
        label_s: Their labels; None where a latent has none.
        recipe: How the SAE was trained, by setting; empty where that is not known.
    """

    name: str
    architecture: str
    d_sae: int
    row_sd: FloatArray
    label_s: Sequence[str | None]
    recipe: Mapping[str, Any] = field(default_factory=dict)


class DictionarySize(ResultPart):
    """A dictionary that was compared."""

    name: str = Field(description="Name in the config.")
    architecture: str = Field(description="Architecture in the config, else that of its file.")
    d_sae: int = Field(description="Latents of the SAE.")
    compared: int = Field(description="Latents that fire on what they are labelled from.")


class PairStability(ResultPart):
    """Agreement of two dictionaries; n counts matched latents, those of the smaller dictionary."""

    first: str = Field(description="Name of the first dictionary.")
    second: str = Field(description="Name of the second dictionary.")
    differ: list[str] = Field(
        description="Settings of their training that differ, sorted; empty where one was not "
        "trained here."
    )
    cosine: Estimate = Field(description="Mean cosine of matched rows.")
    found: Estimate = Field(description="Share of matched rows with at least min_cosine.")
    mmcs: Estimate = Field(
        description="Mean largest cosine of a row of the smaller dictionary (of equal ones the "
        "first) to any row of the other."
    )
    random_matched: dict[str, float] = Field(
        description="cosine, found and mmcs of random rows with the second moments of the two."
    )
    label_agreement: Estimate = Field(
        description="Share of the matched pairs whose latents both have a label that have the "
        "same one; chance: labels permuted, exact. n pairs."
    )


class SaeStabilityResult(MetricResult):
    """The dictionaries of one model, compared in pairs."""

    of_text: bool = Field(description="Whether they are SAEs of a language model.")
    layer: int | None = Field(description="Block whose output they read; None: several.")
    min_cosine: float = Field(description="Cosine from which on a latent is found again.")
    dictionaries: list[DictionarySize] = Field(description="In the order of the config.")
    pairs: list[PairStability] = Field(description="All pairs, in the order of the config.")

    def figures(self) -> list[Figure]:
        """Return six rows a pair: the first dictionary stands in the column `llm` or `method`, the
        second one in `of`."""
        return [
            replace(
                part.figure(metric, self.layer, of=pair.second),
                llm=pair.first if self.of_text else None,
                method=None if self.of_text else pair.first,
            )
            for pair in self.pairs
            for metric, part in (
                ("dictionary_cosine", pair.cosine),
                ("dictionary_found", pair.found),
                ("dictionary_mmcs", pair.mmcs),
                ("dictionary_cosine_random_matched", _level(pair, "cosine")),
                ("dictionary_found_random_matched", _level(pair, "found")),
                ("dictionary_label_agreement", pair.label_agreement),
            )
        ]


def _level(pair: PairStability, name: str) -> Estimate:
    return Estimate(value=pair.random_matched[name], n=pair.cosine.n)


@dataclass(frozen=True)
class Matching:
    """Rows matched one to one, in the order of the smaller dictionary's rows.

    Attributes:
        first_m: Number of the row in the first dictionary.
        second_m: Number of the row in the second.
        cosine_m: Their cosine.
        largest_m: Largest cosine of the smaller dictionary's row to any row of the other.
    """

    first_m: NDArray[np.int64]
    second_m: NDArray[np.int64]
    cosine_m: FloatArray
    largest_m: FloatArray

    def means(self, min_cosine: float) -> dict[str, float]:
        """Return the mean cosine, the share that is found and MMCS."""
        return {
            "cosine": float(self.cosine_m.mean()),
            "found": float((self.cosine_m >= min_cosine).mean()),
            "mmcs": float(self.largest_m.mean()),
        }


def match_rows(first_ad: FloatArray, second_bd: FloatArray) -> Matching:
    """Match the rows of two dictionaries so that the sum of their cosines is largest.

    Raises:
        ValueError: Widths differ, or a dictionary has no row.
    """
    if first_ad.shape[1] != second_bd.shape[1] or not (len(first_ad) and len(second_bd)):
        raise ValueError(f"dictionaries [a, d] and [b, d]: {first_ad.shape}, {second_bd.shape}")
    if len(first_ad) > len(second_bd):
        turned = match_rows(second_bd, first_ad)
        return replace(turned, first_m=turned.second_m, second_m=turned.first_m)
    from scipy.optimize import linear_sum_assignment

    cosine_ab = unit_rows(first_ad) @ unit_rows(second_bd).T
    first_m, second_m = linear_sum_assignment(cosine_ab, maximize=True)
    return Matching(first_m, second_m, cosine_ab[first_m, second_m], cosine_ab.max(axis=1))


def unit_rows(row_sd: FloatArray) -> FloatArray:
    """Return rows of norm 1; a row of zeros stays."""
    norm_s1 = np.linalg.norm(row_sd, axis=1, keepdims=True)
    return np.asarray(row_sd / np.maximum(norm_s1, 1e-12))


def random_rows(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Return random rows [s, d] whose direction is uniform."""
    return rng.standard_normal(shape)


def random_like(row_sd: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return as many random rows, normal with mean 0 and the second moment of the unit rows."""
    unit_sd = unit_rows(row_sd)
    variance_d, axis_dd = np.linalg.eigh(unit_sd.T @ unit_sd / len(unit_sd))
    scale_d = np.sqrt(np.maximum(variance_d, 0))
    return np.asarray((random_rows(row_sd.shape, rng) * scale_d) @ axis_dd.T)


def compare_pair(
    first: Dictionary,
    second: Dictionary,
    *,
    min_cosine: float,
    seed: int,
    bootstrap: Mapping[str, Any],
) -> PairStability:
    """Compare two dictionaries; arguments as of `sae_stability`."""
    rows = first.row_sd, second.row_sd
    rng = np.random.default_rng(seed)
    matched = match_rows(*rows)
    chance = match_rows(*(random_rows(r.shape, rng) for r in rows)).means(min_cosine)
    like = match_rows(*(random_like(r, rng) for r in rows)).means(min_cosine)
    n, level = len(matched.cosine_m), bootstrap["level"]
    draws = (bootstrap["seed"], bootstrap["resamples"], level)
    found_m = matched.cosine_m >= min_cosine
    labels = [
        (first.label_s[i], second.label_s[j])
        for i, j in zip(matched.first_m.tolist(), matched.second_m.tolist(), strict=True)
        if first.label_s[i] is not None and second.label_s[j] is not None
    ]
    equal_m = np.array([a == b for a, b in labels], dtype=bool)
    return PairStability(
        first=first.name,
        second=second.name,
        differ=_differ(first.recipe, second.recipe),
        cosine=estimate(bootstrap_mean(matched.cosine_m, *draws), n, chance["cosine"]),
        found=estimate(rate_interval(found_m, np.ones(n), level), n, chance["found"]),
        mmcs=estimate(bootstrap_mean(matched.largest_m, *draws), n, chance["mmcs"]),
        random_matched=like,
        label_agreement=estimate(
            rate_interval(equal_m, np.ones(len(labels)), level), len(labels), _by_chance(labels)
        ),
    )


def _differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    if not (first and second):
        return []
    return sorted(key for key in {*first, *second} if first.get(key) != second.get(key))


def _by_chance(labels: Sequence[tuple[Any, Any]]) -> float | None:
    """Return the share of equal labels, expected over all ways to pair them."""
    if not labels:
        return None
    first, second = (Counter(side) for side in zip(*labels, strict=True))
    return sum(n * second[label] for label, n in first.items()) / len(labels) ** 2


def sae_stability(
    dictionaries: Sequence[Dictionary],
    *,
    of_text: bool,
    layer: int | None,
    min_cosine: float,
    seed: int,
    bootstrap: Mapping[str, Any],
) -> SaeStabilityResult:
    """Compare all pairs of dictionaries of one width.

    Args:
        dictionaries: Two or more, each with a latent that fires.
        of_text: Whether they are SAEs of a language model.
        layer: Block whose output they read.
        min_cosine: Cosine from which on a latent is found again.
        seed: Seed of the random dictionaries, the same for each pair.
        bootstrap: seed, resamples and level of the intervals over matched latents.

    Raises:
        ValueError: Widths differ, or a dictionary has no latent.
    """
    sizes = [
        DictionarySize(
            name=one.name, architecture=one.architecture, d_sae=one.d_sae, compared=len(one.row_sd)
        )
        for one in dictionaries
    ]
    pairs = [
        compare_pair(first, second, min_cosine=min_cosine, seed=seed, bootstrap=bootstrap)
        for first, second in combinations(dictionaries, 2)
    ]
    return SaeStabilityResult(
        of_text=of_text, layer=layer, min_cosine=min_cosine, dictionaries=sizes, pairs=pairs
    )
