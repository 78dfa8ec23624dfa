"""Readouts of visual tokens as words, all scored alike: by the same judge on the same images.

A readout gives each patch its strongest words: those that the model's head finds likeliest, the
words of the nearest embeddings, the labels of the latents that fire most. Patches: do the k
strongest words of a patch that an object covers name the object? Images: does one of the k
strongest words of an image name something in it, ranked and judged as `vista.metrics.matching_rate`
does with latents, with the frequency mask and without it? The figures are defined here.

Suffixes: b images, p patches of an image, k strongest words, c object categories, w words,
n patches that an object covers, u distinct words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.config.metrics import MaskBounds
from vista.metrics.figure import Figure
from vista.metrics.matching_rate.measure import (
    JudgeFunction,
    LayerInput,
    MatchingResult,
    matching_rate,
    object_scores,
)
from vista.metrics.ranking import LatentMask, Ranked, mask_latents, rank_latents
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

# Names of the figures of images, by those of the matching rate of latents.
_OF_WORDS = {
    "matching_rate": "lens_matching_rate",
    "matching_gain": "lens_matching_gain",
    "matching_ratio": "lens_matching_ratio",
    "object_recall": "lens_object_recall",
    "silent_images": "lens_silent_images",
    "eligible_latents": "lens_eligible_words",
}
# Column `of` of figures for which words were ranked without the frequency mask, as of the matching
# rate of latents. The readout stands in the column `method`.
UNMASKED = "unmasked"


@dataclass(frozen=True)
class LayerWords:
    """The strongest words of every patch after one block, strongest first.

    Attributes:
        word_bpk: Number of the word.
        strength_bpk: How strongly it is read, above 0: a probability, or (1 + cosine) / 2.
        vector_bp: Number of the vector that is nearest, where words are those of stored vectors.
    """

    word_bpk: NDArray[np.int32]
    strength_bpk: NDArray[np.float32]
    vector_bp: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ReadLayer:
    """What one layer is scored by.

    Attributes:
        words: The words by their numbers; for latents their labels, None where one has none.
        word_bpk: The strongest words of each patch, -1 where there are fewer.
        masked: The strongest words of each image, those left out that are frequent.
        unmasked: The same with all words.
    """

    words: Sequence[str | None]
    word_bpk: NDArray[np.int32]
    masked: tuple[Ranked, LatentMask]
    unmasked: tuple[Ranked, LatentMask]


class LayerPatches(ResultPart):
    """Share of the objects' patches that their strongest words name, after one block."""

    layer: int = Field(
        description="Residual stream after this block, counted from 0; -1: that enters block 0."
    )
    named: dict[int, Estimate] = Field(
        description="k -> share of the patches covered by an object whose k strongest words name "
        "it. Chance: the same words judged against the patches of all other images. n: patches."
    )


class WordReadoutResult(MetricResult):
    """Words that a readout gives patches and images, by layer."""

    readout: str = Field(description="Name of the readout.")
    n_words: int = Field(description="Words of the vocabulary; spellings by case count as one.")
    n_categories: int = Field(description="Object categories in the images.")
    n_one_token: int | None = Field(
        description="Those whose name is one token: of the others no single word can be read. "
        "Null where words are labels of latents."
    )
    max_image_share: float = Field(
        description="Words that are the strongest of a patch in more of the images are left out of "
        "the figures of images."
    )
    n_vectors: int | None = Field(
        None, description="Vectors that tokens are compared with; null where there are none."
    )
    vector_bytes: int | None = Field(None, description="Bytes that they take.")
    patches: list[LayerPatches] = Field(description="One entry a layer, ascending.")
    images: MatchingResult = Field(
        description="Figures of images: the matching rate, with words in the place of latents. "
        "Means over layers leave out layer -1."
    )
    unmasked: MatchingResult | None = Field(
        description="The same without the frequency mask; null where that leaves no word out."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of patches, those of images, those without the mask, the cost."""
        readout = self.readout
        cost = [("lens_vectors", self.n_vectors), ("lens_vector_bytes", self.vector_bytes)]
        return [
            *(
                named.figure("lens_patches_named", part.layer, "image", k=k, method=readout)
                for part in self.patches
                for k, named in part.named.items()
            ),
            *_of_words(self.images, readout, None),
            *(_of_words(self.unmasked, readout, UNMASKED) if self.unmasked else ()),
            *(
                Estimate(value=value, n=self.n_vectors or 0).figure(metric, method=readout)
                for metric, value in cost
                if value is not None
            ),
        ]


def _of_words(result: MatchingResult, readout: str, of: str | None) -> list[Figure]:
    return [
        replace(figure, metric=_OF_WORDS[figure.metric], of=of, method=readout)
        for figure in result.figures()
        if figure.metric in _OF_WORDS
    ]


def word_readout_figures(
    layers: Mapping[int, ReadLayer],
    patches: Sequence[Sequence[str | None]],
    objects: Sequence[Sequence[str]],
    judge: JudgeFunction,
    *,
    readout: str,
    judge_name: str,
    n_one_token: int | None,
    ks: Sequence[int],
    max_image_share: float,
    max_label_density: float = 1.0,
    n_vectors: int | None = None,
    vector_bytes: int | None = None,
    seed: int,
    resamples: int,
    level: float,
) -> WordReadoutResult:
    """Judge every layer's words against the objects.

    Args:
        layers: The strongest words of each image and of its patches, by layer, as many as the
            largest k; -1: those of the stream that enters block 0.
        patches: Category of the object that covers each patch, None where none does, by image.
        objects: Names of the objects of each image; none where nothing in it has a name.
        judge: Decides which names a word holds.
        readout: Name of the readout: the column `of` of all figures.
        judge_name: Its name, for the record.
        n_one_token: Categories whose name is one token, for the record.
        ks: Numbers of words to report, ascending.
        max_image_share: The frequency mask of the rankings, for the record.
        max_label_density: The density mask of labels of latents, for the record.
        n_vectors: Vectors that tokens were compared with, for the record.
        vector_bytes: Bytes that they take, for the record.
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
    for layer, entry in layers.items():
        if entry.word_bpk.shape[2] < max(ks):
            raise ValueError(f"layer {layer} has {entry.word_bpk.shape[2]} words a patch")

    def of_images(rankings: Mapping[int, LayerInput], share: float) -> MatchingResult:
        scores = object_scores(dict(rankings), [objects[b] for b in judged.tolist()], judge, ks)
        parts = [
            matching_rate(
                {layer: rankings[layer] for layer in rankings if (layer < 0) == entering},
                scores,
                judge_name=judge_name,
                top_k=max(ks),
                ks=ks,
                bounds=MaskBounds(share, max_label_density),
                mask_images="evaluated",
                n_mask_images=len(objects),
                n_without_objects=len(objects) - len(judged),
                seed=seed,
                resamples=resamples,
                level=level,
            )
            for entering in (True, False)
        ]
        whole = [layer for part in parts for layer in part.layers]
        return parts[1].model_copy(update={"layers": whole})

    def rankings(masked: bool) -> dict[int, LayerInput]:
        chosen = {
            layer: (entry.words, *(entry.masked if masked else entry.unmasked))
            for layer, entry in sorted(layers.items())
        }
        return {
            layer: LayerInput(_of_rows(ranked, judged), words, mask)
            for layer, (words, ranked, mask) in chosen.items()
        }

    return WordReadoutResult(
        readout=readout,
        n_words=max(len(entry.words) for entry in layers.values()),
        n_categories=len(categories),
        n_one_token=n_one_token,
        max_image_share=max_image_share,
        n_vectors=n_vectors,
        vector_bytes=vector_bytes,
        patches=[
            LayerPatches(
                layer=layer,
                named=_patches_named(entry, patches, categories, judge, ks, level),
            )
            for layer, entry in sorted(layers.items())
        ],
        images=of_images(rankings(True), max_image_share),
        unmasked=of_images(rankings(False), 1.0) if max_image_share < 1 else None,
    )


def ranked_words(
    entry: LayerWords, words: Sequence[str], max_image_share: float, n_top: int
) -> ReadLayer:
    """Rank the words of each image by the strength that they have at one of its patches.

    Args:
        entry: The strongest words of each patch.
        words: Every word of the vocabulary.
        max_image_share: Words that are the strongest of a patch in a larger share of the images
            are left out of what is masked.
        n_top: Words of an image that are kept.
    """
    used_bp = np.full(entry.word_bpk.shape[:2], entry.word_bpk.shape[2])

    def ranked(share: float) -> tuple[Ranked, LatentMask]:
        mask = _mask(entry.word_bpk[..., 0], len(words), share)
        args = (entry.word_bpk, entry.strength_bpk, used_bp)
        return rank_latents(*args, mask.eligible_s, n_top), mask

    return ReadLayer(words, entry.word_bpk, ranked(max_image_share), ranked(1.0))


def join_words(parts: Sequence[LayerWords]) -> LayerWords:
    """Join the words of consecutive images."""
    vectors = [part.vector_bp for part in parts if part.vector_bp is not None]
    return LayerWords(
        np.concatenate([part.word_bpk for part in parts]),
        np.concatenate([part.strength_bpk for part in parts]),
        np.concatenate(vectors) if vectors else None,
    )


def _of_rows(ranked: Ranked, rows: NDArray[np.int64]) -> Ranked:
    return Ranked(ranked.latent_bn[rows], ranked.token_bn[rows], ranked.value_bn[rows])


def _mask(first_bp: NDArray[np.int32], n_words: int, max_image_share: float) -> LatentMask:
    """Mask the words that are the strongest of a patch in too many images."""
    image_bp = np.broadcast_to(np.arange(len(first_bp))[:, None], first_bp.shape)
    pairs = np.unique(np.stack([image_bp.reshape(-1), first_bp.reshape(-1)]), axis=1)
    share_w = np.bincount(pairs[1], minlength=n_words) / max(len(first_bp), 1)
    return mask_latents(share_w, np.zeros(n_words), max_image_share, 1.0)


def _patches_named(
    entry: ReadLayer,
    patches: Sequence[Sequence[str | None]],
    categories: Sequence[str],
    judge: JudgeFunction,
    ks: Sequence[int],
    level: float,
) -> dict[int, Estimate]:
    """Return k -> share of the covered patches whose k strongest words name the object there."""
    column = {name: c for c, name in enumerate(categories)}
    covered = [(b, p, column[n]) for b, row in enumerate(patches) for p, n in enumerate(row) if n]
    image_n, patch_n, class_n = np.array(covered, dtype=np.int64).reshape(-1, 3).T
    word_nk = entry.word_bpk[image_n, patch_n]
    distinct, inverse = np.unique(word_nk, return_inverse=True)
    texts = [entry.words[w] if w >= 0 else None for w in distinct.tolist()]
    labelled_u = np.array([bool(text and text.strip()) for text in texts], dtype=bool)
    verdict_uc = judge(texts, categories) & labelled_u[:, None]
    verdict_nkc = verdict_uc[inverse.reshape(word_nk.shape)]
    n, n_images = len(covered), len(patches)
    count_bc = np.zeros((n_images, len(categories)))
    np.add.at(count_bc, (image_n, class_n), 1)
    count_b = count_bc.sum(axis=1)
    other_nc = (count_bc.sum(axis=0) - count_bc)[image_n]
    shares = {}
    for k in ks:
        named_nc = np.asarray(verdict_nkc[:, :k].any(axis=1))
        correct_n = named_nc[np.arange(n), class_n].astype(np.float64)
        correct_b = np.bincount(image_n, correct_n, minlength=n_images)
        # Mean over all patches of other images, so without a draw.
        others_n = n - count_b[image_n]
        chance_n = (named_nc * other_nc).sum(axis=1) / np.maximum(others_n, 1)
        chance = float(chance_n.mean()) if n and (others_n > 0).all() else None
        interval = rate_interval(correct_b, count_b, level)
        shares[k] = estimate(interval, n, chance)
    return shares
