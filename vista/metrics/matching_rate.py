"""Matching rate: does one of an image's strongest latents name an object in the image?

The rule of the VISTA paper (arXiv 2605.24946), with what it lacks: the level of the same figure
when the images are shuffled, and the gain over that.

Suffixes: b images, n ranked latents of an image, c object categories, s latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vista.metrics.bootstrap import bootstrap, bootstrap_mean
from vista.metrics.ranking import LatentMask, Ranked
from vista.metrics.result import Estimate, MetricResult, estimate
from vista.metrics.rows import Row
from vista.metrics.shuffled import Level, shuffled_level

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
# (texts, object names) -> [texts, objects], as vista.judges.Judge.judge.
JudgeFunction = Callable[[Sequence[str | None], Sequence[str]], BoolArray]


@dataclass(frozen=True)
class LayerInput:
    """What one layer brings to the metric.

    Attributes:
        ranked: Strongest eligible latents of each image that has an object; as many as the
            largest k asked for.
        labels: Label of every latent of this layer's SAE, None where it has none.
        mask: The mask that the ranking used.
    """

    ranked: Ranked
    labels: Sequence[str | None]
    mask: LatentMask


class TopK(BaseModel):
    """Figures over the k strongest distinct latents of each image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(description="Latents of an image that are judged.")
    matching: Estimate = Field(
        description="Share of images in which a label names an object; chance is the "
        "shuffled-image level: the labels judged against all other images' objects."
    )
    gain: Estimate = Field(description="Matching rate minus its shuffled-image level, paired.")
    ratio: Estimate = Field(
        description="Matching rate / shuffled-image level, paired; null if that level is 0."
    )
    recall: Estimate = Field(
        description="Share of an image's object categories that the labels name, mean over "
        "images; chance as for matching."
    )

    def rows(self, layer: int | None) -> list[Row]:
        """Return the rows for one k, on a layer or (None) averaged over layers."""
        return [
            figure.row(f"{name}@{self.k}", layer, "image")
            for name, figure in (
                ("matching_rate", self.matching),
                ("matching_gain", self.gain),
                ("matching_ratio", self.ratio),
                ("object_recall", self.recall),
            )
        ]


class LayerMatching(BaseModel):
    """Matching on one layer, with the numbers of the masks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: int = Field(description="Residual stream after this block, counted from 0.")
    n_latents: int = Field(description="Latents in the dictionary.")
    n_too_frequent: int = Field(description="Latents masked: active in too many images.")
    n_too_dense: int = Field(description="Latents masked: active on too much text, or unlabelled.")
    n_eligible: int = Field(description="Latents that pass both masks.")
    silent_images: Estimate = Field(
        description="Share of images in which no eligible latent fires; they cannot match."
    )
    top: list[TopK] = Field(description="One entry a k, ascending.")

    def rows(self) -> list[Row]:
        """Return the rows of this layer."""
        eligible = Estimate(
            value=self.n_eligible / self.n_latents, ci_low=None, ci_high=None, n=self.n_latents
        )
        return [
            *(row for top in self.top for row in top.rows(self.layer)),
            self.silent_images.row("silent_images", self.layer, "image"),
            eligible.row("eligible_latents", self.layer, "image"),
        ]


class MatchingResult(MetricResult):
    """Matching rates of all layers."""

    judge: str = Field(description="Name of the judge.")
    max_image_share: float = Field(description="Frequency mask that was used (published .05).")
    max_label_density: float = Field(description="Density mask that was used (published .005).")
    top_k: int = Field(description="The k of the headline figure (published 3).")
    n_images: int = Field(description="Images judged: those with at least one object.")
    n_without_objects: int = Field(description="Images left out: nothing in them has a name.")
    n_categories: int = Field(description="Object categories in these images.")
    layers: list[LayerMatching] = Field(description="One entry a layer, ascending.")
    over_layers: list[TopK] = Field(description="The same figures averaged over the layers.")

    def rows(self) -> list[Row]:
        """Return rows per layer, then those averaged over layers (layer null)."""
        return [
            *(row for layer in self.layers for row in layer.rows()),
            *(row for top in self.over_layers for row in top.rows(None)),
        ]


@dataclass(frozen=True)
class MatchingItems:
    """Per-image values behind the result, by layer: [b] and [b, n] arrays.

    Attributes:
        matched: Layer -> k -> 1 or 0 for each image.
        named_bn: Layer -> whether the n-th label names an object of the image.
    """

    matched: dict[int, dict[int, FloatArray]]
    named_bn: dict[int, BoolArray]


def presence(objects: Sequence[Sequence[str]]) -> tuple[list[str], BoolArray]:
    """Return all categories, sorted, and which of them each image has, [b, c]."""
    categories = sorted({name for image in objects for name in image})
    column = {name: c for c, name in enumerate(categories)}
    present_bc = np.zeros((len(objects), len(categories)), dtype=bool)
    for b, image in enumerate(objects):
        present_bc[b, [column[name] for name in image]] = True
    return categories, present_bc


def labels_say(
    ranked: Ranked, labels: Sequence[str | None], names: Sequence[str], judge: JudgeFunction
) -> BoolArray:
    """Judge each ranked latent's label against each name, [b, n, c].

    A latent that is missing, or whose label is None or blank, says nothing.
    """
    latents, inverse = np.unique(ranked.latent_bn, return_inverse=True)
    texts = [labels[s] if s >= 0 else None for s in latents.tolist()]
    says_uc = judge(texts, names)
    spoken_u = np.array([bool(text and text.strip()) for text in texts], dtype=bool)
    result: BoolArray = (says_uc & spoken_u[:, None])[inverse.reshape(ranked.latent_bn.shape)]
    return result


def matching_rate(
    layers: dict[int, LayerInput],
    objects: Sequence[Sequence[str]],
    judge: JudgeFunction,
    *,
    judge_name: str,
    top_k: int,
    ks: Sequence[int],
    max_image_share: float,
    max_label_density: float,
    n_without_objects: int,
    seed: int,
    resamples: int,
    level: float,
) -> tuple[MatchingResult, MatchingItems]:
    """Judge every layer's strongest latents against the objects of each image.

    Args:
        layers: Rankings and labels, by layer.
        objects: Names of the objects of each image, in the order of the rankings; one or more
            an image (repeated names count once).
        judge: Says which names a label holds.
        judge_name: Its name, for the record.
        top_k: The k of the headline figure.
        ks: Every k to report.
        max_image_share: Mask that the rankings used, for the record.
        max_label_density: Mask that the rankings used, for the record.
        n_without_objects: Images that were left out, for the record.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.

    Raises:
        ValueError: A ranking has another number of images than `objects`, or too few latents.
    """
    categories, present_bc = presence(objects)
    n = len(objects)
    parts: list[LayerMatching] = []
    levels: dict[int, list[tuple[Level, Level]]] = {k: [] for k in ks}
    items = MatchingItems({}, {})
    draws = (seed, resamples, level)
    for layer, given in sorted(layers.items()):
        if len(given.ranked) != n or given.ranked.latent_bn.shape[1] < max(ks):
            raise ValueError(f"layer {layer}: the ranking does not fit {n} images and k {max(ks)}")
        if len(given.labels) != len(given.mask.eligible_s):
            raise ValueError(f"layer {layer}: labels of another dictionary")
        says_bnc = labels_say(given.ranked, given.labels, categories, judge)
        top: list[TopK] = []
        items.matched[layer] = {}
        named_bnc = says_bnc & present_bc[:, None]
        items.named_bn[layer] = np.asarray(named_bnc.any(axis=2), dtype=bool)
        for k in ks:
            named_bc = np.asarray(says_bnc[:, :k].any(axis=1), dtype=bool)
            match = shuffled_level(named_bc, present_bc, "any")
            recall = shuffled_level(named_bc, present_bc, "share")
            levels[k].append((match, recall))
            items.matched[layer][k] = match.own_b
            top.append(_summarise(k, match, recall, draws))
        silent_b = (given.ranked.latent_bn[:, 0] < 0).astype(np.float64)
        parts.append(
            LayerMatching(
                layer=layer,
                n_latents=len(given.labels),
                n_too_frequent=given.mask.too_frequent,
                n_too_dense=given.mask.too_dense,
                n_eligible=given.mask.n_eligible,
                silent_images=estimate(bootstrap_mean(silent_b, *draws), n),
                top=top,
            )
        )
    over_layers = [
        _summarise(
            k, _average([m for m, _ in levels[k]]), _average([r for _, r in levels[k]]), draws
        )
        for k in ks
        if levels[k]
    ]
    result = MatchingResult(
        judge=judge_name,
        max_image_share=max_image_share,
        max_label_density=max_label_density,
        top_k=top_k,
        n_images=n,
        n_without_objects=n_without_objects,
        n_categories=len(categories),
        layers=parts,
        over_layers=over_layers,
    )
    return result, items


def _summarise(k: int, match: Level, recall: Level, draws: tuple[int, int, float]) -> TopK:
    n = len(match.own_b)
    unknown = (float("nan"), float("nan"), float("nan"))
    gain = ratio = unknown
    if n > 1:
        pair_b2 = np.stack([match.own_b, match.shuffled_b], axis=1)
        gain = bootstrap(pair_b2, lambda m: m[:, 0] - m[:, 1], *draws)
        # The projected level of a resample can dip below 0 where hardly anything matches.
        ratio = bootstrap(pair_b2, lambda m: m[:, 0] / np.maximum(m[:, 1], 0.0), *draws)
    return TopK(
        k=k,
        matching=estimate(bootstrap_mean(match.own_b, *draws), n, match.shuffled),
        gain=estimate(gain, n),
        ratio=estimate(ratio, n),
        recall=estimate(bootstrap_mean(recall.own_b, *draws), n, recall.shuffled),
    )


def _average(levels: list[Level]) -> Level:
    return Level(
        np.mean([level.own_b for level in levels], axis=0),
        np.mean([level.shuffled_b for level in levels], axis=0),
    )
