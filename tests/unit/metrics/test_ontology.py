"""Ontology on a tree of twelve synsets: names, heights and coverage by hand, and the controls."""

from __future__ import annotations

from typing import Any

import pytest

from vista.metrics.ontology.measure import OntologyResult, ontology

# Each synset is called like its only word.
ABOVE: dict[str, tuple[str, ...]] = {
    "entity": (),
    "object": ("entity",),
    "tool": ("object",),
    "hammer": ("tool",),
    "saw": ("tool",),
    "animal": ("object",),
    "vertebrate": ("animal",),
    "mammal": ("vertebrate",),
    "cat": ("mammal",),
    "dog": ("mammal",),
    "bird": ("vertebrate",),
    "idea": ("entity",),
}
CLASSES = ("cat", "dog", "bird", "hammer", "saw", "idea")


def place(
    latents: list[list[list[str]]], above: Any = ABOVE, classes: tuple[str, ...] = CLASSES
) -> tuple[OntologyResult, dict[str, list[Any]]]:
    return ontology(
        above,
        {each: each for each in above},
        {each: each for each in classes},
        ["ankh"],
        {"sae": latents},
        purity=0.75,
        min_images=3,
        permutations=30,
        seed=0,
    )


def images(*classes: str) -> list[list[str]]:
    """One class an image; "" for an image without an object."""
    return [[each] if each else [] for each in classes]


LATENTS: list[tuple[list[list[str]], str | None, int | None]] = [
    (images("cat", "cat", "cat", "saw"), "cat", 0),
    (images("cat", "dog", "dog", "cat"), "mammal", 1),
    (images("cat", "dog", "bird", "bird"), "vertebrate", 2),
    (images("cat", "dog", "saw", "saw"), "object", 4),
    (images("cat", "", "", "cat"), None, None),
    (images("ankh", "ankh", "cat", "cat"), None, None),
    ([["cat", "saw"]] * 4, "cat", 0),
]


def test_names_heights_and_coverage() -> None:
    latents = [found for found, _, _ in LATENTS]
    result, columns = place([images("cat", "cat"), *latents])
    assert columns["latent"] == list(range(1, 8))  # the first has too few images
    assert columns["word"] == columns["synset"] == [name for _, name, _ in LATENTS]
    assert columns["height"] == [height for _, _, height in LATENTS]
    assert columns["share"][:3] == [0.75, 1.0, 1.0]
    # All that lies below animal lies below vertebrate, which alone can be named.
    assert set(result.inner) == {"object", "vertebrate", "mammal", "tool"}
    found = result.dictionaries["sae"]
    assert sorted(found.covered) == ["mammal", "object", "vertebrate"]
    assert (found.coverage.value, found.coverage.n) == (0.75, 4)
    assert (found.classes.value, found.classes.n) == (pytest.approx(1 / 6), 6)  # cat
    assert (found.height.value, found.height.n) == (pytest.approx(7 / 5), 5)
    assert (found.named.value, found.named.n) == (pytest.approx(5 / 7), 7)
    assert (result.classes, result.unknown) == (6, ["ankh"])
    assert [(row.metric, row.of) for row in result.figures()] == [
        ("ontological_coverage", "sae"),
        ("class_coverage", "sae"),
        ("synset_height", "sae"),
        ("named_latents", "sae"),
    ]


def test_permuted_labels_lose_meaning_and_keep_what_is_labelled() -> None:
    result, _ = place([images(each, each, each, each) for each in CLASSES] * 4)
    found = result.dictionaries["sae"]
    assert found.height.value == 0 and found.coverage.value == 0
    assert found.classes.value == 1
    assert found.classes.chance is not None and found.classes.chance < 0.6
    assert found.height.chance is not None and found.height.chance > 2
    assert found.coverage.chance is not None and found.coverage.chance > 0.2
    # An image without an object stays one: as many latents have a name by chance.
    half, _ = place([images("cat", "cat", "cat", "cat"), images("", "", "", "")] * 3)
    named = half.dictionaries["sae"].named
    assert (named.value, named.chance) == (0.5, 0.5)


def test_a_synset_with_two_hypernyms() -> None:
    above = {"e": (), "a": ("e",), "b": ("a",), "m": ("e",), "x": ("b", "m"), "y": ("m",)}
    above["z"] = ("e",)
    both, only = images("x", "y", "x", "y"), images("x", "x", "x")
    result, columns = place([both, only], above, ("x", "y", "z"))
    assert list(result.inner) == ["m"]
    assert (columns["synset"], columns["height"]) == (["m", "x"], [1, 0])


def test_one_class_has_no_inner_synset() -> None:
    result, _ = place([images("cat", "cat", "cat")], classes=("cat",))
    coverage = result.dictionaries["sae"].coverage
    assert (coverage.value, coverage.n) == (None, 0)


def test_what_lies_above_all_classes_is_no_name() -> None:
    tools = images("hammer", "saw", "hammer", "saw")
    mixed = images("cat", "saw", "saw", "cat")
    result, columns = place([tools, mixed], classes=("cat", "hammer", "saw"))
    assert columns["synset"] == ["tool", None]
    assert list(result.inner) == ["tool"]
    # A class is a name, wherever it stands.
    _, columns = place([mixed], classes=("cat", "saw", "object"))
    assert columns["synset"] == ["object"]
