"""Edits by concept: which latent a word means, and what is edited."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vista.data.geometry import ImageGeometry
from vista.errors import UserError
from vista.interventions.edits import Concept
from vista.readout.edits import (
    ConceptEdit,
    ConceptFinder,
    LatentEdit,
    patches_at,
    row_of_concepts,
    row_of_latent,
)
from vista.sae.label_table import LatentLabels
from vista.sae.neutral import SaeConfig, SparseAutoencoder

D, S = 4, 3


def sae(layer: int) -> SparseAutoencoder:
    config = SaeConfig("standard", D, S, layer, "s", subtract_decoder_bias=False)
    rng = torch.Generator().manual_seed(layer)
    shapes = config.weight_shapes()
    return SparseAutoencoder(config, {n: torch.randn(s, generator=rng) for n, s in shapes.items()})


def labels(layer: int, *names: str | None) -> LatentLabels:
    share_s = np.array([0.5, 0.9, 0.7], np.float32)
    return LatentLabels(layer, "s", 10, names, share_s, share_s, ((),) * S)


SAES = {1: sae(1), 2: sae(2)}
LABELS = {1: labels(1, "dog", None, "the"), 2: labels(2, "cats", "cat", "dog")}
FOUND = {"boat": (Concept(torch.ones(D) / 2), None)}
CONCEPTS = ConceptFinder(SAES, LABELS, FOUND)


def test_a_word_means_the_latent_that_is_named_after_it() -> None:
    assert CONCEPTS.latent("dog") == (1, 0)
    assert CONCEPTS.latent("dog", 2) == (2, 2)
    # Of two in one layer, that whose label dominates its contexts.
    assert CONCEPTS.latent("cat") == (2, 1)
    with pytest.raises(UserError, match=r"no latent of layers 1, 2 is labelled 'cot'.*cat"):
        CONCEPTS.latent("cot")
    with pytest.raises(UserError, match="no latent of layer 3 has a label"):
        CONCEPTS.latent("dog", 3)


def test_a_direction_that_was_found_goes_before_a_label() -> None:
    concept, block = CONCEPTS("boat")
    assert block is None and concept is FOUND["boat"][0]
    concept, block = CONCEPTS("dog")
    row_d = SAES[1].W_dec[0]
    assert block == 1 and torch.allclose(concept.direction_d, row_d / row_d.norm())


def edit(**changes: Any) -> ConceptEdit:
    return ConceptEdit(
        **({"remove": None, "add": None, "strength": 2.0, "patches": (0,)} | changes)
    )


def test_what_is_done_follows_from_the_concepts() -> None:
    hows = [
        row_of_concepts(edit(**given), CONCEPTS, 4).how
        for given in ({"remove": "dog"}, {"add": "dog"}, {"remove": "dog", "add": "cat"})
    ]
    assert hows == ["subtract", "add", "remove_add"]
    row = row_of_concepts(edit(remove="dog", patches=(1, 3)), CONCEPTS, 4)
    assert row.blocks == (1,) and row.patches_p.tolist() == [False, True, False, True]
    same = row_of_latent(LatentEdit(1, 0, "subtract", 2.0, (1, 3)), SAES, 4)
    assert row.source is not None and same.source is not None
    assert torch.equal(row.source.direction_d, same.source.direction_d)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "name a concept"),
        ({"remove": "dog", "how": "remove_add"}, "remove_add needs a concept to add"),
        ({"add": "dog", "how": "subtract"}, "subtract needs a concept to remove"),
        ({"remove": "boat", "how": "ablate", "blocks": (1,)}, "ablate reads a latent"),
        ({"remove": "boat"}, "name the blocks"),
        ({"remove": "dog", "patches": (4,)}, r"the image has 0\.\.3"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        row_of_concepts(edit(**given), CONCEPTS, 4)


def test_a_place_is_a_box_patches_or_a_mask() -> None:
    geometry = ImageGeometry(40, 40, 20, 5)
    assert patches_at(None, geometry) == tuple(range(16))
    assert patches_at((10.0, 0.0, 10.0, 11.0), geometry) == (1, 5)
    assert patches_at([(0, 1), (3, 3)], geometry) == (1, 15)
    mask = np.zeros((4, 4), bool)
    mask[2, 0] = True
    assert patches_at(mask, geometry) == patches_at(mask.reshape(-1), geometry) == (8,)
    for outside in ((50.0, 0.0, 5.0, 5.0), [(4, 0)], [], np.zeros(16, bool), np.ones(3, bool)):
        with pytest.raises(UserError):
            patches_at(outside, geometry)
