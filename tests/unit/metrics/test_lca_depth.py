"""Common ancestors of top images: depths by hand and by brute force, groups, permutations."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from vista.metrics.lca_depth.measure import LcaDepthResult, lca_depth
from vista.metrics.lca_depth.report import lca_depth_section
from vista.report.table import LongTable

# Each synset is called like its only word; a mule has two hypernyms.
ABOVE: dict[str, tuple[str, ...]] = {
    "entity": (),
    "tool": ("entity",),
    "saw": ("tool",),
    "animal": ("entity",),
    "worker": ("entity",),
    "mammal": ("animal",),
    "cat": ("mammal",),
    "dog": ("mammal",),
    "mule": ("mammal", "worker"),
}
CLASSES = {name: name for name in ("saw", "cat", "dog", "mule")}


def depths(
    latents: list[list[list[str]]], ends: list[int], permutations: int = 50
) -> tuple[LcaDepthResult, dict[str, list[float]]]:
    return lca_depth(
        ABOVE,
        CLASSES,
        ["ankh"],
        latents,
        ends,
        min_images=2,
        permutations=permutations,
        seed=0,
        draws=(0, 50, 0.95),
    )


def images(*classes: str) -> list[list[str]]:
    return [name.split() for name in classes]


def test_depths_by_hand() -> None:
    latents = [
        images("cat", "cat", "cat"),  # cat
        images("cat", "dog"),  # mammal
        images("cat", "mule", "", "ankh"),  # mammal: images without a class are left out
        images("saw", "cat"),  # entity
        images("cat saw", "saw"),  # saw: an image may show two classes
        images("cat", "", ""),  # too few images
    ]
    result, columns = depths(latents, [6])
    assert columns["latent"] == [0, 1, 2, 3, 4]
    assert columns["depth"] == columns["depth_of_all"] == [3, 2, 2, 0, 2]
    assert columns["images"] == [3, 2, 2, 2, 2]
    (group,) = result.groups
    assert (group.depth.value, group.depth.n) == (pytest.approx(9 / 5), 5)
    assert group.depth_of_all.value == group.depth.value
    assert result.class_depth == pytest.approx((2 + 3 + 3 + 3) / 4)
    assert (result.trend, result.unknown) == (None, ["ankh"])


def test_a_stray_image_costs_its_pairs_and_not_the_depth() -> None:
    _, columns = depths([images("cat", "cat", "cat", "dog", "saw")], [1])
    # Three pairs of cats, three of a cat and the dog, four with the saw.
    assert columns["depth"] == [pytest.approx((3 * 3 + 3 * 2 + 4 * 0) / 10)]
    assert columns["depth_of_all"] == [0]


def ways(synset: str) -> list[tuple[str, ...]]:
    """All paths from a synset up to the root."""
    return [(synset, *way) for up in ABOVE[synset] for way in ways(up)] or [(synset,)]


def deepest(*shown: list[str]) -> int:
    """Depth of the deepest synset on a way up from a class of each image."""
    above = [{at for name in classes for way in ways(name) for at in way} for classes in shown]
    return max(len(max(ways(at), key=len)) - 1 for at in set.intersection(*above))


def test_depths_and_their_chance_by_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vista.metrics.lca_depth.measure._PAIRS", 7)
    rng = np.random.default_rng(0)
    shown = [[name] for name in CLASSES] + [["cat", "saw"], ["mule", "dog"]]
    latents = [[shown[i] for i in rng.integers(len(shown), size=n)] for n in (2, 5, 3, 9, 4, 2)]
    result, columns = depths(latents, [2, 6], permutations=2000)
    by_pairs = [np.mean([deepest(*pair) for pair in combinations(own, 2)]) for own in latents]
    assert columns["depth"] == pytest.approx(by_pairs)
    assert columns["depth_of_all"] == [deepest(*own) for own in latents]
    assert [group.depth.value for group in result.groups] == pytest.approx(
        [np.mean(by_pairs[:2]), np.mean(by_pairs[2:])]
    )
    # In whatever order, a pair is any two of the images: chance does not know how many there are.
    every = [image for own in latents for image in own]
    chance = np.mean([deepest(*pair) for pair in combinations(every, 2)])
    assert columns["permuted"] == pytest.approx([chance] * 6, abs=0.1)
    assert [group.depth.chance for group in result.groups] == pytest.approx([chance] * 2, abs=0.05)
    # What all have in common is less, the more they are.
    triples = np.mean([deepest(*three) for three in combinations(every, 3)])
    assert columns["permuted_of_all"][2] == pytest.approx(triples, abs=0.1)
    assert columns["permuted_of_all"][3] < triples < chance


def test_groups_are_told_from_each_other_and_from_permuted_classes() -> None:
    general = [images("cat", "saw", "dog", "mule")] * 10  # pairs: 3 of mammals, 3 with the saw
    special = [images("cat", "cat", "cat", "cat"), images("saw", "saw", "saw", "saw")] * 5
    result, columns = depths(general + special, [10, 20])
    first, last = result.groups
    assert (first.latents, last.latents) == (10, 20)
    assert columns["group"] == [0] * 10 + [1] * 10
    assert (first.depth.value, last.depth.value) == (1, 2.5)
    assert (first.depth_of_all.value, last.depth_of_all.value) == (0, 2.5)
    assert result.trend is not None and result.trend.value == 1.5
    # The same images at random have little in common, in either group alike.
    assert first.depth.chance == pytest.approx(last.depth.chance, abs=0.1)
    assert last.depth.chance is not None and 1 < last.depth.chance < 2
    assert result.trend.chance == pytest.approx(0, abs=0.1)
    assert last.depth_of_all.chance is not None and last.depth_of_all.chance < 0.6
    rows = [(row.metric, row.k) for row in result.figures()]
    assert rows == [
        *(("lca_depth", 10), ("lca_depth_of_all", 10)),
        *(("lca_depth", 20), ("lca_depth_of_all", 20), ("lca_depth_trend", None)),
    ]
    shown = lca_depth_section(LongTable(result.figures())).grids[0]
    assert [row[3] for row in shown.rows] == ["1.000", "2.500"]
    assert [row[7] for row in shown.rows] == ["0.000", "2.500"]


def test_no_latent_is_a_result_without_figures() -> None:
    result, columns = depths([images("cat")], [1])
    assert result.groups[0].depth.n == 0 and result.groups[0].depth.value is None
    assert columns["latent"] == []
