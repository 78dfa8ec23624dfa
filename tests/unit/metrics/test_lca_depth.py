"""Common ancestors of top images: depths by hand, groups, and what permutations leave."""

from __future__ import annotations

import pytest

from vista.metrics.lca_depth.measure import LcaDepthResult, lca_depth
from vista.metrics.lca_depth.report import lca_depth_section
from vista.metrics.lca_depth.stage import group_ends
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
    latents: list[list[list[str]]], ends: list[int]
) -> tuple[LcaDepthResult, dict[str, list[float]]]:
    return lca_depth(
        ABOVE,
        CLASSES,
        ["ankh"],
        latents,
        ends,
        min_images=2,
        permutations=50,
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
    assert columns["depth"] == [3, 2, 2, 0, 2]
    assert columns["images"] == [3, 2, 2, 2, 2]
    (group,) = result.groups
    assert (group.depth.value, group.depth.n) == (pytest.approx(9 / 5), 5)
    assert result.class_depth == pytest.approx((2 + 3 + 3 + 3) / 4)
    assert (result.trend, result.unknown) == (None, ["ankh"])


def test_groups_are_told_from_each_other_and_from_permuted_classes() -> None:
    general = [images("cat", "saw", "dog", "mule")] * 10
    special = [images("cat", "cat", "cat", "cat"), images("saw", "saw", "saw", "saw")] * 5
    result, columns = depths(general + special, [10, 20])
    first, last = result.groups
    assert (first.latents, last.latents) == (10, 20)
    assert columns["group"] == [0] * 10 + [1] * 10
    assert (first.depth.value, last.depth.value) == (0, 2.5)
    assert result.trend is not None and result.trend.value == 2.5
    # The same images at random have little in common, in either group alike.
    assert first.depth.chance == pytest.approx(last.depth.chance, abs=0.3)
    assert last.depth.chance is not None and last.depth.chance < 1
    assert last.gain.value == pytest.approx(2.5 - last.depth.chance)
    assert result.trend.chance == pytest.approx(0, abs=0.3)
    rows = [(row.metric, row.k) for row in result.figures()]
    assert rows == [
        *(("lca_depth", 10), ("lca_depth_gain", 10), ("lca_depth", 20), ("lca_depth_gain", 20)),
        ("lca_depth_trend", None),
    ]
    assert "2.500" in lca_depth_section(LongTable(result.figures())).markdown()


def test_groups_end_where_training_nests_them() -> None:
    train = {"architecture": "matryoshka_batchtopk", "widths": [0.125, 0.5, 1.0]}
    assert group_ends(train, 100) == [12, 50, 100]
    assert group_ends({**train, "architecture": "topk"}, 100) == [100]


def test_no_latent_is_a_result_without_figures() -> None:
    result, columns = depths([images("cat")], [1])
    assert result.groups[0].depth.n == 0 and result.groups[0].depth.value is None
    assert columns["latent"] == []
