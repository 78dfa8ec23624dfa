"""Stamps out of scikit-learn's 1,797 scans of handwritten digits.

The scans (8x8 px, 16 grey levels, from the UCI "Optical Recognition of Handwritten Digits" set)
ship inside scikit-learn. The last quarter of each class is kept for the test split.

Shapes: h, w rows and columns of a stamp in image px.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from vista.data.glyphs import Stamp, reduce_stamp

NOUNS: tuple[str, ...] = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)
HELD_OUT = 0.25
_LARGE = 128
# Grey levels (of 255) that count as no ink and as full ink: sharpens the enlarged scans.
_PAPER, _FULL = 60, 150


class DigitLibrary:
    """Scanned digits: a variant is the index of a scan; "train" and "test" pools are disjoint."""

    nouns: tuple[str, ...] = NOUNS

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        scans = load_digits()
        self._scans_nhw = np.asarray(scans.images, dtype=np.float64) * (255 / 16)
        self._large: dict[int, Image.Image] = {}
        self._stamps: dict[tuple[int, int], Stamp] = {}
        self.pools: dict[tuple[str, str], tuple[int, ...]] = {}
        for digit, noun in enumerate(NOUNS):
            indices = [int(i) for i in np.flatnonzero(np.asarray(scans.target) == digit)]
            kept = round(len(indices) * (1 - HELD_OUT))
            self.pools[noun, "train"] = tuple(indices[:kept])
            self.pools[noun, "test"] = tuple(indices[kept:])

    def pick(self, noun: str, pool: str, rng: np.random.Generator) -> int:
        """A random scan of the digit from the pool "train" or "test"."""
        choices = self.pools[noun, pool]
        return choices[rng.integers(len(choices))]

    def stamp(self, noun: str, variant: int, size: int) -> Stamp:
        """The scan with a longer side of `size` px. A digit's body is its ink: holes stay open."""
        key = (variant, size)
        if key not in self._stamps:
            ink = self._enlarged(variant)
            self._stamps[key] = reduce_stamp(ink, ink, size)
        return self._stamps[key]

    def _enlarged(self, variant: int) -> Image.Image:
        if variant not in self._large:
            scan = Image.fromarray(np.rint(self._scans_nhw[variant]).astype(np.uint8))
            grey_hw = np.asarray(
                scan.resize((_LARGE, _LARGE), Image.Resampling.BICUBIC), dtype=np.float64
            )
            ink_hw = np.clip((grey_hw - _PAPER) * (255 / (_FULL - _PAPER)), 0, 255)
            ink = Image.fromarray(np.rint(ink_hw).astype(np.uint8))
            self._large[variant] = ink.crop(ink.getbbox())
        return self._large[variant]
