"""One mapping from pixels to patches: hand-made cases and the errors that would go unseen."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vista.data.geometry import ImageGeometry, clip_box, prepare_image


def patches(touched: np.ndarray) -> list[int]:
    return np.flatnonzero(touched).tolist()


def test_box_on_a_square_image() -> None:
    geometry = ImageGeometry(48, 48, 48, 8)
    assert geometry.grid == (6, 6)
    assert patches(geometry.box_to_patches((8, 16, 8, 8))) == [13]
    # One pixel more on either side touches the neighbours.
    assert patches(geometry.box_to_patches((7, 16, 9, 9))) == [12, 13, 18, 19]
    assert patches(geometry.box_to_patches((0, 0, 48, 48))) == list(range(36))
    assert patches(geometry.box_to_patches((8, 16, 0, 8))) == []
    assert patches(geometry.box_to_patches((50, 0, 8, 8))) == []


@pytest.mark.parametrize(
    ("box", "count"),
    [
        # It ends .01 px below the image: the row of padding there is no part of it.
        ((100.0, 400.0, 100.0, 80.01), 6),
        ((100.0, 400.0, 100.0, 80.0), 6),
        ((100.0, 400.0, 100.0, 500.0), 6),
        ((-50.0, -50.0, 60.0, 60.0), 1),
        ((700.0, 0.0, 10.0, 10.0), 0),
        ((0.0, -20.0, 640.0, 20.0), 0),
    ],
)
def test_a_box_beyond_the_image_touches_no_padding(
    box: tuple[float, float, float, float], count: int
) -> None:
    geometry = ImageGeometry(640, 480, 224, 14)
    assert geometry.box_to_patches(box).sum() == count
    assert clip_box((600, 470, 100, 5), 640, 480) == (600, 470, 40, 5)


def test_min_overlap_is_a_share_of_the_patch() -> None:
    geometry = ImageGeometry(48, 48, 48, 8)
    box = (4.0, 0.0, 12.0, 8.0)  # half of patch 0, all of patch 1
    assert patches(geometry.box_to_patches(box)) == [0, 1]
    assert patches(geometry.box_to_patches(box, 0.5)) == [0, 1]
    assert patches(geometry.box_to_patches(box, 0.51)) == [1]
    assert patches(geometry.box_to_patches(box, 1.0)) == [1]


def test_padding_moves_boxes() -> None:
    # 200x100 into 224: 224x112, 56 px of padding above and below, 16 rows of 14 px.
    geometry = ImageGeometry(200, 100, 224, 14)
    assert geometry.offset == (0, 56)
    whole = geometry.box_to_patches((0, 0, 200, 100)).reshape(16, 16)
    assert np.flatnonzero(whole.any(axis=1)).tolist() == list(range(4, 12))
    assert whole[4:12].all()
    # A mapping that forgot the padding would put the image's top into row 0.
    assert patches(geometry.box_to_patches((0, 0, 12.5, 12.5))) == [4 * 16]


def test_crop_cuts_the_sides() -> None:
    geometry = ImageGeometry(200, 100, 224, 14, "crop")
    assert geometry.resized == (448, 224)
    assert geometry.offset == (-112, 0)
    assert patches(geometry.box_to_patches((0, 0, 49, 100))) == []
    assert patches(geometry.box_to_patches((50, 0, 6.25, 6.25))) == [0]


def test_remainder_of_the_input_has_no_patch() -> None:
    geometry = ImageGeometry(384, 384, 384, 14)  # SigLIP so400m: 27 * 14 = 378
    assert geometry.grid == (27, 27)
    assert patches(geometry.box_to_patches((379, 379, 5, 5))) == []


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("size", [(48, 48), (96, 64), (50, 90), (37, 31)])
def test_a_planted_patch_is_found_where_the_encoder_sees_it(
    size: tuple[int, int], fit: str
) -> None:
    """Paint what lies under one patch white: exactly that patch of the model's input is bright."""
    width, height = size
    geometry = ImageGeometry(width, height, 48, 8, fit)  # type: ignore[arg-type]
    for p in (7, 14, 21, 28):
        x, y, w, h = geometry.patch_to_box(p)
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
        inside = np.outer((rows > y) & (rows < y + h), (columns > x) & (columns < x + w))
        if not inside.any():
            continue  # a patch in the padding
        pixels[inside] = 255
        seen = prepare_image(Image.fromarray(pixels), 48, fit, fill=(0, 0, 0))  # type: ignore[arg-type]
        brightness = seen[..., 0].reshape(6, 8, 6, 8).mean(axis=(1, 3)).reshape(-1)
        assert int(brightness.argmax()) == p
        covered = geometry.mask_to_patches(inside)
        assert int(covered.argmax()) == p
        # The silent killer: an encoder that drops a patch for a class token is off by one.
        off_by_one = np.roll(brightness, -1)
        assert int(off_by_one.argmax()) != int(covered.argmax())


def test_mask_shares_are_areas() -> None:
    geometry = ImageGeometry(48, 48, 48, 8)
    mask = np.zeros((48, 48), dtype=bool)
    mask[0:8, 4:10] = True
    shares = geometry.mask_to_patches(mask)
    assert shares[0] == 0.5
    assert shares[1] == 0.25
    assert shares.sum() == 0.75


def test_mask_of_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match="mask of shape"):
        ImageGeometry(48, 40, 48, 8).mask_to_patches(np.zeros((48, 40), dtype=bool))


def test_prepare_image_pads_with_the_fill_and_keeps_ready_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    assert np.array_equal(prepare_image(Image.fromarray(pixels), 48, "pad"), pixels)
    wide = prepare_image(Image.new("RGB", (96, 48), (255, 0, 0)), 48, "pad", fill=(1, 2, 3))
    assert wide.shape == (48, 48, 3)
    assert (wide[:12] == (1, 2, 3)).all()
    assert (wide[36:] == (1, 2, 3)).all()
    assert (wide[12:36] == (255, 0, 0)).all()
    grey = prepare_image(Image.new("L", (10, 10), 7), 20, "crop")
    assert grey.shape == (20, 20, 3)
    assert (grey == 7).all()


def test_impossible_geometry_is_refused() -> None:
    with pytest.raises(ValueError, match="impossible"):
        ImageGeometry(0, 10, 48, 8)
    with pytest.raises(ValueError, match="fit"):
        ImageGeometry(10, 10, 48, 8, "stretch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not in a grid"):
        ImageGeometry(48, 48, 48, 8).patch_to_box(36)
