"""Drawn scenes and their texts: objects, places, captions, questions, documents.

No pixels are drawn here, and only the stamps' sizes are read, so a language corpus is cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np

from vista.config.drawn import Colour, DrawnData, Ground
from vista.data.glyphs import StampLibrary

COLOURS: tuple[str, ...] = get_args(Colour)
GROUNDS: tuple[str, ...] = get_args(Ground)
PLACES: tuple[str, ...] = (
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
DESCRIBE = "describe the scene ."

# A patch word names the object that covers at least this share of the patch.
PATCH_COVER = 0.35
# Empty pixels between two objects.
_GAP = 1
_TRIES = 2000


@dataclass(frozen=True)
class SceneObject:
    """One object: what, which variant and size of it, and its box in px."""

    noun: str
    colour: str
    variant: int
    size: int
    x: int
    y: int
    width: int
    height: int
    place: str

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x, y, width, height) in px."""
        return (float(self.x), float(self.y), float(self.width), float(self.height))


@dataclass(frozen=True)
class Scene:
    """A ground and up to three objects, in reading order."""

    ground: str
    objects: tuple[SceneObject, ...]
    target: int  # index of the object that the second turn asks about
    ask_colour: bool  # it asks for the object's colour, else for what is at the object's place

    @property
    def caption(self) -> str:
        """E.g. "a red cat at top left and a blue anchor at bottom on grass ."."""
        phrases = " and ".join(
            f"{'an' if o.colour[0] in 'aeiou' else 'a'} {o.colour} {o.noun} at {o.place}"
            for o in self.objects
        )
        return f"{phrases or 'nothing'} on {self.ground} ."

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """(question, answer) pairs, the description first."""
        if not self.objects:
            return ((DESCRIBE, self.caption),)
        target = self.objects[self.target]
        if self.ask_colour:
            second = (f"what color is the {target.noun} ?", target.colour)
        else:
            second = (f"what is at {target.place} ?", target.noun)
        return ((DESCRIBE, self.caption), second)


def sample_scene(
    rng: np.random.Generator, settings: DrawnData, library: StampLibrary, pool: str
) -> Scene:
    """Draw the content of one scene: objects of different nouns and places that do not overlap."""
    grounds, palette = settings.grounds or GROUNDS, settings.colours or COLOURS
    if settings.objects == "nothing":
        return Scene(grounds[rng.integers(len(grounds))], (), 0, False)
    count = 1 + int(rng.choice(3, p=np.asarray(settings.object_counts)))
    count = min(count, len(library.nouns))
    nouns = [library.nouns[i] for i in rng.choice(len(library.nouns), count, replace=False)]
    colours = [palette[i] for i in rng.integers(len(palette), size=count)]
    variants = [library.pick(noun, pool, rng) for noun in nouns]
    ground = grounds[rng.integers(len(grounds))]
    sizes = settings.object_sizes
    for attempt in range(_TRIES):
        # Three large objects do not always fit: the largest sizes are dropped after many tries.
        allowed = sizes[: max(1, len(sizes) - attempt // 50)]
        objects = _place(rng, settings, allowed, nouns, colours, variants, library)
        if objects is not None:
            break
    else:
        raise ValueError(
            f"{count} objects of {sizes[0]} px found no room in {settings.image_size} px"
        )
    objects.sort(key=lambda o: PLACES.index(o.place))
    return Scene(ground, tuple(objects), int(rng.integers(count)), bool(rng.random() < 0.5))


def _place(
    rng: np.random.Generator,
    settings: DrawnData,
    sizes: list[int],
    nouns: list[str],
    colours: list[str],
    variants: list[int],
    library: StampLibrary,
) -> list[SceneObject] | None:
    """Put each object into the middle of a square cell of its own; None if two cells overlap."""
    # One call for all random numbers of a try: most of the time goes into failed tries.
    draws = rng.random((len(nouns), 3)).tolist()
    side = settings.image_size
    cells: list[tuple[int, int, int]] = []
    objects: list[SceneObject] = []
    for noun, colour, variant, (u, v, w) in zip(nouns, colours, variants, draws, strict=True):
        size = sizes[int(u * len(sizes))]
        stamp = library.stamp(noun, variant, size)
        places = (side - size) // settings.align + 1
        left, top = settings.align * int(v * places), settings.align * int(w * places)
        width, height = stamp.width, stamp.height
        x0 = min(max(0, left + (size - width) // 2), side - width)
        y0 = min(max(0, top + (size - height) // 2), side - height)
        place = place_name(x0 + width / 2, y0 + height / 2, side)
        for (x, y, other_size), other in zip(cells, objects, strict=True):
            gap = 0 if settings.align > 1 else _GAP
            apart = (
                left >= x + other_size + gap
                or x >= left + size + gap
                or top >= y + other_size + gap
                or y >= top + size + gap
            )
            if not apart or place == other.place:
                return None
        cells.append((left, top, size))
        objects.append(SceneObject(noun, colour, variant, size, x0, y0, width, height, place))
    return objects


def place_name(x: float, y: float, side: int) -> str:
    """The name of the ninth of the image that a point lies in."""
    column = min(int(3 * x / side), 2)
    row = min(int(3 * y / side), 2)
    return PLACES[3 * row + column]


def patch_words(
    rng: np.random.Generator, scene: Scene, settings: DrawnData, nouns: tuple[str, ...]
) -> list[str]:
    """One word a patch, row-major: noun or colour of the object there, else the ground.

    A share of the words is swapped for random ones, so that a reader learns to weigh the whole
    grid and not to trust one patch.
    """
    side, grid = settings.image_size, settings.text_grid
    words = [scene.ground] * grid**2
    for item in scene.objects:
        covered = covered_patches(item, side, grid)
        order = rng.permutation(len(covered))
        named = rng.random(len(covered)) < settings.noun_share
        # Every object shows its noun somewhere, and its colour if it has a second patch.
        named[order[0]] = True
        if len(covered) > 1:
            named[order[1]] = False
        for patch, by_noun in zip(covered, named, strict=True):
            words[patch] = item.noun if by_noun else item.colour
    vocabulary = (*nouns, *COLOURS, *GROUNDS)
    for i in np.flatnonzero(rng.random(len(words)) < settings.noise_share):
        words[i] = vocabulary[rng.integers(len(vocabulary))]
    return words


def covered_patches(item: SceneObject, side: int, grid: int) -> list[int]:
    """The patches that an object's box mostly covers, or else the one that it covers most."""
    # In units of 1 / grid of a pixel all is whole: patch k spans [k * side, (k + 1) * side).
    spans = []
    for start, length in ((item.x, item.width), (item.y, item.height)):
        low, high = start * grid, (start + length) * grid
        spans.append([max(0, min(high, (k + 1) * side) - max(low, k * side)) for k in range(grid)])
    area = [cover_r * cover_c for cover_r in spans[1] for cover_c in spans[0]]
    mostly = [p for p, covered in enumerate(area) if covered >= PATCH_COVER * side**2]
    return mostly or [max(range(len(area)), key=area.__getitem__)]


def documents(
    settings: DrawnData, library: StampLibrary, seeds: Iterator[np.random.Generator]
) -> Iterator[str]:
    """Documents of the language corpus, one for each generator in `seeds`.

    A document is fields parted by tabs. Even ones open with a field of patch words (if the settings
    want `image_openings`) and go on with question, answer, question, answer, exactly as a prompt
    does after an image; odd ones are the prompt's text alone, as the text control reads it.
    """
    for i, rng in enumerate(seeds):
        scene = sample_scene(rng, settings, library, "train")
        fields = [text for turn in scene.turns for text in turn]
        if i % 2 == 0 and settings.image_openings:
            fields.insert(0, " ".join(patch_words(rng, scene, settings, library.nouns)))
        yield "\t".join(fields)
