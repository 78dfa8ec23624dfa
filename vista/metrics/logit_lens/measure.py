"""The logit lens: which words the model's own head reads at visual tokens (arXiv 2403.07720).

A readout without an SAE, measured in the same way as that of the latents. Patches: do the k
likeliest words of a patch that an object covers name the object? Images: does one of the k
strongest words of an image name something in it, ranked and judged as `vista.metrics.matching_rate`
does with latents? A word's strength is its probability. (That paper maps visual tokens to
distributions over the vocabulary; the figures are defined here.)

Suffixes: b images, p patches of an image, k likeliest words, c object categories, w words,
n patches that an object covers, u distinct words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.config.metrics import MaskBounds
from vista.metrics.bootstrap import bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.matching_rate.measure import (
    JudgeFunction,
    LayerInput,
    MatchingResult,
    matching_rate,
    object_scores,
)
from vista.metrics.ranking import LatentMask, mask_latents, rank_latents
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

# Names of the figures of images, by those of the matching rate of latents.
_OF_WORDS = {
    "matching_rate": "lens_matching_rate",
    "matching_gain": "lens_matching_gain",
    "matching_ratio": "lens_matching_ratio",
    "matching_mask_difference": "lens_mask_difference",
    "object_recall": "lens_object_recall",
    "silent_images": "lens_silent_images",
    "eligible_latents": "lens_eligible_words",
}


@dataclass(frozen=True)
class LayerWords:
    """The likeliest words of every patch after one block, likeliest first.

    Attributes:
        word_bpk: Number of the word.
        probability_bpk: Its probability.
    """

    word_bpk: NDArray[np.int32]
    probability_bpk: NDArray[np.float32]


class LayerPatches(ResultPart):
    """Share of the objects' patches that their likeliest words name, after one block."""

    layer: int = Field(description="Residual stream after this block, counted from 0.")
    named: dict[int, Estimate] = Field(
        description="k -> share of the patches covered by an object whose k likeliest words name "
        "it. Chance: the same words judged against the patches of all other images. n: patches."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of this layer."""
        return [
            figure.figure("lens_patches_named", self.layer, "image", k=k)
            for k, figure in self.named.items()
        ]


class LogitLensResult(MetricResult):
    """Words that the logit lens reads at patches and in images, by layer."""

    n_words: int = Field(description="Words of the vocabulary; spellings by case count as one.")
    n_categories: int = Field(description="Object categories in the images.")
    n_one_token: int = Field(
        description="Those whose name is one token: of the others no single word can be read."
    )
    max_image_share: float = Field(
        description="Words that are the likeliest of a patch in more of the images are left out of "
        "the figures of images."
    )
    patches: list[LayerPatches] = Field(description="One entry a layer, ascending.")
    images: MatchingResult = Field(
        description="Figures of images: the matching rate, with words in the place of latents."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of patches, then those of images; those without the mask have
        `unmasked` in the column `of`."""
        of_images = [
            replace(figure, metric=_OF_WORDS[figure.metric]) for figure in self.images.figures()
        ]
        return [*(figure for part in self.patches for figure in part.figures()), *of_images]


def logit_lens_figures(
    layers: dict[int, LayerWords],
    words: Sequence[str],
    patches: Sequence[Sequence[str | None]],
    objects: Sequence[Sequence[str]],
    judge: JudgeFunction,
    *,
    judge_name: str,
    n_one_token: int,
    ks: Sequence[int],
    max_image_share: float,
    seed: int,
    resamples: int,
    level: float,
) -> LogitLensResult:
    """Judge every layer's words against the objects.

    Args:
        layers: The likeliest words of each image's patches, by layer; as many as the largest k.
        words: Every word of the vocabulary.
        patches: Category of the object that covers each patch, None where none does, by image.
        objects: Names of the objects of each image; none where nothing in it has a name.
        judge: Decides which names a word holds.
        judge_name: Its name, for the record.
        n_one_token: Categories whose name is one token, for the record.
        ks: Numbers of words to report, ascending.
        max_image_share: Words that are the likeliest of a patch in a larger share of the images
            are left out of the figures of images.
        seed: Seed of the bootstrap over images.
        resamples: Number of resamples.
        level: Coverage of the intervals.

    Raises:
        ValueError: No image has an object, or a layer has fewer words a patch than the largest k.
    """
    categories = sorted({name for image in objects for name in image})
    judged = np.flatnonzero([bool(image) for image in objects])
    if not len(judged):
        raise ValueError("no image has an object that a word could name")
    draws = (seed, resamples, level)
    bounds = MaskBounds(max_image_share, 1.0)
    parts = []
    masked: dict[int, LayerInput] = {}
    unmasked: dict[int, LayerInput] = {}
    for layer, entry in sorted(layers.items()):
        if entry.word_bpk.shape[2] < max(ks):
            raise ValueError(f"layer {layer} has {entry.word_bpk.shape[2]} words a patch")
        named = _patches_named(entry.word_bpk, words, patches, categories, judge, ks, draws)
        parts.append(LayerPatches(layer=layer, named=named))
        word_bpk, probability_bpk = entry.word_bpk[judged], entry.probability_bpk[judged]
        used_bp = np.full(word_bpk.shape[:2], word_bpk.shape[2])
        for layers_of, share in ((masked, max_image_share), (unmasked, 1.0)):
            mask = _mask(entry.word_bpk[..., 0], len(words), share)
            ranked = rank_latents(word_bpk, probability_bpk, used_bp, mask.eligible_s, max(ks))
            layers_of[layer] = LayerInput(ranked, words, mask)
    objects_b = [objects[b] for b in judged.tolist()]
    scores, free = (object_scores(inputs, objects_b, judge, ks) for inputs in (masked, unmasked))
    return LogitLensResult(
        n_words=len(words),
        n_categories=len(categories),
        n_one_token=n_one_token,
        max_image_share=max_image_share,
        patches=parts,
        images=matching_rate(
            masked,
            scores,
            judge_name=judge_name,
            top_k=max(ks),
            ks=ks,
            bounds=bounds,
            mask_images="evaluated",
            n_mask_images=len(objects),
            n_without_objects=len(objects) - len(judged),
            without={"unmasked": free},
            seed=seed,
            resamples=resamples,
            level=level,
        ),
    )


def _mask(first_bp: NDArray[np.int32], n_words: int, max_image_share: float) -> LatentMask:
    """Mask the words that are the likeliest of a patch in too many images."""
    image_bp = np.broadcast_to(np.arange(len(first_bp))[:, None], first_bp.shape)
    pairs = np.unique(np.stack([image_bp.reshape(-1), first_bp.reshape(-1)]), axis=1)
    share_w = np.bincount(pairs[1], minlength=n_words) / max(len(first_bp), 1)
    return mask_latents(share_w, np.zeros(n_words), max_image_share, 1.0)


def _patches_named(
    word_bpk: NDArray[np.int32],
    words: Sequence[str],
    patches: Sequence[Sequence[str | None]],
    categories: Sequence[str],
    judge: JudgeFunction,
    ks: Sequence[int],
    draws: tuple[int, int, float],
) -> dict[int, Estimate]:
    """Return k -> share of the covered patches whose k likeliest words name the object there."""
    column = {name: c for c, name in enumerate(categories)}
    covered = [(b, p, column[n]) for b, row in enumerate(patches) for p, n in enumerate(row) if n]
    image_n, patch_n, class_n = np.array(covered, dtype=np.int64).reshape(-1, 3).T
    word_nk = word_bpk[image_n, patch_n]
    distinct, inverse = np.unique(word_nk, return_inverse=True)
    verdict_uc = judge([words[w] for w in distinct], categories)
    verdict_nkc = verdict_uc[inverse.reshape(word_nk.shape)]
    n, n_images = len(covered), len(patches)
    count_bc = np.zeros((n_images, len(categories)))
    np.add.at(count_bc, (image_n, class_n), 1)
    count_b = count_bc.sum(axis=1)
    other_nc = (count_bc.sum(axis=0) - count_bc)[image_n]
    shown = count_b > 0
    shares = {}
    for k in ks:
        named_nc = np.asarray(verdict_nkc[:, :k].any(axis=1))
        correct_n = named_nc[np.arange(n), class_n].astype(np.float64)
        correct_b = np.bincount(image_n, correct_n, minlength=n_images)
        # Mean over all patches of other images, so without a draw.
        others_n = n - count_b[image_n]
        chance_n = (named_nc * other_nc).sum(axis=1) / np.maximum(others_n, 1)
        chance = float(chance_n.mean()) if n and (others_n > 0).all() else None
        interval = bootstrap_ratio(correct_b[shown], count_b[shown], *draws)
        shares[k] = estimate(interval, n, chance)
    return shares
