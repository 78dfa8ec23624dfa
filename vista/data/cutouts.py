"""Photographs that scenes are composed of: cut-out objects by noun, and grounds.

Shapes: h, w image rows and columns; 3 colour channels.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vista.config.composed import ComposedData, GroundSource
from vista.data.images import ImageSource, UnusableImage, is_hidden
from vista.errors import UserError, reason_of
from vista.foreign.pixels import to_rgb, turned
from vista.foreign.text import one_line, read_json_object

# Pixels of a photograph at most, checked before it is decoded: 4 bytes each are held then.
MAX_PIXELS = 50_000_000
# Bytes of a map from cut-outs to nouns at most.
MAX_MAP = 16 * 2**20
# Bytes of decoded photographs that are kept for further scenes.
_KEPT = 200 * 2**20
# Alpha from which on a pixel belongs to the object.
OPAQUE = 128
_CUTOUT_FORMATS = ("PNG", "WEBP")
_GROUND_FORMATS = ("PNG", "JPEG", "WEBP")
_GROUND_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class Photographs:
    """Paths of the cut-outs of each noun below their folder, all sorted.

    Attributes:
        seen: Those that scenes of all splits are made of; every noun has one at least.
        held_out: Those that only the held-out scenes show; nouns with two or more photographs.
    """

    seen: Mapping[str, tuple[str, ...]]
    held_out: Mapping[str, tuple[str, ...]]


def read_map(path: Path) -> dict[str, str]:
    """The noun of each cut-out, by its path. Raises UserError if the file is no such map."""
    # An unreadable file is refused by what reads it.
    if path.is_file() and path.stat().st_size > MAX_MAP:
        raise UserError(f"{path} has more than {MAX_MAP:,} bytes: it is no map of cut-outs")
    content = read_json_object(path)
    if not content:
        raise UserError(f"{path} is empty: it must map each cut-out's path to its noun")
    nouns = {}
    for name, noun in content.items():
        if not isinstance(noun, str) or not noun.strip():
            raise UserError(f"{path}: {one_line(name)!r} has {one_line(repr(noun))} for its noun")
        nouns[name] = noun.strip()
    return nouns


def choose_photographs(settings: ComposedData, folder: Path) -> Photographs:
    """Divide the photographs of the chosen nouns into seen and held-out ones.

    Files of equal bytes are one photograph. Raises UserError if a noun has no photograph, a
    photograph is not in the folder or has two nouns, no noun is left, or there are too few for
    scenes of two objects or of held-out photographs.
    """
    path = Path(settings.cutouts.map)
    by_noun: dict[str, list[str]] = {}
    for name, noun in sorted(read_map(path).items()):
        by_noun.setdefault(noun, []).append(name)
    for noun in settings.nouns or ():
        if noun not in by_noun:
            raise UserError(
                f"`nouns` asks for {noun!r}, of which {path} names no photograph; leave it out"
            )
    chosen = {noun: by_noun[noun] for noun in settings.nouns or by_noun}
    distinct = _distinct(chosen, path, folder)
    if settings.nouns is None:
        least = settings.min_photographs
        distinct = {noun: names for noun, names in distinct.items() if len(names) >= least}
        if not distinct:
            raise UserError(f"{path}: no noun has {least} photographs; lower `min_photographs`")
    share = settings.held_out_share if settings.scenes.held_out else 0.0
    seen, held_out = {}, {}
    for noun, names in sorted(distinct.items()):
        files = sorted(names, key=lambda name: _drawn_order(settings.seed, name))
        count = min(max(1, round(share * len(files))), len(files) - 1) if share else 0
        seen[noun] = tuple(sorted(files[count:]))
        if count:
            held_out[noun] = tuple(sorted(files[:count]))
    _refuse_few(settings, len(seen), len(held_out))
    return Photographs(seen, held_out)


def _distinct(
    by_noun: Mapping[str, Sequence[str]], path: Path, folder: Path
) -> dict[str, list[str]]:
    """Leave out files that equal another one: a photograph must not be seen and held out."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: `cutouts.folder` must name that of the cut-outs")
    source = ImageSource(folder)
    first: dict[bytes, tuple[str, str]] = {}
    distinct: dict[str, list[str]] = {}
    for noun, names in by_noun.items():
        for name in names:
            content = _digest(source, name, path)
            same, its_noun = first.setdefault(content, (name, noun))
            if its_noun != noun:
                raise UserError(
                    f"{path} names {one_line(same)!r} {its_noun!r} and {one_line(name)!r} "
                    f"{noun!r}, but both are the same photograph: leave one out"
                )
            if same == name:
                distinct.setdefault(noun, []).append(name)
            else:
                print(f"photograph {name!r} is left out: it is {same!r} again", file=sys.stderr)
    return distinct


def _digest(source: ImageSource, name: str, path: Path) -> bytes:
    try:
        with source.locate(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (UnusableImage, OSError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise UserError(
            f"{path} names {one_line(name)!r}, but {reason}: correct the map or `cutouts.folder`"
        ) from error


def _refuse_few(settings: ComposedData, seen: int, held_out: int) -> None:
    needed = 2 if settings.pair_share > 0 else 1
    if seen < needed:
        raise UserError(f"scenes of two objects need two nouns, got {seen}: set `pair_share: 0`")
    if settings.scenes.held_out and held_out < needed:
        raise UserError(
            f"scenes.held_out is {settings.scenes.held_out}, but {held_out} of {seen} nouns have "
            f"the two photographs that it takes to hold one out (needed: {needed} nouns); choose "
            "other nouns, or set `scenes: {held_out: 0}`"
        )


def _drawn_order(seed: int, name: str) -> bytes:
    # By a hash, so that a noun's division does not depend on which other nouns are chosen.
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()


class CutoutLibrary:
    """Opens cut-outs of one folder, cropped to the object and reduced to `longest` px a side."""

    def __init__(self, folder: Path, longest: int) -> None:
        self._folder = folder
        self._longest = longest
        self.cutout: Callable[[str], Image.Image] = lru_cache(_kept(4 * longest**2))(self._open)

    def _open(self, name: str) -> Image.Image:
        """Return the cut-out in RGBA. Raises UserError if it is none."""
        path = self._folder / name
        with _decoding(path, _CUTOUT_FORMATS) as image:
            if not image.has_transparency_data:
                raise UserError(
                    f"{one_line(path)} has no alpha channel: cut the object out, or leave the "
                    "photograph out of the map"
                )
            rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        lowest, highest = (int(value) for value in np.asarray(alpha.getextrema()))
        if lowest == 255 or highest < OPAQUE:
            what = "opaque" if lowest == 255 else "transparent"
            raise UserError(
                f"{one_line(path)} is {what} everywhere: cut the object out, or leave the "
                "photograph out of the map"
            )
        cropped = rgba.crop(alpha.point(lambda value: 255 * (value >= OPAQUE)).getbbox())
        cropped.thumbnail((self._longest, self._longest), Image.Resampling.LANCZOS)
        return cropped


@dataclass(frozen=True)
class Ground:
    """A photograph, or a plain colour, with what captions call it."""

    name: str | None
    file: Path | None
    colour: tuple[int, int, int] | None


def list_grounds(sources: Sequence[GroundSource], places: Sequence[Path | None]) -> list[Ground]:
    """The grounds of the settings; `places` has the path of each file or folder, None for colours.

    Raises UserError if a folder holds no photograph.
    """
    grounds: list[Ground] = []
    for source, place in zip(sources, places, strict=True):
        if source.folder is None or place is None:
            grounds.append(Ground(source.name, place, source.colour))
            continue
        files = _photographs(place) if place.is_dir() else []
        if not files:
            raise UserError(
                f"`grounds` names the folder {place}, which holds no photograph (PNG, JPEG, "
                "WebP); correct it"
            )
        grounds += [Ground(source.name, file, None) for file in files]
    return grounds


def _photographs(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _GROUND_SUFFIXES and path.is_file() and not is_hidden(path.name)
    )


class GroundLibrary:
    """Square pieces of grounds, `side` px wide."""

    def __init__(self, grounds: Sequence[Ground], side: int, smallest: float) -> None:
        self.grounds = list(grounds)
        self._side = side
        self._smallest = smallest
        # A piece of the smallest share then has `side` px or nearly all that the file has.
        self._shorter = round(side / smallest)
        # Panoramas are cropped to two squares.
        keep = _kept(6 * self._shorter**2)
        self._photograph: Callable[[Path], Image.Image] = lru_cache(keep)(self._open)

    def piece(self, ground: Ground, rng: np.random.Generator) -> Image.Image:
        """A piece of the ground in RGB, of random place and size, mirrored at random."""
        # The same number of draws for each ground: what is drawn later does not depend on it.
        size, left, top, mirror = rng.random(4)
        if ground.file is None:
            return Image.new("RGB", (self._side, self._side), ground.colour)
        image = self._photograph(ground.file)
        shorter = min(image.size)
        width = max(1, round(shorter * (self._smallest + size * (1 - self._smallest))))
        x, y = int(left * (image.width - width + 1)), int(top * (image.height - width + 1))
        piece = image.resize(
            (self._side, self._side), Image.Resampling.LANCZOS, (x, y, x + width, y + width)
        )
        return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror < 0.5 else piece

    def _open(self, path: Path) -> Image.Image:
        with _decoding(path, _GROUND_FORMATS) as image:
            rgb = to_rgb(turned(image))
        shorter = min(rgb.size)
        # The middle of a panorama, so that a long one does not take memory without bound.
        width, height = (min(side, 2 * shorter) for side in rgb.size)
        x, y = (rgb.width - width) // 2, (rgb.height - height) // 2
        rgb = rgb.crop((x, y, x + width, y + height))
        if shorter > self._shorter:
            scale = self._shorter / shorter
            rgb = rgb.resize(
                (round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.LANCZOS
            )
        return rgb


def _kept(size: int) -> int:
    """The photographs of `size` bytes that are kept in memory."""
    return max(1, _KEPT // size)


@contextmanager
def _decoding(path: Path, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Open a photograph and decode it.

    Raises UserError if it is none, or has more than MAX_PIXELS.
    """
    try:
        # Not by its path: see ImageSource.
        with path.open("rb") as file, Image.open(file, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(
                    f"{one_line(path)} has {image.width}x{image.height} px, more than "
                    f"{MAX_PIXELS:,}: reduce it"
                )
            image.load()
            yield image
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many types on damaged files
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"it is none of {', '.join(formats)}" if unknown else reason_of(error)
        raise UserError(f"{one_line(path)} cannot be read as an image ({reason})") from error
