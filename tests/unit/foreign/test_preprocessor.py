"""Settings of image processors as other programs write them: the right value, or one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from vista.errors import UserError
from vista.foreign.preprocessor import image_steps, read_preprocessor, side

PLAIN: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": 48}


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ({"image_mean": 0.5, "image_std": 0.5}, "std", (0.5, 0.5, 0.5)),
        ({"image_mean": "0.5"}, "mean", (0.5, 0.5, 0.5)),
        ({"image_mean": ["0.1", 0.2, 0]}, "mean", (0.1, 0.2, 0.0)),
        ({"do_normalize": False, "image_mean": None, "image_std": None}, "std", (1.0, 1.0, 1.0)),
        ({"do_normalize": "false", "image_mean": "?"}, "mean", (0.0, 0.0, 0.0)),
        ({"do_normalize": None}, "std", (0.25, 0.25, 0.25)),
        ({"rescale_factor": "0.00392156862745098"}, "scale", 1 / 255),
        ({"rescale_factor": None, "do_rescale": None}, "scale", 1 / 255),
        ({"do_rescale": 0}, "scale", 1.0),
        ({"do_rescale": False, "rescale_factor": "?"}, "scale", 1.0),
        ({"do_rescale": False, "image_mean": [123.7, 116.3, 103.5]}, "mean", (123.7, 116.3, 103.5)),
        ({"resample": "3"}, "resample", 3),
        ({"resample": 2.0}, "resample", 2),
        ({"resample": "Bicubic"}, "resample", 3),
        ({"resample": None}, "resample", None),
        ({"size": "48"}, "size", 48),
        ({"size": 48.0}, "size", 48),
        ({"size": [48, 48]}, "size", 48),
        ({"size": {"height": 48, "width": "48"}}, "size", 48),
        ({"size": {"shortest_edge": 48, "longest_edge": 64}}, "size", 48),
        ({"size": {"shortest_edge": None, "longest_edge": 64}}, "size", 64),
        ({"size": {"max_pixels": 65536, "min_pixels": 1024}}, "size", None),
        ({"size": None}, "size", None),
        ({"size": 64, "crop_size": {"height": 48, "width": 48}}, "size", 64),
        ({"size": 64, "crop_size": 48, "do_center_crop": "true"}, "size", 48),
        ({"size": 64, "crop_size": None, "do_center_crop": True}, "size", 64),
        ({"size": 64, "do_resize": False}, "size", None),
        ({"size": 64, "do_resize": False, "crop_size": 48, "do_center_crop": True}, "size", 48),
        ({"max_num_patches": "256"}, "max_patches", 256),
    ],
)  # fmt: skip
def test_values_that_can_be_meant(changes: dict[str, Any], name: str, expected: Any) -> None:
    assert getattr(image_steps(PLAIN | changes), name) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_std": 0}, r"image_std is 0, expected more than 0"),
        ({"image_std": [0.5, 0.0, 0.5]}, r"image_std is \[0.5, 0.0, 0.5\], expected more than 0"),
        ({"image_std": -0.5}, "image_std is -0.5, expected more than 0"),
        ({"image_std": 1e-300}, "image_std is 1e-300, expected more than 0"),
        ({"image_std": math.nan}, "image_std is nan, expected a number, or three"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\], expected a number, or three"),
        ({"image_mean": [0.5] * 4}, "expected a number, or three"),
        ({"image_mean": []}, "expected a number, or three"),
        ({"image_mean": [[0.5] * 3]}, "expected a number, or three"),
        ({"image_mean": "imagenet"}, "image_mean is 'imagenet', expected a number, or three"),
        ({"image_mean": {"r": 1}}, "expected a number, or three"),
        ({"image_mean": True}, "expected a number, or three"),
        ({"image_mean": [123.7, 116.3, 103.5]}, r"image_mean .* but pixels are scaled to 0\.\.1;"),
        ({"image_mean": -0.5}, "image_mean is -0.5, but pixels"),
        ({"image_mean": None}, "lacks image_mean or image_std"),
        ({"rescale_factor": 0}, "rescale_factor is 0, expected a number above 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255', expected a number above 0"),
        ({"rescale_factor": 1e300}, "rescale_factor is 1e[+]300, expected"),
        ({"rescale_offset": True}, "rescale_offset moves pixels"),
        ({"do_rescale": "maybe"}, "do_rescale is 'maybe', expected true or false"),
        ({"do_normalize": [1]}, r"do_normalize is \[1\], expected true or false"),
        ({"do_center_crop": 2}, "do_center_crop is 2, expected true or false"),
        ({"resample": 9}, "resample 9 is no filter of PIL"),
        ({"resample": True}, "resample True is no filter of PIL"),
        ({"resample": "cubic"}, "resample 'cubic' is no filter of PIL"),
        ({"size": 0}, "size is 0, expected one side, px"),
        ({"size": -48}, "size is -48, expected one side"),
        ({"size": 48.5}, "size is 48.5, expected one side"),
        ({"size": 10**9}, "size is 1000000000, expected one side"),
        ({"size": "large"}, "size is 'large', expected one side"),
        ({"size": True}, "size is True, expected one side"),
        ({"size": [48, 64]}, r"size is \[48, 64\], expected one side"),
        ({"size": []}, r"size is \[\], expected one side"),
        ({"size": {"height": 48, "width": 64}}, "size is .* expected one side"),
        ({"size": {"shortest_edge": [48]}}, "size is .* expected one side"),
        ({"crop_size": "?", "do_center_crop": True}, r"crop_size is '\?', expected one side"),
        ({"max_num_patches": 0}, "max_num_patches is 0, expected a whole number above 0"),
    ],
)  # fmt: skip
def test_nonsense_is_told_by_file_and_key(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        image_steps(PLAIN | changes, "model/preprocessor_config.json")
    assert str(caught.value).startswith("model/preprocessor_config.json")
    assert "\n" not in str(caught.value)


def test_values_are_read_where_transformers_5_writes_them(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": PLAIN, "processor_class": "CLIPProcessor"})
    )
    assert read_preprocessor(tmp_path) == PLAIN
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PLAIN | {"image_mean": 0.1}))
    assert read_preprocessor(tmp_path)["image_mean"] == 0.1


def test_an_error_names_the_file_that_was_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"preprocessor_config\.json is missing, and so is"):
        read_preprocessor(tmp_path)
    for nested in ({}, {"image_processor": None}, {"image_processor": [1]}):
        (tmp_path / "processor_config.json").write_text(json.dumps(nested))
        with pytest.raises(UserError, match=r"preprocessor_config\.json is missing, and so is"):
            read_preprocessor(tmp_path)
    wrong = {"image_processor": PLAIN | {"image_std": 0}}
    (tmp_path / "processor_config.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"/processor_config\.json: image_std is 0"):
        read_preprocessor(tmp_path)
    for text in ("[1]", "{", "", '{"size": '):
        (tmp_path / "preprocessor_config.json").write_text(text)
        with pytest.raises(UserError, match=r"/preprocessor_config\.json (is not JSON|must hold)"):
            read_preprocessor(tmp_path)


def test_byte_order_marks_are_no_part_of_the_settings(tmp_path: Path) -> None:
    text = json.dumps(PLAIN, indent=1).replace("\n", "\r\n")
    (tmp_path / "preprocessor_config.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_preprocessor(tmp_path) == PLAIN


def test_a_patch_is_a_square() -> None:
    assert [side(value, "patch_size") for value in (14, "14", 14.0, [14, 14], (14,))] == [14] * 5
    for value in (None, "", "x", [14, 16], [2, 14, 14], 0, {}, {"max_pixels": 3}, math.nan):
        with pytest.raises(UserError, match=r"patch_size .*expected one side, px"):
            side(value, "patch_size")
