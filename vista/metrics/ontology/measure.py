"""Synsets of WordNet that latents name: how general they are, and what share is covered.

*Probing the Representational Power of Sparse Autoencoders in Vision Models* (arXiv 2508.11277)
recovers a model's ontology from the lowest common hypernym of a latent's top images, and reports
ontological coverage. Its details are not public; it is defined here as follows:

- The tree consists of the data's classes and all their hypernyms in WordNet (a synset may have
  several). Depth: the longest path up to the root; height: the longest path down to a class.
- A latent names the deepest synset that at least the share `purity` of its top images lie at or
  below (of equally deep ones that with more images). An image without an object, or of classes that
  WordNet lacks, counts and lies below no synset. The root and all other synsets above all classes
  are no names, since they fit any object.
- Ontological coverage: share of the inner synsets that some latent names. Inner synsets are those
  names with two classes or more below them; of several with the same classes only the deepest, the
  only one that can be a lowest common hypernym. A dictionary with one latent for each class covers
  none of them, so the share of classes that some latent names is reported as well.

Chance: the classes of all labelled top images are permuted among them; mean over permutations.

Shape letters: s latent (or neuron), k top image, e distinct set of classes, t synset of the tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import DEFAULT_LEVEL, DEFAULT_RESAMPLES, bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, ResultPart, estimate

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
_ROUNDING = 1e-6  # of shares in float32
# The classes of each latent's top images, strongest first: by latent, by image.
Places = Sequence[Sequence[Sequence[str]]]


class DictionaryOntology(ResultPart):
    """What one dictionary names."""

    coverage: Estimate = Field(
        description="Ontological coverage: share of inner synsets that a latent names; n synsets."
    )
    classes: Estimate = Field(description="Share of classes that a latent names; n classes.")
    height: Estimate = Field(
        description="Mean height of the named synsets, 0: a single class; n latents with a name."
    )
    named: Estimate = Field(
        description="Share of latents that name a synset; n latents with enough top images."
    )
    covered: list[str] = Field(description="The inner synsets that are named, from the root down.")


class OntologyResult(MetricResult):
    """What each dictionary names in WordNet."""

    layer: int | None = Field(None, description="Block that the latents are of, from 0.")
    purity: float = Field(description="Share of a latent's top images below what it names.")
    classes: int = Field(description="Classes of the data that WordNet has.")
    unknown: list[str] = Field(description="Classes that WordNet lacks, left out, sorted.")
    inner: dict[str, str] = Field(description="Inner synsets, each with its first word.")
    dictionaries: dict[str, DictionaryOntology] = Field(description="By name of the dictionary.")

    def figures(self) -> list[Figure]:
        """Return four rows a dictionary."""
        return [
            value.figure(metric, self.layer, of=name)
            for name, dictionary in sorted(self.dictionaries.items())
            for metric, value in (
                ("ontological_coverage", dictionary.coverage),
                ("class_coverage", dictionary.classes),
                ("synset_height", dictionary.height),
                ("named_latents", dictionary.named),
            )
        ]


def ontology(
    above: Mapping[str, Sequence[str]],
    words: Mapping[str, str],
    synset_of: Mapping[str, str],
    unknown: Sequence[str],
    dictionaries: Mapping[str, Places],
    *,
    purity: float,
    min_images: int,
    permutations: int,
    seed: int,
    bootstrap_seed: int = 0,
    resamples: int = DEFAULT_RESAMPLES,
    level: float = DEFAULT_LEVEL,
    layer: int | None = None,
) -> tuple[OntologyResult, dict[str, list[Any]]]:
    """Place the latents of each dictionary in the data's tree.

    Args:
        above: Each synset of the tree and its hypernyms, every synset after its hypernyms.
        words: The first word of each synset.
        synset_of: Class -> its synset, for the classes that WordNet has.
        unknown: Classes that it lacks.
        dictionaries: Name -> the classes of each latent's top images.
        purity: Share in 0..1 of a latent's top images below the synset that it names.
        min_images: Top images that a latent needs.
        permutations: Of the classes of top images.
        seed: Of the permutations.
        bootstrap_seed: Of the intervals, over latents (coverage: over synsets).
        resamples: Bootstrap samples.
        level: Coverage of the intervals.
        layer: Block that the latents are of, for the rows.

    Returns:
        The result, and columns of one row a latent with enough top images: dictionary, latent,
        synset and word (None: no name), height, share (of its top images below it), images.
    """
    tree = _tree(above, set(synset_of.values()))
    draws = (bootstrap_seed, resamples, level)
    ontologies: dict[str, DictionaryOntology] = {}
    columns: dict[str, list[Any]] = {
        name: [] for name in ("dictionary", "latent", "synset", "word", "height", "share", "images")
    }
    for name, places in dictionaries.items():
        latents = [latent for latent, images in enumerate(places) if len(images) >= min_images]
        index_sk, below_et = _index([places[latent] for latent in latents], synset_of, tree)
        images_s = np.array([len(places[latent]) for latent in latents], dtype=np.int64)
        share_st = _shares(index_sk, below_et, images_s)
        named_s = tree.named(share_st, purity)
        # The names of the latents, and under each permutation of the labels.
        names = [
            named_s,
            *(
                tree.named(_shares(permuted_sk, below_et, images_s), purity)
                for permuted_sk in _permuted(index_sk, permutations, seed)
            ),
        ]
        covered = tree.inner[np.isin(tree.inner, named_s)]
        ontologies[name] = DictionaryOntology(
            coverage=_share([np.isin(tree.inner, t_s) for t_s in names], level),
            classes=_share([np.isin(tree.classes, t_s) for t_s in names], level),
            height=_mean([tree.height_t[t_s[t_s >= 0]] for t_s in names], draws),
            named=_share([t_s >= 0 for t_s in names], level),
            covered=[tree.synsets[t] for t in covered],
        )
        columns["dictionary"] += [name] * len(latents)
        columns["latent"] += latents
        columns["images"] += images_s.tolist()
        for row, t in enumerate(named_s.tolist()):
            named: tuple[Any, ...] = (None,) * 4
            if t >= 0:
                synset = tree.synsets[t]
                named = (synset, words[synset], int(tree.height_t[t]), float(share_st[row, t]))
            for column, value in zip(("synset", "word", "height", "share"), named, strict=True):
                columns[column].append(value)
    result = OntologyResult(
        layer=layer,
        purity=purity,
        classes=len(synset_of),
        unknown=sorted(unknown),
        inner={tree.synsets[t]: words[tree.synsets[t]] for t in tree.inner},
        dictionaries=ontologies,
    )
    return result, columns


@dataclass(frozen=True)
class _Tree:
    """The data's classes and all synsets above them.

    Attributes:
        synsets: Names of the synsets.
        depth_t: Longest path up to the root.
        height_t: Longest path down to a class.
        rooted_t: Whether a synset is above all classes, or the root, and so no name.
        inner: Places of the inner synsets.
        classes: Places of the classes.
        at_or_above: For each synset, which synsets lie at or above it [t].
    """

    synsets: list[str]
    depth_t: Integers
    height_t: Integers
    rooted_t: Bools
    inner: Integers
    classes: Integers
    at_or_above: Mapping[str, Bools]

    def named(self, share_st: NDArray[np.float32], purity: float) -> Integers:
        """Return the place of the synset that each latent names [s], -1 for none."""
        # A share is at most 1: it decides among equally deep ones alone.
        depth_t = self.depth_t.astype(np.float32)
        key_st = np.where(
            (share_st >= purity - _ROUNDING) & ~self.rooted_t, 2 * depth_t + share_st, -1
        )
        return np.where(key_st.max(axis=1) < 0, -1, key_st.argmax(axis=1))


def _tree(above: Mapping[str, Sequence[str]], classes: set[str]) -> _Tree:
    synsets = list(above)
    place = {synset: t for t, synset in enumerate(synsets)}
    depth_t, height_t = (np.zeros(len(synsets), dtype=np.int64) for _ in range(2))
    at_or_above: dict[str, Bools] = {}
    for t, (synset, hypernyms) in enumerate(above.items()):
        at_or_above[synset] = np.arange(len(synsets)) == t
        for hypernym in hypernyms:
            depth_t[t] = max(depth_t[t], depth_t[place[hypernym]] + 1)
            at_or_above[synset] |= at_or_above[hypernym]
    for synset in reversed(synsets):
        for hypernym in above[synset]:
            upper = place[hypernym]
            height_t[upper] = max(height_t[upper], height_t[place[synset]] + 1)
    leaves = np.array(sorted(place[synset] for synset in classes), dtype=np.int64)
    below_ct = np.stack([at_or_above[synsets[t]] for t in leaves])
    above_all_t = below_ct.all(axis=0) & ~np.isin(np.arange(len(synsets)), leaves)
    rooted_t = np.array([not hypernyms for hypernyms in above.values()], dtype=bool) | above_all_t
    deepest: dict[bytes, int] = {}
    for t in np.flatnonzero((below_ct.sum(axis=0) > 1) & ~rooted_t).tolist():
        best = deepest.setdefault(below_ct[:, t].tobytes(), t)
        if depth_t[t] > depth_t[best]:
            deepest[below_ct[:, t].tobytes()] = t
    inner = np.array(sorted(deepest.values()), dtype=np.int64)
    return _Tree(synsets, depth_t, height_t, rooted_t, inner, leaves, at_or_above)


def _index(places: Places, synset_of: Mapping[str, str], tree: _Tree) -> tuple[Integers, Bools]:
    """Return each top image's set of classes [s, k], 0 for none known (and no image), and which
    synsets [e, t] each set lies at or below."""
    sets: dict[tuple[str, ...], int] = {(): 0}
    index_sk = np.zeros((len(places), max(map(len, places), default=0)), dtype=np.int64)
    for row, images in enumerate(places):
        for rank, classes in enumerate(images):
            known = tuple(sorted({synset_of[name] for name in classes if name in synset_of}))
            index_sk[row, rank] = sets.setdefault(known, len(sets))
    below_et = np.zeros((len(sets), len(tree.synsets)), dtype=bool)
    for known, e in sets.items():
        for synset in known:
            below_et[e] |= tree.at_or_above[synset]
    return index_sk, below_et


def _shares(index_sk: Integers, below_et: Bools, images_s: Integers) -> NDArray[np.float32]:
    """Return the share of each latent's top images at or below each synset, [s, t]."""
    count_st = np.zeros((len(index_sk), below_et.shape[1]), dtype=np.float32)
    for index_s in index_sk.T:
        count_st += below_et[index_s]
    return np.asarray(count_st / images_s[:, None], dtype=np.float32)


def _permuted(index_sk: Integers, permutations: int, seed: int) -> Iterator[Integers]:
    rng = np.random.default_rng(seed)
    labelled_sk = index_sk > 0
    for _ in range(permutations):
        shuffled_sk = index_sk.copy()
        shuffled_sk[labelled_sk] = rng.permutation(index_sk[labelled_sk])
        yield shuffled_sk


def _share(hits: Sequence[Bools], level: float) -> Estimate:
    """Return the share of the first with its interval; the others' shares give the chance level."""
    n = len(hits[0])
    return estimate(rate_interval(hits[0], np.ones(n), level), n, _chance(hits[1:]))


def _mean(values: Sequence[Integers], draws: tuple[int, int, float]) -> Estimate:
    """Return the mean of the first with its interval; the others' means give the chance level."""
    return estimate(bootstrap_mean(values[0], *draws), len(values[0]), _chance(values[1:]))


def _chance(permuted: Sequence[NDArray[Any]]) -> float | None:
    means = [float(values.mean()) for values in permuted if len(values)]
    return sum(means) / len(means) if means else None
