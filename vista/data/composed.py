"""Compose scenes of cut-out photographs and write them in the formats that real data comes in.

`images/*.png`, COCO instances with run-length masks of the visible part of each object, and COCO
captions. They are read like any other COCO data. The same settings and photographs give the same
bytes.

Shapes: h, w image rows and columns; 3 colour channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.config.composed import ComposedData, placeholders, usable
from vista.config.data import SPLITS
from vista.data.cutouts import (
    OPAQUE,
    CutoutLibrary,
    Ground,
    GroundLibrary,
    choose_photographs,
)
from vista.data.jsonfile import write_json
from vista.data.masks import encode_mask
from vista.data.phrases import is_plural, with_article
from vista.progress import progress

SEEN, HELD_OUT = "seen", "held_out"
# Streams of the random generator: a scene depends on (seed, stream, index) and nothing else.
_STREAMS = {"train": 0, "validation": 1, "test": 2, HELD_OUT: 3}
# A further number of the generator that orders the nouns of a stream.
_ORDER = 1
# Places that two objects are tried at before they are put side by side.
_TRIES = 50

Nouns = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene: the photograph, and what can be seen of it [h, w]."""

    noun: str
    photograph: str
    visible_hw: NDArray[np.bool_]


@dataclass(frozen=True)
class ComposedScene:
    """Pixels [h, w, 3], objects from back to front, and the captions."""

    pixels_hw3: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class _Placed:
    noun: str
    photograph: str
    image: Image.Image
    x: int
    y: int

    @property
    def mask_hw(self) -> NDArray[np.bool_]:
        """The pixels of the object within its own box."""
        alpha_hw = np.asarray(self.image.getchannel("A"))
        # A thin object that was made small may be nowhere half opaque.
        return np.asarray(alpha_hw >= min(OPAQUE, max(1, int(alpha_hw.max()))))

    def over(self, side: int) -> NDArray[np.bool_]:
        """The pixels of the object over the image [h, w]."""
        full_hw = np.zeros((side, side), dtype=np.bool_)
        full_hw[self.y : self.y + self.image.height, self.x : self.x + self.image.width] = (
            self.mask_hw
        )
        return full_hw


def compose_scenes(
    settings: ComposedData, folder: Path, grounds: Sequence[Ground], out_dir: Path
) -> None:
    """Write all scenes into `out_dir`.

    Files: images/<split>_<index>.png and annotations/{instances,captions}_<split>.json. The split
    test ends with the scenes of held-out photographs, named held_out_<index>. Where there are any,
    `vista_group` of its images is "seen" or "held_out".

    Args:
        settings: What is composed.
        folder: The cut-outs.
        grounds: The grounds that the settings name.
        out_dir: An empty folder.

    Raises:
        UserError: A photograph, a noun or the map is not as it must be.
    """
    photographs = choose_photographs(settings, folder)
    composer = Composer(settings, folder, grounds)
    for name in ("images", "annotations"):
        (out_dir / name).mkdir(parents=True, exist_ok=True)
    writer = _Writer(out_dir, settings.image_size, sorted(photographs.seen))
    for split in SPLITS:
        apart = split == "test" and settings.scenes.held_out > 0
        count: int = getattr(settings.scenes, split)
        scenes = composer.scenes(split, photographs.seen, count)
        writer.add(scenes, split, count, SEEN if apart else None)
        if apart:
            count = settings.scenes.held_out
            scenes = composer.scenes(HELD_OUT, photographs.held_out, count)
            writer.add(scenes, HELD_OUT, count, HELD_OUT)
        writer.write(split)


class Composer:
    """Composes scenes of the photographs that it is given."""

    def __init__(self, settings: ComposedData, folder: Path, grounds: Sequence[Ground]) -> None:
        self._settings = settings
        side = settings.image_size
        largest = max(settings.object_scale[1], settings.pair_scale[1])
        # Twice the largest size that it is shown at, since it is reduced once more.
        self._cutouts = CutoutLibrary(folder, math.ceil(2 * largest * side))
        self._grounds = GroundLibrary(grounds, side, settings.ground_scale)

    def scenes(self, stream: str, photographs: Nouns, count: int) -> Iterator[ComposedScene]:
        """The first `count` scenes of a stream. Every noun comes first equally often."""
        seed, nouns = self._settings.seed, sorted(photographs)
        for index in range(count):
            turn, place = divmod(index, len(nouns))
            order = np.random.default_rng([seed, _STREAMS[stream], turn, _ORDER])
            first = nouns[order.permutation(len(nouns))[place]]
            rng = np.random.default_rng([seed, _STREAMS[stream], index])
            yield self._compose(rng, first, photographs)

    def _compose(self, rng: np.random.Generator, first: str, photographs: Nouns) -> ComposedScene:
        settings, side = self._settings, self._settings.image_size
        nouns = [first]
        if rng.random() < settings.pair_share:
            others = [noun for noun in sorted(photographs) if noun != first]
            nouns.append(others[rng.integers(len(others))])
        ground = self._grounds.grounds[rng.integers(len(self._grounds.grounds))]
        canvas = self._grounds.piece(ground, rng)
        placed = self._place(rng, nouns, photographs)
        hidden_hw = np.zeros((side, side), dtype=np.bool_)
        objects: list[SceneObject] = []
        for item in reversed(placed):
            mask_hw = item.over(side)
            objects.insert(0, SceneObject(item.noun, item.photograph, mask_hw & ~hidden_hw))
            hidden_hw |= mask_hw
        for item in placed:
            canvas.paste(item.image, (item.x, item.y), item.image)
        captions = describe(rng, settings, nouns, ground.name)
        return ComposedScene(np.asarray(canvas), tuple(objects), captions)

    def _place(
        self, rng: np.random.Generator, nouns: Sequence[str], photographs: Nouns
    ) -> list[_Placed]:
        """Put the objects anywhere; the second covers little of the first."""
        settings, side = self._settings, self._settings.image_size
        low, high = settings.object_scale if len(nouns) == 1 else settings.pair_scale
        items: list[tuple[str, str, Image.Image]] = []
        longer: list[float] = []
        for noun in nouns:
            name = photographs[noun][int(rng.integers(len(photographs[noun])))]
            image = self._cutouts.cutout(name)
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            items.append((noun, name, image))
            longer.append(side * rng.uniform(low, high))
        images = [_scaled(item[2], size) for item, size in zip(items, longer, strict=True)]
        for _ in range(_TRIES):
            placed = [
                _Placed(
                    noun,
                    name,
                    image,
                    int(rng.integers(side - image.width + 1)),
                    int(rng.integers(side - image.height + 1)),
                )
                for (noun, name, _), image in zip(items, images, strict=True)
            ]
            if len(placed) == 1 or _covered(placed, side) <= settings.max_occlusion:
                return placed
        half = side // 2
        images = [_scaled(image, min(half, low * side)) for _, _, image in items]
        return [
            _Placed(noun, name, image, half * place, (side - image.height) // 2)
            for place, ((noun, name, _), image) in enumerate(zip(items, images, strict=True))
        ]


def _scaled(image: Image.Image, longer: float) -> Image.Image:
    """The cut-out with its longer side `longer` px, rounded down."""
    scale = longer / max(image.size)
    width, height = (max(1, int(side * scale + 1e-6)) for side in image.size)
    # Pillow weighs colours by alpha: no seam of the background that was cut away.
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _covered(placed: Sequence[_Placed], side: int) -> float:
    """The share of the rear one of two objects that the front one covers."""
    rear, front = placed
    rear_hw = rear.over(side)
    return float((rear_hw & front.over(side)).sum() / rear_hw.sum())


def describe(
    rng: np.random.Generator, settings: ComposedData, nouns: Sequence[str], ground: str | None
) -> tuple[str, ...]:
    """Captions of one or two objects on a ground, of different wordings in a random order."""
    wordings = [
        wording
        for wording in settings.captions
        if usable(placeholders(wording), len(nouns) == 1, ground is not None)
    ]
    phrases = [with_article(noun) for noun in nouns]
    order = rng.permutation(len(wordings))[: settings.captions_per_scene]
    words = {
        "object": phrases[0],
        "objects": " and ".join(phrases),
        "is": "are" if is_plural(nouns[0]) else "is",
        "ground": ground,
    }
    return tuple(wordings[place].format_map(words) for place in order)


class _Writer:
    """Writes images at once, and the annotations of a split when it is complete."""

    def __init__(self, out_dir: Path, side: int, nouns: Sequence[str]) -> None:
        self._out_dir = out_dir
        self._side = side
        self._category = {noun: number for number, noun in enumerate(nouns, start=1)}
        self._last_id = 0
        self._clear()

    def _clear(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._instances: list[dict[str, Any]] = []
        self._captions: list[dict[str, Any]] = []

    def add(
        self, scenes: Iterator[ComposedScene], stem: str, count: int, group: str | None
    ) -> None:
        """Write the images of some scenes and note their annotations."""
        shown = progress(scenes, total=count, desc=f"{stem} scenes", unit="image")
        for index, scene in enumerate(shown):
            self._last_id += 1
            name = f"{stem}_{index:06d}.png"
            Image.fromarray(scene.pixels_hw3).save(self._out_dir / "images" / name)
            self._images.append(
                {
                    "id": self._last_id,
                    "file_name": name,
                    "width": self._side,
                    "height": self._side,
                    **({"vista_group": group} if group is not None else {}),
                }
            )
            for place, item in enumerate(scene.objects):
                self._instances.append(self._instance(10 * self._last_id + place, item))
            for place, text in enumerate(scene.captions):
                number = 1000 * self._last_id + place
                self._captions.append({"id": number, "image_id": self._last_id, "caption": text})

    def _instance(self, number: int, item: SceneObject) -> dict[str, Any]:
        rows, columns = np.nonzero(item.visible_hw)
        x, y = int(columns.min()), int(rows.min())
        return {
            "id": number,
            "image_id": self._last_id,
            "category_id": self._category[item.noun],
            "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
            "area": len(rows),
            "iscrowd": 0,
            "segmentation": encode_mask(item.visible_hw),
            "photograph": item.photograph,
        }

    def write(self, split: str) -> None:
        """Write the annotations of a split."""
        folder = self._out_dir / "annotations"
        categories = [{"id": number, "name": noun} for noun, number in self._category.items()]
        write_json(
            folder / f"instances_{split}.json",
            {"images": self._images, "annotations": self._instances, "categories": categories},
        )
        write_json(
            folder / f"captions_{split}.json",
            {"images": self._images, "annotations": self._captions},
        )
        self._clear()
