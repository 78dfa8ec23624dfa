"""The drawn world's nouns: glyphs of DejaVu Sans, which matplotlib ships on every system.

A stamp is one object before it is tinted: where its ink is, and its body, the ink with its holes
filled. Filled holes make every patch inside an object show the object's colour, and make the mask
one solid shape.

Shapes: h, w rows and columns of a stamp in image px.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vista.errors import UserError

# Code points chosen by eye: these glyphs can be distinguished at 16 px.
NOUNS: dict[str, int] = {
    "airplane": 0x2708,
    "anchor": 0x2693,
    "ankh": 0x2625,
    "arrow": 0x27A1,
    "atom": 0x269B,
    "bolt": 0x26A1,
    "bowtie": 0x29D3,
    "castle": 0x265C,
    "cat": 0x1F431,
    "cloud": 0x2601,
    "clover": 0x2618,
    "cow": 0x1F42E,
    "cross": 0x2716,
    "crown": 0x265B,
    "cup": 0x2615,
    "diamond": 0x2666,
    "dice": 0x2684,
    "dollar": 0x24,
    "drum": 0x26C3,
    "envelope": 0x2709,
    "face": 0x263B,
    "finger": 0x261A,
    "flag": 0x2691,
    "flask": 0x2697,
    "flower": 0x273F,
    "gear": 0x2699,
    "glasses": 0x221E,
    "hand": 0x270C,
    "headphones": 0x260A,
    "heart": 0x2665,
    "horse": 0x265E,
    "house": 0x2302,
    "key": 0x26B7,
    "keyboard": 0x2328,
    "knot": 0x2318,
    "leaf": 0x2766,
    "lily": 0x269C,
    "medal": 0x2720,
    "mirror": 0x2640,
    "monkey": 0x1F435,
    "moon": 0x263E,
    "mouse": 0x1F42D,
    "music": 0x266B,
    "pencil": 0x270F,
    "plus": 0x271A,
    "radiation": 0x2622,
    "recycling": 0x267B,
    "scales": 0x2696,
    "scissors": 0x2702,
    "skull": 0x2620,
    "snowflake": 0x2744,
    "snowman": 0x2603,
    "spade": 0x2660,
    "sparkle": 0x2726,
    "star": 0x2605,
    "sun": 0x2600,
    "sword": 0x2694,
    "telephone": 0x260E,
    "tick": 0x2714,
    "triangle": 0x25B2,
    "trident": 0x2646,
    "umbrella": 0x2602,
    "urn": 0x26B1,
    "wheelchair": 0x267F,
}

# Pixels of the large drawing that stamps are reduced from.
_LARGE = 192
# Parts smaller than this share of a glyph's largest part are left out.
_SPECK = 0.03


@dataclass(frozen=True, eq=False)
class Stamp:
    """An object of one size: `ink_hw` and `body_hw` are coverages 0..1, `mask_hw` its pixels."""

    ink_hw: NDArray[np.float32]
    body_hw: NDArray[np.float32]
    mask_hw: NDArray[np.bool_]

    @property
    def width(self) -> int:
        """Width in image px; the mask touches all four sides."""
        return int(self.mask_hw.shape[1])

    @property
    def height(self) -> int:
        """Height in image px."""
        return int(self.mask_hw.shape[0])


class StampLibrary(Protocol):
    """What scenes are made of: nouns, and stamps of a noun at a size."""

    nouns: tuple[str, ...]

    def pick(self, noun: str, pool: str, rng: np.random.Generator) -> int:
        """Which of the noun's variants to draw; `pool` is "train" or "test"."""
        ...

    def stamp(self, noun: str, variant: int, size: int) -> Stamp:
        """The noun's variant with a longer side of `size` px."""
        ...


class GlyphLibrary:
    """Glyphs: one variant a noun, the same in every split."""

    nouns: tuple[str, ...] = tuple(sorted(NOUNS))

    def __init__(self) -> None:
        self._font = _load_font()
        self._large: dict[str, tuple[Image.Image, Image.Image]] = {}
        self._stamps: dict[tuple[str, int], Stamp] = {}

    def pick(self, noun: str, pool: str, rng: np.random.Generator) -> int:
        """Always 0: a glyph has one shape."""
        return 0

    def stamp(self, noun: str, variant: int, size: int) -> Stamp:
        """The glyph with a longer side of `size` px."""
        key = (noun, size)
        if key not in self._stamps:
            if noun not in self._large:
                self._large[noun] = _draw_large(self._font, NOUNS[noun])
            self._stamps[key] = reduce_stamp(*self._large[noun], size)
        return self._stamps[key]


def reduce_stamp(ink: Image.Image, body: Image.Image, size: int) -> Stamp:
    """Resample a large drawing and cut it to its mask's box, `size` px on its longer side.

    A mask that grows by several pixels at once may stay a pixel or two short of `size`.
    """
    # Thin tips fade when they are reduced: enlarge until the mask itself is `size` px long.
    best: Stamp | None = None
    longest = 0
    for side in range(size, 2 * size + 1):
        scale = side / max(ink.size)
        target = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
        ink_hw, body_hw = (
            np.asarray(part.resize(target, Image.Resampling.BOX), dtype=np.float32) / 255.0
            for part in (ink, body)
        )
        mask_hw = body_hw >= 0.5
        rows, columns = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
        if rows.size == 0:
            continue
        cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        if longest < max(mask_hw[cut].shape) <= size:
            best = Stamp(ink_hw[cut], body_hw[cut], mask_hw[cut])
            longest = max(best.width, best.height)
        if longest == size:
            break
    if best is None:
        raise ValueError(f"an object fades away at {size} px: it is too thin")
    return best


@lru_cache(maxsize=1)
def font_path() -> Path:
    """The DejaVu Sans file inside the installed matplotlib."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    if not path.is_file():
        raise UserError(f"{path} is missing: reinstall matplotlib, whose font draws the scenes")
    return path


def _load_font() -> ImageFont.FreeTypeFont:
    # The basic layout engine is in every Pillow; the other one depends on system libraries.
    return ImageFont.truetype(str(font_path()), _LARGE, layout_engine=ImageFont.Layout.BASIC)


def _draw_large(font: ImageFont.FreeTypeFont, code_point: int) -> tuple[Image.Image, Image.Image]:
    from scipy import ndimage

    canvas = Image.new("L", (2 * _LARGE, 2 * _LARGE), 0)
    ImageDraw.Draw(canvas).text((_LARGE // 2, _LARGE // 4), chr(code_point), font=font, fill=255)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font has no glyph for U+{code_point:04X}")
    ink = canvas.crop(box)
    ink_hw = np.asarray(ink)
    # Keep the parts that count: a snowman without its flakes. One pixel of slack for soft edges.
    parts_hw, _ = ndimage.label(ndimage.binary_fill_holes(ink_hw >= 128))
    areas = np.bincount(parts_hw.reshape(-1))[1:]
    solid_hw = np.isin(parts_hw, 1 + np.flatnonzero(areas >= _SPECK * areas.max()))
    ink_hw = np.where(ndimage.binary_dilation(solid_hw), ink_hw, 0).astype(np.uint8)
    body_hw = np.maximum(ink_hw, np.where(solid_hw, 255, 0)).astype(np.uint8)
    ink, body = Image.fromarray(ink_hw), Image.fromarray(body_hw)
    cut = body.getbbox()
    return ink.crop(cut), body.crop(cut)
