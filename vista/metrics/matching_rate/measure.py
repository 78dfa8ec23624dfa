"""Matching rate: does one of an image's strongest latents name what the image shows?

Defined by the VISTA paper (arXiv 2605.24946). Added here: the same figure with shuffled images, and
the gain over that level. Labels are judged against the names of the image's annotated objects (in
this module) or, as published, by a judge that is shown the image
(`vista.metrics.matching_rate.images`).

Suffixes: b images, n ranked latents of an image, c object categories, s latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.config.metrics import MaskBounds, MaskImages, Without
from vista.metrics.figure import Figure
from vista.metrics.groups import group_rows
from vista.metrics.matching_rate.masks import (
    HiddenLatents,
    MatchingAtBound,
    MatchingWithout,
    matching_curve,
    matching_without,
)
from vista.metrics.matching_rate.scores import Evidence, LayerScores, Scores, TopK, summarise
from vista.metrics.object_names import noun_latents, presence
from vista.metrics.ranking import LatentMask, Ranked
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate
from vista.metrics.shuffled import shuffled_level

BoolArray = NDArray[np.bool_]
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


class LayerMatching(ResultPart):
    """Matching on one layer, with the number of latents that each mask takes out."""

    layer: int = Field(description="Residual stream after this block, counted from 0.")
    n_latents: int = Field(description="Latents in the dictionary.")
    n_too_frequent: int = Field(description="Latents masked: active in too many images.")
    n_too_dense: int = Field(
        description="Latents masked: active on too much text, or on an unknown share of it."
    )
    n_unlabelled: int = Field(description="Latents without a label: they are skipped.")
    n_eligible: int = Field(description="Latents that pass both masks and have a label.")
    n_noun_latents: int = Field(description="Latents whose label is a noun of the data.")
    n_noun_latents_masked: int = Field(description="Those of them that a mask takes out.")
    silent_images: Estimate = Field(
        description="Share of images in which no eligible latent fires; they cannot match."
    )
    top: list[TopK] = Field(description="One entry a k, ascending.")
    hidden: list[HiddenLatents] = Field(description="What the masks hide, one entry a mask.")

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
            *(row for part in self.hidden for row in part.figures(self.layer)),
        ]


class GroupMatching(ResultPart):
    """Matching rates of one group of the images."""

    n_images: int = Field(description="Images judged.")
    over_layers: list[TopK] = Field(
        description="Figures averaged over the layers. The shuffled level: the group's labels "
        "against its other images' objects; for evidence `image` the other image is any."
    )
    without: dict[Without, list[TopK]] = Field(
        default_factory=dict,
        exclude_if=lambda without: not without,
        description="The same without masks, by the masks that are left out.",
    )

    def figures(self, name: str, n_layers: int) -> list[Figure]:
        """Return the figures of the group `name`, averaged over so many layers."""
        parts: list[tuple[Without | None, list[TopK]]] = [
            (None, self.over_layers),
            *self.without.items(),
        ]
        return [
            row
            for of, tops in parts
            for top in tops
            for row in top.figures(None, self.n_images * n_layers, name, of)
        ]


class MatchingResult(MetricResult):
    """Matching rates of all layers."""

    judge: str = Field(description="Name of the judge.")
    evidence: Evidence = Field(
        description="What labels were judged against: names of annotated objects, or the image."
    )
    max_image_share: float = Field(description="Frequency mask that was used (published .05).")
    max_label_density: float = Field(description="Density mask that was used (published .005).")
    mask_images: MaskImages = Field(
        description="Images that the frequency mask's shares were estimated on: the validation "
        "split, or the measured images themselves (as published, or for want of others)."
    )
    n_mask_images: int = Field(description="Number of those images.")
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
    without: list[MatchingWithout] = Field(description="The same figures without masks.")
    curve: list[MatchingAtBound] = Field(
        description="The headline figure by the bound of the frequency mask, ascending."
    )
    groups: dict[str, GroupMatching] = Field(
        default_factory=dict,
        exclude_if=lambda groups: not groups,
        description="Those of each group of the images, if there are any.",
    )

    def figures(self) -> list[Figure]:
        """Return the figures of each layer, then those averaged over layers (layer None), then
        those without masks (column `of`) and by the bound of one (`of`, too), then those of groups
        of images (column `set`)."""
        n_layers = len(self.layers)
        return [
            *(row for layer in self.layers for row in layer.figures()),
            *(
                row
                for top in self.over_layers
                for row in top.figures(None, self.n_images * n_layers)
            ),
            *(row for part in self.without for row in part.figures(self.n_images)),
            *(row for part in self.curve for row in part.figures()),
            *(row for name, part in self.groups.items() for row in part.figures(name, n_layers)),
        ]


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
        if len(entry.labels) != len(entry.mask.dense_s):
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
    bounds: MaskBounds,
    mask_images: MaskImages,
    n_mask_images: int,
    n_without_objects: int,
    nouns: Sequence[str] = (),
    hidden: Mapping[int, Sequence[HiddenLatents]] | None = None,
    without: Mapping[Without, Scores] | None = None,
    curve: Mapping[float, Scores] | None = None,
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
        bounds: Bounds of the masks that the rankings used, for the record.
        mask_images: Images that the frequency mask was estimated on, for the record.
        n_mask_images: Their number, for the record.
        n_without_objects: Images that were left out, for the record.
        nouns: Names of the data's objects, to count how many of their latents the masks take out.
        hidden: What the masks hide, by layer.
        without: Verdicts on rankings without masks, of the same images and layers.
        curve: The same under other bounds of the frequency mask.
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
                n_too_frequent=int(entry.mask.frequent_s.sum()),
                n_too_dense=int(entry.mask.dense_s.sum()),
                n_unlabelled=int(entry.mask.unlabelled_s.sum()),
                n_eligible=int(entry.mask.eligible_s.sum()),
                n_noun_latents=int(noun_s.sum()),
                n_noun_latents_masked=int((noun_s & entry.mask.masked_s).sum()),
                silent_images=estimate(rate_interval(silent_b, np.ones(n), level), n),
                top=[summarise(k, [scores.layers[layer]], draws) for k in ks],
                hidden=list((hidden or {}).get(layer, ())),
            )
        )
    all_layers = [scores.layers[part.layer] for part in parts]
    return MatchingResult(
        judge=judge_name,
        evidence=scores.evidence,
        max_image_share=bounds.image_share,
        max_label_density=bounds.label_density,
        mask_images=mask_images,
        n_mask_images=n_mask_images,
        top_k=top_k,
        n_images=n,
        n_without_objects=n_without_objects,
        n_categories=scores.n_categories,
        layers=parts,
        over_layers=[summarise(k, all_layers, draws) for k in ks if all_layers],
        without=matching_without(scores, without or {}, ks, draws),
        curve=matching_curve(curve or {}, top_k, draws),
        groups={
            name: GroupMatching(
                n_images=len(next(iter(of_group.values())).named_bn),
                over_layers=[summarise(k, list(of_group.values()), draws) for k in ks],
                without={
                    of: [summarise(k, list(free.groups[name].values()), draws) for k in ks]
                    for of, free in (without or {}).items()
                },
            )
            for name, of_group in scores.groups.items()
            if of_group
        },
    )
