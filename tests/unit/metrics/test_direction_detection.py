"""Directions as detectors: classes that are planted in single blocks."""

from __future__ import annotations

import numpy as np
import pytest

from vista.data.geometry import ImageGeometry
from vista.data.records import Box, Object, Record
from vista.interventions import feature_machine
from vista.metrics.direction_detection import DirectionDetectionSettings
from vista.metrics.direction_detection.measure import Tokens, detect
from vista.metrics.direction_detection.report import direction_detection_section
from vista.metrics.direction_detection.stage import class_boxes_of
from vista.report.table import LongTable

NAMES = ("linear", "parts", "square", "rare")


def tokens(seed: int, images: int = 90, each: int = 3) -> Tokens:
    """Of `linear` block 0 holds all; of `parts` each block a noisy half; `square` is far from the
    middle along a channel of block 1, on either side."""
    rng = np.random.default_rng(seed)
    n = images * each
    positive = rng.random((4, n)) < 0.4
    image_n = np.repeat(np.arange(images), each)
    positive[3] = image_n == 0
    x = {layer: rng.standard_normal((n, 8)).astype(np.float32) for layer in (0, 1)}
    x[0][:, 0] += 6 * positive[0]
    for layer in x:
        x[layer][:, 1] += 1.5 * positive[1]
    x[1][:, 2] = np.where(positive[2], rng.choice([-3, 3], n), 0) + 0.1 * x[1][:, 2]
    return Tokens(x, positive, image_n)


def found(methods: tuple[str, ...] = ("mean_difference", "rfm")):  # type: ignore[no-untyped-def]
    return detect(
        NAMES,
        tokens(0),
        tokens(1),
        methods,
        stacked=1 / 3,
        min_images=5,
        regularisation=1.0,
        seed=0,
        bootstrap_seed=0,
        resamples=50,
        level=0.95,
    )


def test_planted_classes_are_detected_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_machine, "ROUNDS", 2)
    result, columns = found()
    assert (result.classes, result.left_out) == (3, ["rare"])
    assert (result.fit_images, result.stack_images, result.images) == (60, 30, 90)
    assert result.tokens == 270
    keys = ("method", "layer", "class")
    rows = zip(*(columns[key] for key in keys), columns["auroc"], strict=True)
    auroc = {tuple(row[:3]): row[3] for row in rows}
    for method in ("mean_difference", "rfm"):
        assert auroc[method, 0, "linear"] > 0.99
        assert auroc[method, 1, "linear"] == pytest.approx(0.5, abs=0.15)
        assert auroc[method, -1, "linear"] > 0.99
        # A projection is linear, so what lies on both sides is told from nothing.
        assert auroc[method, 1, "square"] == pytest.approx(0.5, abs=0.15)
    # Both blocks together tell more than either.
    parts = [auroc["mean_difference", layer, "parts"] for layer in (0, 1)]
    assert auroc["mean_difference", -1, "parts"] > max(parts) + 0.01 and max(parts) < 0.95
    assert auroc["random", 0, "linear"] < auroc["rfm", 0, "linear"]
    means = result.methods["rfm"].layers[0]
    own = [auroc["rfm", 0, name] for name in NAMES[:3]]
    assert (means.value, means.n, means.chance) == (pytest.approx(np.mean(own)), 3, 0.5)
    gain = result.gains["mean_difference"].stacked
    assert gain.value == pytest.approx(
        np.mean([auroc["rfm", -1, n] - auroc["mean_difference", -1, n] for n in NAMES[:3]])
    )


def test_rows_and_section_hold_blocks_and_their_combination() -> None:
    result, _ = found(("mean_difference",))
    assert result.gains == {}
    figures = result.figures()
    assert [(row.method, row.layer) for row in figures] == [
        (method, layer) for method in ("mean_difference", "random") for layer in (0, 1, None)
    ]
    text = direction_detection_section(LongTable(figures)).markdown()
    assert "| random | all |" in text


def test_a_patch_has_the_classes_whose_boxes_touch_it() -> None:
    objects = (Object("a", Box(0, 0, 8, 8)), Object("b", Box(4, 4, 8, 8)))
    record = Record("i", "test", "i.png", 16, 16, objects=objects)
    geometry = ImageGeometry(16, 16, size=16, patch=8, fit="pad")
    found_cp = class_boxes_of(record, ["a", "b"], geometry)
    assert found_cp.tolist() == [[True, False, False, False], [True, True, True, True]]


def test_a_method_is_named_once() -> None:
    with pytest.raises(ValueError, match="named twice"):
        DirectionDetectionSettings(methods=("rfm", "rfm"))
