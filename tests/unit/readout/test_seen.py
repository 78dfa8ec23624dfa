"""What a readout saw: tables and maps of a planted image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vista.data.geometry import ImageGeometry
from vista.errors import UserError
from vista.readout.edits import ConceptFinder
from vista.readout.seen import LayerLatents, SeenImages
from vista.sae.label_table import LatentLabels

INDEX = np.array([[1, 2], [2, 0], [0, 0], [2, 1]])
VALUE = np.array([[3, 1], [2, 0], [0, 0], [5, 4]], np.float32)
NNZ = np.array([2, 1, 0, 2])
ONES = np.ones(4, np.float32)
LATENTS = LayerLatents(INDEX, VALUE, NNZ, ONES, ONES)
NAMES = (None, "cat", "<b>dog</b>")
LABELS = {7: LatentLabels(7, "s", 1, NAMES, np.ones(3, "f"), np.ones(3, "f"), ((),) * 3)}


def seen(n: int = 1) -> SeenImages:
    images = [Image.new("RGB", (20, 20), (40 * i, 0, 0)) for i in range(n)]
    return SeenImages(
        [f"{i}.png" for i in range(n)],
        images,
        [{7: LATENTS}] * n,
        [ImageGeometry(20, 20, 10, 5)] * n,
        LABELS,
        ConceptFinder({}, LABELS, {}),
    )


def test_the_strongest_latents_of_an_image_and_of_a_patch() -> None:
    table = seen(2).top(k=1)
    assert table.values.tolist() == [
        ["0.png", 7, "<b>dog</b>", 2, 5.0, 1, 1],
        ["1.png", 7, "<b>dog</b>", 2, 5.0, 1, 1],
    ]
    assert seen().top(patch=(0, 0))["latent"].tolist() == [1, 2]
    assert seen().top(patch=(1, 0)).empty
    assert len(seen(3)) == 3 and seen(3)[-1].names == ["2.png"]
    with pytest.raises(UserError, match="no patch 2,0"):
        seen().top(patch=(2, 0))
    with pytest.raises(UserError, match=r"no layer 3: the SAEs read layers \[7\]"):
        seen().top(layer=3)
    with pytest.raises(IndexError):
        seen()[1]


def test_a_map_by_word_and_by_number() -> None:
    assert seen().activations("cat").tolist() == [[3, 0], [0, 4]]
    picture = seen().heatmap("cat")
    assert isinstance(picture, Image.Image) and np.asarray(picture).std() > 5
    shown = np.asarray(seen().show())
    assert shown.shape == np.asarray(picture).shape and (shown != np.asarray(picture)).any()
    with pytest.raises(UserError, match="give its layer"):
        seen().heatmap(1)


def test_a_notebook_shows_labels_as_text() -> None:
    page = seen()._repr_html_()
    assert "&lt;b&gt;dog" in page and "<b>dog" not in page


def test_silent_slots_are_no_latent_0() -> None:
    assert not LATENTS.activation(0).any()
    assert {latent for latent, _, _ in LATENTS.strongest()} == {1, 2}
