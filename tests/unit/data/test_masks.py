"""Run-length masks against values counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vista.data.masks import (
    compress_runs,
    decode_mask,
    decompress_runs,
    encode_mask,
    mask_runs,
    polygons_to_mask,
)


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows])


def test_runs_go_down_the_columns_and_start_with_background() -> None:
    mask = mask_of("..#.", ".#..", ".#..")
    assert mask_runs(mask) == [4, 3, 5]
    assert mask_runs(mask_of("#.", "#.")) == [0, 2, 2]
    assert mask_runs(mask_of("..", "..")) == [4]


def test_compressed_text_is_the_one_cocoapi_writes() -> None:
    # Counted by hand: a run below 16 is one character chr(48 + run); 2000 = 0b11111_10000 needs a
    # third group, because the fifth bit of the last group is the sign.
    assert compress_runs([4, 3, 5]) == "435"
    assert compress_runs([0, 2000]) == "0`n1"
    # From the fourth run on the difference to the run two before: 3 - 7 = -4 -> 0b11100.
    assert compress_runs([1, 7, 2, 3]) == "172L"
    assert encode_mask(mask_of("..#.", ".#..", ".#..")) == {"size": [3, 4], "counts": "435"}


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (13, 31), (64, 200)])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_round_trip(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    rle = encode_mask(mask)
    assert np.array_equal(decode_mask(rle), mask)
    assert np.array_equal(decode_mask({"size": shape, "counts": mask_runs(mask)}), mask)
    assert decompress_runs(rle["counts"]) == mask_runs(mask)


def test_decoding_does_not_transpose() -> None:
    mask = decode_mask({"size": [2, 3], "counts": [2, 2, 2]})
    assert np.array_equal(mask, mask_of(".#.", ".#."))


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [6, -2]},
        {"size": [2, 2], "counts": "4`"},
        {"size": [2, 2], "counts": "\x7f"},
        {"size": [3, 2], "counts": "4"},
    ],
)
def test_runs_that_fit_no_mask_are_refused(rle: dict) -> None:
    with pytest.raises(ValueError, match=r"runs sum|cut off|no character"):
        decode_mask(rle)


def test_polygon_fills_pixels_whose_centre_is_inside() -> None:
    square = [[1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0]]
    assert np.array_equal(
        polygons_to_mask(square, 4, 5), mask_of(".....", ".##..", ".##..", ".....")
    )
    # The diagonal runs through the centres of its pixels; those below it are inside.
    triangle = [[0.0, 0.0, 0.0, 4.0, 4.0, 4.0]]
    filled = polygons_to_mask(triangle, 4, 4)
    assert np.array_equal(np.tril(filled), filled)
    assert filled[np.tril_indices(4, -1)].all()


def test_polygon_orientation_and_order_do_not_matter() -> None:
    points = np.array([[2.3, 1.1], [8.7, 3.2], [6.4, 9.9], [1.2, 7.5]])
    forward = polygons_to_mask([points.reshape(-1).tolist()], 12, 12)
    backward = polygons_to_mask([points[::-1].reshape(-1).tolist()], 12, 12)
    assert forward.sum() > 30
    assert np.array_equal(forward, backward)
    mirrored = polygons_to_mask([points[:, ::-1].reshape(-1).tolist()], 12, 12)
    assert np.array_equal(mirrored, forward.T)


def test_polygons_beyond_the_image_are_cut_and_parts_are_joined() -> None:
    beyond = [-5.0, -5.0, 2.0, -5.0, 2.0, 50.0, -5.0, 50.0]
    corner = [3.0, 0.0, 4.0, 0.0, 4.0, 1.0, 3.0, 1.0]
    assert np.array_equal(polygons_to_mask([beyond, corner], 2, 4), mask_of("##.#", "##.."))


@pytest.mark.parametrize("polygon", [[0, 0, 1, 1], [0, 0, 1, 1, 2, 2, 3], [0, 0, 1, 1, 2, 1e999]])
def test_polygon_without_an_area_is_refused(polygon: list[float]) -> None:
    with pytest.raises(ValueError, match="polygon"):
        polygons_to_mask([polygon], 4, 4)
