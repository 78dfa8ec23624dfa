"""Properties of the pixel-to-patch mapping that hold for every image and grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from vista.data.geometry import ImageGeometry
from vista.data.masks import decode_mask, encode_mask, polygons_to_mask
from vista.encoders.pooling import pool_tokens

geometries = st.builds(
    lambda width, height, patch, count, rest, fit, pool: ImageGeometry(
        width,
        height,
        patch * count + min(rest, patch - 1),
        patch,
        fit,
        pool=None if pool is None else min(pool, count),
    ),
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    patch=st.integers(2, 16),
    count=st.integers(1, 9),
    rest=st.integers(0, 3),
    fit=st.sampled_from(["pad", "crop"]),
    pool=st.none() | st.integers(1, 9),
)


@st.composite
def boxes(draw: st.DrawFn, geometry: ImageGeometry) -> tuple[float, float, float, float]:
    """A box of whole or broken px inside the image."""
    units = st.integers(0, 16)
    x0, x1 = sorted((draw(units), draw(units)))
    y0, y1 = sorted((draw(units), draw(units)))
    sx, sy = geometry.width / 16, geometry.height / 16
    return x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy


def seen_part(
    geometry: ImageGeometry, box: tuple[float, float, float, float]
) -> tuple[float, float, float, float] | None:
    """What is left of a box (x0, y0, x1, y1 in image px) after cropping; None if nothing."""
    rows, columns = geometry.grid
    (sx, sy), (ox, oy) = geometry.scale, geometry.offset
    x0 = max(box[0], -ox / sx)
    y0 = max(box[1], -oy / sy)
    x1 = min(box[0] + box[2], (columns * geometry.step - ox) / sx)
    y1 = min(box[1] + box[3], (rows * geometry.step - oy) / sy)
    if (x1 - x0) * sx < 1e-3 or (y1 - y0) * sy < 1e-3:
        return None
    return x0, y0, x1, y1


@given(st.data())
def test_box_to_patches_to_box_covers_the_box_tightly(data: st.DataObject) -> None:
    geometry = data.draw(geometries)
    box = data.draw(boxes(geometry))
    touched = np.flatnonzero(geometry.box_to_patches(box))
    seen = seen_part(geometry, box)
    if seen is None:
        return
    back = np.array([geometry.patch_to_box(int(p)) for p in touched])
    assert len(back) > 0
    x0, y0 = back[:, 0].min(), back[:, 1].min()
    x1, y1 = (back[:, 0] + back[:, 2]).max(), (back[:, 1] + back[:, 3]).max()
    slack = 1e-6
    patch_w, patch_h = back[0, 2], back[0, 3]
    assert seen[0] - patch_w - slack <= x0 <= seen[0] + slack
    assert seen[1] - patch_h - slack <= y0 <= seen[1] + slack
    assert seen[2] - slack <= x1 <= seen[2] + patch_w + slack
    assert seen[3] - slack <= y1 <= seen[3] + patch_h + slack
    # The patches form a full rectangle.
    rows, columns = np.unravel_index(touched, geometry.grid)
    assert len(touched) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


@given(st.data(), st.integers(1, 3))
def test_the_tokens_of_a_patch_share_its_place(data: st.DataObject, per_patch: int) -> None:
    """Box -> tokens -> box, where several tokens stand at each patch, one after another."""
    plain = data.draw(geometries)
    several = replace(plain, per_patch=per_patch)
    box, mask_hw = data.draw(boxes(plain)), np.zeros((plain.height, plain.width), dtype=bool)
    mask_hw[: 1 + plain.height // 2] = True
    assert several.grid[0] * several.grid[1] == several.n_patches == per_patch * plain.n_patches
    for overlap in (0.0, 0.5):
        touched = np.flatnonzero(plain.box_to_patches(box, overlap))
        tokens = np.flatnonzero(several.box_to_patches(box, overlap))
        assert tokens.tolist() == [p * per_patch + i for p in touched for i in range(per_patch)]
        back = [several.patch_to_box(int(t)) for t in tokens]
        assert back == [plain.patch_to_box(int(t) // per_patch) for t in tokens]
    cover = several.mask_to_patches(mask_hw).reshape(-1, per_patch)
    assert (cover == plain.mask_to_patches(mask_hw)[:, None]).all()


@given(st.data())
def test_pooled_patches_are_patches_of_their_size(data: st.DataObject) -> None:
    """9 x 9 patches of 4 px in 4 x 4 cells lie as 4 x 4 patches of 9 px do."""
    width, height = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 120))
    side, fit = data.draw(st.integers(1, 9)), data.draw(st.sampled_from(["pad", "crop"]))
    cells = data.draw(st.integers(1, side))
    pooled = ImageGeometry(width, height, side * cells, cells, fit, pool=cells)
    large = ImageGeometry(width, height, side * cells, side, fit)
    assert pooled.grid == large.grid == (cells, cells)
    seed = data.draw(st.integers(0, 2**32 - 1))
    mask_hw = np.random.default_rng(seed).random((height, width)) < 0.4
    assert (pooled.mask_to_patches(mask_hw) == large.mask_to_patches(mask_hw)).all()
    box = data.draw(boxes(large))
    for overlap in (0.0, 0.5):
        assert (pooled.box_to_patches(box, overlap) == large.box_to_patches(box, overlap)).all()
    for p in range(large.n_patches):
        assert pooled.patch_to_box(p) == large.patch_to_box(p)
    if side % cells == 0:
        # The cover of a mask is averaged as the tokens are.
        plain = replace(pooled, pool=None).mask_to_patches(mask_hw)
        averaged = pool_tokens(torch.from_numpy(plain).float()[None, :, None], cells)
        np.testing.assert_allclose(averaged[0, :, 0], pooled.mask_to_patches(mask_hw), atol=1e-5)


@given(st.data())
def test_a_patch_maps_to_itself(data: st.DataObject) -> None:
    geometry = data.draw(geometries)
    p = data.draw(st.integers(0, geometry.n_patches - 1))
    touched = np.flatnonzero(geometry.box_to_patches(geometry.patch_to_box(p))).tolist()
    # A patch of padding alone is no part of the image, so that no box of it touches it.
    whole = geometry.mask_to_patches(np.ones((geometry.height, geometry.width), dtype=bool))
    assert touched == ([p] if whole[p] > 1e-6 else [])


@given(st.data())
def test_no_box_touches_padding(data: st.DataObject) -> None:
    geometry = data.draw(geometries)
    left, top = (data.draw(st.floats(-200, 200)) for _ in range(2))
    width, height = (data.draw(st.floats(0, 400)) for _ in range(2))
    whole = geometry.mask_to_patches(np.ones((geometry.height, geometry.width), dtype=bool))
    for overlap in (0.0, 0.5):
        touched = geometry.box_to_patches((left, top, width, height), overlap)
        assert (whole[touched] > 1e-9).all()


@given(st.data())
def test_mask_and_box_agree(data: st.DataObject) -> None:
    geometry = data.draw(geometries)
    x0, x1 = sorted(data.draw(st.integers(0, geometry.width)) for _ in range(2))
    y0, y1 = sorted(data.draw(st.integers(0, geometry.height)) for _ in range(2))
    mask_hw = np.zeros((geometry.height, geometry.width), dtype=np.bool_)
    mask_hw[y0:y1, x0:x1] = True
    shares = geometry.mask_to_patches(mask_hw)
    touched = geometry.box_to_patches((x0, y0, x1 - x0, y1 - y0))
    assert ((shares > 0) >= touched).all()
    assert (touched >= (shares > 1e-6)).all()
    assert shares.min() >= 0
    assert shares.max() <= 1 + 1e-9
    half = geometry.box_to_patches((x0, y0, x1 - x0, y1 - y0), 0.5)
    assert (half == (shares >= 0.5 - 1e-6)).all() or np.isclose(shares, 0.5, atol=1e-5).any()


@given(st.data())
def test_padding_loses_no_area(data: st.DataObject) -> None:
    geometry = data.draw(geometries.filter(lambda g: g.fit == "pad" and g.size % g.patch == 0))
    seed = data.draw(st.integers(0, 2**32 - 1))
    mask_hw = np.random.default_rng(seed).random((geometry.height, geometry.width)) < 0.4
    area = geometry.mask_to_patches(mask_hw).sum() * geometry.step**2
    sx, sy = geometry.scale
    assert np.isclose(area, mask_hw.sum() * sx * sy)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_masks_survive_the_codec(height: int, width: int, share: float, seed: int) -> None:
    mask_hw = np.random.default_rng(seed).random((height, width)) < share
    assert np.array_equal(decode_mask(encode_mask(mask_hw)), mask_hw)


@given(st.lists(st.floats(-10, 40), min_size=6, max_size=6))
def test_a_triangle_fills_what_lies_inside_it(points: list[float]) -> None:
    """Against the sign of the three cross products at every pixel centre."""
    corners = np.array(points).reshape(3, 2)
    mask_hw = polygons_to_mask([points], 30, 30)
    x, y = np.meshgrid(np.arange(30) + 0.5, np.arange(30) + 0.5)
    sides = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        sides.append((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]))
    signed = np.array(sides)
    inside = (signed > 1e-6).all(axis=0) | (signed < -1e-6).all(axis=0)
    outside = (signed > 1e-6).any(axis=0) & (signed < -1e-6).any(axis=0)
    assert mask_hw[inside].all()
    assert not mask_hw[outside].any()
