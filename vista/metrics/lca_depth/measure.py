"""Depths of lowest common ancestors of each latent's top images, by group of the dictionary.

Depth of a synset: the longest path up to the root, which has depth 0. An ancestor of an image is a
synset at or above any of the classes of its strongest patch; the lowest common ancestor of images
is the deepest synset that is an ancestor of all of them. Images without a class of WordNet are left
out. Two depths:

    lca_depth         mean over pairs of a latent's top images, as in sae-for-vlm (inat_depth.py),
                      which rounds it for each latent and takes latents that fire on all 16 images
    lca_depth_of_all  of the ancestor of all top images at once, which one stray image can take to
                      the root

Chance: the classes of all top images are permuted among them; each latent keeps its number of
images, since the more images, the less deep what all have in common.

Shape letters: s latent, n top image (of all latents in turn), p pair of them, t synset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap, bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

Floats = NDArray[np.float64]
# The classes of each latent's top images: by latent, by image.
Places = Sequence[Sequence[Sequence[str]]]

# Pairs of images whose synsets are compared at once.
_PAIRS = 2**14


class GroupDepth(ResultPart):
    """One group of latents."""

    latents: int = Field(description="Latents up to the end of the group.")
    depth: Estimate = Field(
        description="Mean depth of pairs of a latent's top images, mean over n latents with enough "
        "of them. Chance: permuted classes."
    )
    depth_of_all: Estimate = Field(
        description="The same of the ancestor of all top images of a latent."
    )


class LcaDepthResult(MetricResult):
    """Depths by group, from the group that reconstructs alone to the last."""

    layer: int | None = Field(None, description="Block that the latents are of, from 0.")
    class_depth: float = Field(description="Mean depth of the data's classes: the deepest level.")
    unknown: list[str] = Field(description="Classes that WordNet lacks, left out, sorted.")
    groups: list[GroupDepth] = Field(description="The groups; one where there is no Matryoshka.")
    trend: Estimate | None = Field(
        description="`depth` of the last group less that of the first; None of one group."
    )

    def figures(self) -> list[Figure]:
        """Return two rows a group, whose `k` is where it ends, and the trend of pairs."""
        rows = [
            value.figure(metric, self.layer, of="group", k=group.latents)
            for group in self.groups
            for metric, value in (
                ("lca_depth", group.depth),
                ("lca_depth_of_all", group.depth_of_all),
            )
        ]
        if self.trend is not None:
            rows.append(self.trend.figure("lca_depth_trend", self.layer, of="group"))
        return rows


def lca_depth(
    above: Mapping[str, Sequence[str]],
    synset_of: Mapping[str, str],
    unknown: Sequence[str],
    places: Places,
    ends: Sequence[int],
    *,
    min_images: int,
    permutations: int,
    seed: int,
    draws: tuple[int, int, float],
    layer: int | None = None,
) -> tuple[LcaDepthResult, dict[str, list[Any]]]:
    """Return depths of the common ancestors of the latents' top images by group.

    Args:
        above: Each synset of the tree and its hypernyms, every synset after its hypernyms.
        synset_of: Class -> its synset, for the classes that WordNet has.
        unknown: Classes that it lacks.
        places: The classes of each latent's top images.
        ends: Where the groups end, ascending; the last is the number of latents.
        min_images: Top images with a class that a latent needs.
        permutations: Of the classes of top images.
        seed: Of the permutations.
        draws: Seed, resamples and level of the bootstrap over latents.
        layer: Block that the latents are of, for the rows.

    Returns:
        The result, and columns of one row a latent with enough top images: latent, group (from 0),
        images, depth, depth_of_all, and the means of both under permuted classes: permuted,
        permuted_of_all.
    """
    depth_t, ancestors = _tree(above)
    known = {name: ancestors[synset] for name, synset in synset_of.items()}
    image_of_latent = [
        [np.any(synsets, axis=0) for synsets in map(_known(known), images) if synsets]
        for images in places
    ]
    latents = [s for s, images in enumerate(image_of_latent) if len(images) >= min_images]
    counts = [len(image_of_latent[s]) for s in latents]
    images_nt = np.array([image for s in latents for image in image_of_latent[s]], dtype=bool)
    images_nt = images_nt.reshape(-1, len(depth_t))
    pairs = _pairs(counts)
    rng = np.random.default_rng(seed)

    def depths(drawn_nt: NDArray[np.bool_]) -> Floats:
        """Return both depths of each latent, [2, s]."""
        return np.stack(
            [_pair_depths(drawn_nt, *pairs, depth_t), _depths_of_all(drawn_nt, counts, depth_t)]
        )

    depth_s, of_all_s = depths(images_nt)
    permuted_s, permuted_of_all_s = np.mean(
        [depths(images_nt[rng.permutation(len(images_nt))]) for _ in range(permutations)], axis=0
    )
    group_s = np.searchsorted(np.asarray(ends), np.array(latents, dtype=np.int64), side="right")

    def mean(value_s: Floats, chance_s: Floats) -> Estimate:
        chance = float(chance_s.mean()) if len(chance_s) else None
        return estimate(bootstrap_mean(value_s, *draws), len(value_s), chance)

    groups = []
    for group, end in enumerate(ends):
        own_s = group_s == group
        groups.append(
            GroupDepth(
                latents=end,
                depth=mean(depth_s[own_s], permuted_s[own_s]),
                depth_of_all=mean(of_all_s[own_s], permuted_of_all_s[own_s]),
            )
        )
    place = {synset: t for t, synset in enumerate(above)}
    classes = sorted(set(synset_of.values()))
    result = LcaDepthResult(
        layer=layer,
        class_depth=float(np.mean([depth_t[place[synset]] for synset in classes])),
        unknown=sorted(unknown),
        groups=groups,
        trend=_trend(depth_s, permuted_s, group_s, len(ends), draws),
    )
    columns: dict[str, list[Any]] = {
        "latent": latents,
        "group": group_s.tolist(),
        "images": counts,
        "depth": depth_s.tolist(),
        "depth_of_all": of_all_s.astype(np.int64).tolist(),
        "permuted": permuted_s.tolist(),
        "permuted_of_all": permuted_of_all_s.tolist(),
    }
    return result, columns


def _known(
    known: Mapping[str, NDArray[np.bool_]],
) -> Callable[[Sequence[str]], list[NDArray[np.bool_]]]:
    """Return what gives the ancestors of each class that is known."""
    return lambda classes: [known[name] for name in classes if name in known]


def _tree(above: Mapping[str, Sequence[str]]) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return the depth of each synset [t], and for each which synsets are at or above it [t]."""
    place = {synset: t for t, synset in enumerate(above)}
    depth_t = np.zeros(len(above), dtype=np.int64)
    ancestors: dict[str, NDArray[np.bool_]] = {}
    for t, (synset, hypernyms) in enumerate(above.items()):
        ancestors[synset] = np.arange(len(above)) == t
        for hypernym in hypernyms:
            depth_t[t] = max(depth_t[t], depth_t[place[hypernym]] + 1)
            ancestors[synset] |= ancestors[hypernym]
    return depth_t, ancestors


def _pairs(counts: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], Any]:
    """Return the first and the second image of all pairs of a latent's images, [p], and the latent
    of each pair, [p]."""
    starts = np.cumsum([0, *counts])
    pairs = [
        start + np.stack(np.triu_indices(n, 1)) for start, n in zip(starts, counts, strict=False)
    ]
    first_p, second_p = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
    return first_p, second_p, np.repeat(np.arange(len(counts)), [p.shape[1] for p in pairs])


def _pair_depths(
    images_nt: NDArray[np.bool_],
    first_p: NDArray[np.int64],
    second_p: NDArray[np.int64],
    latent_p: NDArray[np.int64],
    depth_t: NDArray[np.int64],
) -> Floats:
    """Return the mean over pairs of each latent's images of the depth of the deepest synset above
    both [s]; the root's, 0, where there is none."""
    # A byte holds the depths of any tree of words, and is several times as fast.
    small_t = depth_t.astype(np.uint8)
    depth_p = np.empty(len(first_p))
    for start in range(0, len(first_p), _PAIRS):
        part = slice(start, start + _PAIRS)
        common_pt = images_nt[first_p[part]] & images_nt[second_p[part]]
        depth_p[part] = (common_pt * small_t).max(axis=1, initial=0)
    return np.bincount(latent_p, depth_p) / np.bincount(latent_p)


def _depths_of_all(
    images_nt: NDArray[np.bool_], counts: Sequence[int], depth_t: NDArray[np.int64]
) -> Floats:
    """Return the depth of the deepest synset above all images of each latent [s]; the root's, 0,
    where there is none."""
    if not counts:
        return np.zeros(0)
    starts = np.cumsum([0, *counts[:-1]])
    common_st = np.logical_and.reduceat(images_nt, starts, axis=0)
    return np.asarray(np.where(common_st, depth_t, 0).max(axis=1), dtype=np.float64)


def _trend(
    depth_s: Floats,
    permuted_s: Floats,
    group_s: NDArray[np.int64],
    n_groups: int,
    draws: tuple[int, int, float],
) -> Estimate | None:
    """Return the mean of the last group less that of the first; None of one group, or an empty
    one."""
    first_s, last_s = group_s == 0, group_s == n_groups - 1
    if n_groups < 2 or not first_s.any() or not last_s.any():
        return None
    columns_s4 = np.stack([last_s * depth_s, last_s, first_s * depth_s, first_s], axis=1)
    interval = bootstrap(columns_s4, lambda m: m[:, 0] / m[:, 1] - m[:, 2] / m[:, 3], *draws)
    chance = float(permuted_s[last_s].mean() - permuted_s[first_s].mean())
    return estimate(interval, int(first_s.sum() + last_s.sum()), chance)
