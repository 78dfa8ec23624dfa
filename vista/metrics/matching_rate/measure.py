"""Matching rate: does one of an image's strongest latents name what the image shows?

Defined by the VISTA paper (arXiv 2605.24946). Added here: the same figure with shuffled images, and
the gain over that level. Labels are judged against the names of the image's annotated objects (in
this module) or, as published, by a judge that is shown the image
(`vista.metrics.matching_rate.images`).

Suffixes: b images, n ranked latents of an image, c object categories, s latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap
from vista.metrics.figure import Figure
from vista.metrics.groups import group_rows
from vista.metrics.object_names import noun_latents, presence
from vista.metrics.ranking import LatentMask, Ranked
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate
from vista.metrics.shuffled import Level, shuffled_level

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
VerdictArray = NDArray[np.int8]
Evidence = Literal["objects", "image"]
# (texts, object names) -> [texts, objects], as vista.judges.Judge.judge.
JudgeFunction = Callable[[Sequence[str | None], Sequence[str]], BoolArray]


@dataclass(frozen=True)
class LayerInput:
    """Ranked latents and labels of one layer.

    Attributes:
        ranked: Strongest eligible latents of each judged image; at least as many as the largest k.
        labels: Label of every latent of this layer's SAE, None where it has none.
        mask: The mask that the ranking used.
    """

    ranked: Ranked
    labels: Sequence[str | None]
    mask: LatentMask


class TopK(ResultPart):
    """Figures over the k strongest distinct latents of each image."""

    k: int = Field(description="Latents of an image that are judged.")
    matching: Estimate = Field(
        description="Share of images in which a label names an object or, for evidence `image`, "
        "something that the judge sees; chance is the shuffled-image level: the labels judged "
        "against all other images' objects, or shown with one other image."
    )
    gain: Estimate = Field(description="Matching rate minus its shuffled-image level, paired.")
    ratio: Estimate = Field(
        description="Matching rate / shuffled-image level, paired; null if that level is 0."
    )
    recall: Estimate | None = Field(
        description="Share of an image's object categories that the labels name, mean over "
        "images; chance as for matching. Null for evidence `image`: it knows no list of objects."
    )
    n_unanswered: int = Field(
        description="Images left out (on an average over layers: images and layers) because the "
        "judge that is shown them left a label open and accepted none. Had they counted as no "
        "match, the rate would be lower."
    )
    n_unanswered_shuffled: int = Field(
        description="The same for the shuffled-image level, which leaves them out too."
    )

    def figures(self, layer: int | None, n_judged: int, group: str | None = None) -> list[Figure]:
        """Return the figures at this k.

        Args:
            layer: The layer that they are measured on; None: averaged over layers.
            n_judged: Images (averaged: images and layers) that were put to the judge.
            group: The group of images that they are measured on; None: all.
        """
        figures = [
            ("matching_rate", self.matching),
            ("matching_gain", self.gain),
            ("matching_ratio", self.ratio),
        ]
        if self.recall is not None:
            figures.append(("object_recall", self.recall))
        elif n_judged:
            # Chance: the share left open where the labels were shown with another image.
            unanswered = Estimate(
                value=self.n_unanswered / n_judged,
                ci_low=None,
                ci_high=None,
                chance=self.n_unanswered_shuffled / n_judged,
                n=n_judged,
            )
            figures.append(("matching_unanswered", unanswered))
        return [
            figure.figure(metric, layer, "image", k=self.k, set=group) for metric, figure in figures
        ]


class LayerMatching(ResultPart):
    """Matching on one layer, with the number of latents that each mask takes out."""

    layer: int = Field(description="Residual stream after this block, counted from 0.")
    n_latents: int = Field(description="Latents in the dictionary.")
    n_too_frequent: int = Field(description="Latents masked: active in too many images.")
    n_too_dense: int = Field(description="Latents masked: active on too much text, or unlabelled.")
    n_eligible: int = Field(description="Latents that pass both masks.")
    n_noun_latents: int = Field(description="Latents whose label is a noun of the data.")
    n_noun_latents_masked: int = Field(description="Those of them that a mask takes out.")
    silent_images: Estimate = Field(
        description="Share of images in which no eligible latent fires; they cannot match."
    )
    top: list[TopK] = Field(description="One entry a k, ascending.")

    def figures(self) -> list[Figure]:
        """Return the figures of this layer."""
        eligible = Estimate(value=self.n_eligible / self.n_latents, n=self.n_latents)
        nouns = self.n_noun_latents
        masked = [Estimate(value=self.n_noun_latents_masked / nouns, n=nouns)] if nouns else []
        return [
            *(row for top in self.top for row in top.figures(self.layer, self.silent_images.n)),
            self.silent_images.figure("silent_images", self.layer, "image"),
            eligible.figure("eligible_latents", self.layer, "image"),
            *(share.figure("masked_noun_latents", self.layer, "image") for share in masked),
        ]


class GroupMatching(ResultPart):
    """Matching rates of one group of the images."""

    n_images: int = Field(description="Images judged.")
    over_layers: list[TopK] = Field(
        description="Figures averaged over the layers. The shuffled level: the group's labels "
        "against its other images' objects; for evidence `image` the other image is any."
    )


class MatchingResult(MetricResult):
    """Matching rates of all layers."""

    judge: str = Field(description="Name of the judge.")
    evidence: Evidence = Field(
        description="What labels were judged against: names of annotated objects, or the image."
    )
    max_image_share: float = Field(description="Frequency mask that was used (published .05).")
    max_label_density: float = Field(description="Density mask that was used (published .005).")
    top_k: int = Field(description="The k of the headline figure (published 3).")
    n_images: int = Field(description="Images judged; for evidence `objects` those with one.")
    n_without_objects: int = Field(
        description="Images left out: nothing in them has a name. 0 for evidence `image`."
    )
    n_categories: int | None = Field(
        description="Object categories in these images; null for evidence `image`."
    )
    layers: list[LayerMatching] = Field(description="One entry a layer, ascending.")
    over_layers: list[TopK] = Field(description="The same figures averaged over the layers.")
    groups: dict[str, GroupMatching] = Field(
        default_factory=dict,
        exclude_if=lambda groups: not groups,
        description="Those of each group of the images, if there are any.",
    )

    def figures(self) -> list[Figure]:
        """Return the figures of each layer, then those averaged over layers (layer None), then
        those of groups of images (column `set`)."""
        n_layers = len(self.layers)
        return [
            *(row for layer in self.layers for row in layer.figures()),
            *(
                row
                for top in self.over_layers
                for row in top.figures(None, self.n_images * n_layers)
            ),
            *(
                row
                for name, part in self.groups.items()
                for top in part.over_layers
                for row in top.figures(None, part.n_images * n_layers, name)
            ),
        ]


@dataclass(frozen=True)
class LayerScores:
    """Verdicts of a judge on the ranked latents of one layer.

    Attributes:
        named_bn: Whether the n-th label names something in the image: YES, NO or UNANSWERED of
            `vista.judges`.
        matching: k -> whether one of the first k labels does, 1 or 0; NaN where unknown.
        recall: k -> share of the image's categories that they name; empty without categories.
    """

    named_bn: VerdictArray
    matching: dict[int, Level]
    recall: dict[int, Level]

    def of(self, rows: NDArray[np.int64]) -> LayerScores:
        """Return the scores of some images, whose levels are drawn already."""
        return LayerScores(
            self.named_bn[rows],
            {k: level.of(rows) for k, level in self.matching.items()},
            {k: level.of(rows) for k, level in self.recall.items()},
        )


@dataclass(frozen=True)
class Scores:
    """Verdicts of a judge by layer, and the evidence that labels were judged against.

    `groups` has the layers' scores of each group of the images, if there are any.
    """

    evidence: Evidence
    n_images: int
    n_categories: int | None
    layers: dict[int, LayerScores]
    groups: dict[str, dict[int, LayerScores]] = field(default_factory=dict)


def label_verdicts(
    ranked: Ranked, labels: Sequence[str | None], names: Sequence[str], judge: JudgeFunction
) -> BoolArray:
    """Return whether each ranked latent's label names each of `names`, [b, n, c].

    A latent that is missing, or whose label is None or blank, names nothing.
    """
    latents, inverse = np.unique(ranked.latent_bn, return_inverse=True)
    texts = [labels[s] if s >= 0 else None for s in latents.tolist()]
    verdict_uc = judge(texts, names)
    labelled_u = np.array([bool(text and text.strip()) for text in texts], dtype=bool)
    result: BoolArray = (verdict_uc & labelled_u[:, None])[inverse.reshape(ranked.latent_bn.shape)]
    return result


def require_fit(
    layers: dict[int, LayerInput], n_images: int, ks: Sequence[int]
) -> list[tuple[int, LayerInput]]:
    """Return the layers in ascending order.

    Raises:
        ValueError: A ranking is of another number of images or of too few latents, or labels are
            of another dictionary.
    """
    for layer, entry in layers.items():
        if len(entry.ranked) != n_images or entry.ranked.latent_bn.shape[1] < max(ks):
            raise ValueError(
                f"layer {layer}: the ranking does not fit {n_images} images and k {max(ks)}"
            )
        if len(entry.labels) != len(entry.mask.eligible_s):
            raise ValueError(f"layer {layer}: labels of another dictionary")
    return sorted(layers.items())


def object_scores(
    layers: dict[int, LayerInput],
    objects: Sequence[Sequence[str]],
    judge: JudgeFunction,
    ks: Sequence[int],
    groups: Sequence[str | None] = (),
) -> Scores:
    """Judge every layer's strongest latents against the objects of each image.

    Args:
        layers: Rankings and labels, by layer.
        objects: Names of the objects of each image, in the order of the rankings; one or more
            an image (repeated names count once).
        judge: Decides which names a label holds.
        ks: Numbers of latents to score.
        groups: Group of each image; none: they have none.

    Raises:
        ValueError: As `require_fit`.
    """
    categories, present_bc = presence(objects)
    scores = {}
    rows_of = group_rows(groups)
    of_groups: dict[str, dict[int, LayerScores]] = {name: {} for name in rows_of}
    for layer, entry in require_fit(layers, len(objects), ks):
        verdict_bnc = label_verdicts(entry.ranked, entry.labels, categories, judge)
        scores[layer] = _layer_scores(verdict_bnc, present_bc, ks)
        for name, rows in rows_of.items():
            of_groups[name][layer] = _layer_scores(verdict_bnc[rows], present_bc[rows], ks)
    return Scores("objects", len(objects), len(categories), scores, of_groups)


def _layer_scores(verdict_bnc: BoolArray, present_bc: BoolArray, ks: Sequence[int]) -> LayerScores:
    named = {k: np.asarray(verdict_bnc[:, :k].any(axis=1), dtype=bool) for k in ks}
    return LayerScores(
        np.asarray((verdict_bnc & present_bc[:, None]).any(axis=2), dtype=np.int8),
        {k: shuffled_level(named_bc, present_bc, "any") for k, named_bc in named.items()},
        {k: shuffled_level(named_bc, present_bc, "share") for k, named_bc in named.items()},
    )


def matching_rate(
    layers: dict[int, LayerInput],
    scores: Scores,
    *,
    judge_name: str,
    top_k: int,
    ks: Sequence[int],
    max_image_share: float,
    max_label_density: float,
    n_without_objects: int,
    nouns: Sequence[str] = (),
    seed: int,
    resamples: int,
    level: float,
) -> MatchingResult:
    """Return the matching rates of the judge's verdicts on every layer's strongest latents.

    Args:
        layers: Rankings and labels, by layer.
        scores: The judge's verdicts on them.
        judge_name: Its name, for the record.
        top_k: The k of the headline figure.
        ks: Values of k to report, all of them in the scores.
        max_image_share: Mask that the rankings used, for the record.
        max_label_density: Mask that the rankings used, for the record.
        n_without_objects: Images that were left out, for the record.
        nouns: Names of the data's objects, to count how many of their latents the masks take out.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.
    """
    n, draws = scores.n_images, (seed, resamples, level)
    parts = []
    for layer, entry in sorted(layers.items()):
        noun_s = noun_latents(entry.labels, nouns)
        silent_b = (entry.ranked.latent_bn[:, 0] < 0).astype(np.float64)
        parts.append(
            LayerMatching(
                layer=layer,
                n_latents=len(entry.labels),
                n_too_frequent=entry.mask.too_frequent,
                n_too_dense=entry.mask.too_dense,
                n_eligible=entry.mask.n_eligible,
                n_noun_latents=int(noun_s.sum()),
                n_noun_latents_masked=int((noun_s & ~entry.mask.eligible_s).sum()),
                silent_images=estimate(rate_interval(silent_b, np.ones(n), level), n),
                top=[_summarise(k, [scores.layers[layer]], draws) for k in ks],
            )
        )
    all_layers = [scores.layers[part.layer] for part in parts]
    return MatchingResult(
        judge=judge_name,
        evidence=scores.evidence,
        max_image_share=max_image_share,
        max_label_density=max_label_density,
        top_k=top_k,
        n_images=n,
        n_without_objects=n_without_objects,
        n_categories=scores.n_categories,
        layers=parts,
        over_layers=[_summarise(k, all_layers, draws) for k in ks if all_layers],
        groups={
            name: GroupMatching(
                n_images=len(next(iter(of_group.values())).named_bn),
                over_layers=[_summarise(k, list(of_group.values()), draws) for k in ks],
            )
            for name, of_group in scores.groups.items()
            if of_group
        },
    )


def _summarise(k: int, layers: Sequence[LayerScores], draws: tuple[int, int, float]) -> TopK:
    matching = [scores.matching[k] for scores in layers]
    recall = [scores.recall[k] for scores in layers if scores.recall]
    # Sum over layers and number of layers with an answer, with the image's own labels (columns 0
    # and 1) and with those of other images (2 and 3).
    pair_b4 = np.concatenate(
        [
            _answered([level.own_b for level in matching]),
            _answered([level.shuffled_b for level in matching]),
        ],
        axis=1,
    )
    figure = _mean(matching, draws[2])
    gain = bootstrap(pair_b4, lambda m: m[:, 0] / m[:, 1] - m[:, 2] / m[:, 3], *draws)
    # The projected level of a resample can dip below 0 where hardly anything matches.
    ratio = bootstrap(
        pair_b4, lambda m: m[:, 0] / m[:, 1] / np.maximum(m[:, 2] / m[:, 3], 0.0), *draws
    )
    return TopK(
        k=k,
        matching=figure,
        gain=estimate(gain, figure.n),
        ratio=estimate(ratio, figure.n),
        recall=_mean(recall, draws[2]) if recall else None,
        n_unanswered=sum(int(np.isnan(level.own_b).sum()) for level in matching),
        n_unanswered_shuffled=sum(int(np.isnan(level.shuffled_b).sum()) for level in matching),
    )


def _mean(levels: Sequence[Level], coverage: float) -> Estimate:
    """Return the mean over images and layers with an answer, with its shuffled level."""
    own_b2 = _answered([level.own_b for level in levels])
    total, known = _answered([level.shuffled_b for level in levels]).sum(axis=0)
    return estimate(
        rate_interval(own_b2[:, 0], own_b2[:, 1], coverage),
        int((own_b2[:, 1] > 0).sum()),
        total / known if known else None,
    )


def _answered(layers: Sequence[FloatArray]) -> FloatArray:
    """Return each image's sum over layers and the number of layers behind it, [b, 2]."""
    values_lb = np.stack(layers)
    return np.stack([np.nansum(values_lb, axis=0), (~np.isnan(values_lb)).sum(axis=0)], axis=1)
