"""Draw a world of scenes and write it in the formats that real data comes in.

`images/*.png`, COCO instances and captions, LLaVA conversations, and a language corpus. They are
read like any other data. The same settings give the same bytes.

Shapes: h, w image rows and columns; 3 colour channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.config.data import SPLITS
from vista.config.drawn import DrawnData, Pattern
from vista.data.glyphs import GlyphLibrary, StampLibrary
from vista.data.jsonfile import write_json
from vista.data.masks import encode_mask
from vista.data.scenes import Scene, SceneObject, documents, sample_scene
from vista.errors import UserError
from vista.progress import progress

# Ink and body of each colour: the body (filled holes) is half as bright as the ink.
INKS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "blue": ((110, 140, 255), (55, 70, 127)),
    "cyan": ((80, 235, 240), (40, 117, 120)),
    "green": ((90, 230, 90), (45, 115, 45)),
    "orange": ((255, 165, 60), (127, 82, 30)),
    "purple": ((215, 110, 255), (107, 55, 127)),
    "red": ((255, 80, 80), (127, 40, 40)),
    "white": ((250, 250, 250), (125, 125, 125)),
    "yellow": ((250, 235, 80), (125, 117, 40)),
}
# Mean colour of each ground: dark, so that all eight inks are brighter than all five.
GROUND_COLOURS: dict[str, tuple[int, int, int]] = {
    "grass": (30, 70, 25),
    "sand": (95, 75, 45),
    "stone": (60, 60, 62),
    "water": (20, 45, 90),
    "wood": (85, 45, 30),
}
# Streams of the random generator: a scene depends on (seed, stream, index) and nothing else.
_STREAMS = {"train": 0, "validation": 1, "test": 2, "text_train": 3, "text_heldout": 4}


def draw_world(settings: DrawnData, out_dir: Path, seed: int) -> None:
    """Write the whole world into `out_dir`.

    Files: images/<split>_<index>.png, annotations/{instances,captions,llava}_<split>.json,
    text/{train,heldout}.txt with one document a line.
    """
    library = make_library(settings)
    for folder in ("images", "annotations", "text"):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    first_id = 1
    for split in SPLITS:
        count = getattr(settings.scenes, split)
        _write_split(settings, library, out_dir, seed, split, count, first_id)
        first_id += count
    for split, count in (
        ("train", settings.documents.train),
        ("heldout", settings.documents.heldout),
    ):
        texts = documents(settings, library, _generators(seed, f"text_{split}", count))
        with (out_dir / "text" / f"{split}.txt").open("w", encoding="utf-8") as file:
            for text in progress(texts, total=count, desc=f"{split} text", unit="document"):
                file.write(text + "\n")


def make_library(settings: DrawnData) -> StampLibrary:
    """The objects that the settings ask for."""
    library: StampLibrary
    if settings.objects == "digits":
        from vista.data.digits import DigitLibrary

        library = DigitLibrary()
    else:
        library = GlyphLibrary()
    if settings.nouns is not None:
        first, end = settings.nouns
        if end > len(library.nouns):
            raise UserError(f"nouns: [{first}, {end}], but there are {len(library.nouns)} objects")
        library.nouns = library.nouns[first:end]
    return library


def scene_images(
    settings: DrawnData, library: StampLibrary, seed: int, split: str, count: int
) -> Iterator[tuple[Scene, NDArray[np.uint8]]]:
    """The first `count` scenes of a split and their pixels [h, w, 3]."""
    pool = "test" if split == "test" else "train"
    for rng in _generators(seed, split, count):
        scene = sample_scene(rng, settings, library, pool)
        yield scene, paint(rng, scene, library, settings.image_size, settings.noise)


def split_scenes(
    settings: DrawnData, library: StampLibrary, seed: int, split: str
) -> Iterator[Scene]:
    """The scenes of a split, in the order of its images, without their pixels."""
    pool = "test" if split == "test" else "train"
    for rng in _generators(seed, split, getattr(settings.scenes, split)):
        yield sample_scene(rng, settings, library, pool)


def paint(
    rng: np.random.Generator, scene: Scene, library: StampLibrary, side: int, noise: float = 0.0
) -> NDArray[np.uint8]:
    """The pixels [h, w, 3] of a scene, with `noise` grey levels of standard deviation on each."""
    canvas_hw3 = ground_texture(rng, scene.ground, side)
    for item in scene.objects:
        stamp = library.stamp(item.noun, item.variant, item.size)
        patch = canvas_hw3[item.y : item.y + item.height, item.x : item.x + item.width]
        ink, body = (
            np.asarray(colour, dtype=np.float32) * rng.uniform(0.92, 1.0)
            for colour in INKS[item.colour]
        )
        patch += stamp.body_hw[..., None] * (body - patch)
        patch += stamp.ink_hw[..., None] * (ink - patch)
    if noise:
        canvas_hw3 += noise * rng.standard_normal(canvas_hw3.shape, dtype=np.float32)
    return np.clip(np.rint(canvas_hw3), 0, 255).astype(np.uint8)


def ground_texture(rng: np.random.Generator, ground: str, side: int) -> NDArray[np.float32]:
    """A ground [h, w, 3]: its mean colour and a faint pattern of its own, or a loud pattern."""
    if ground in get_args(Pattern):
        return _pattern(rng, ground, side)
    noise_hw = rng.standard_normal((side, side)).astype(np.float32)
    rows = np.arange(side, dtype=np.float32)[:, None]
    columns = np.arange(side, dtype=np.float32)[None, :]
    phase = np.float32(rng.uniform(0, 2 * np.pi))
    if ground == "grass":  # upright blades
        pattern_hw = _smooth(noise_hw, axis=0, reach=5) * 14
    elif ground == "sand":  # fine grains
        pattern_hw = noise_hw * 7
    elif ground == "stone":  # soft blotches
        pattern_hw = _smooth(_smooth(noise_hw, axis=0, reach=5), axis=1, reach=5) * 26
    elif ground == "water":  # level waves
        pattern_hw = 8 * np.sin(rows * np.float32(0.9) + np.sin(columns / 6 + phase) * 2) + (
            2 * noise_hw
        )
    elif ground == "wood":  # long level grain
        pattern_hw = _smooth(noise_hw, axis=1, reach=9) * 22
    else:
        raise ValueError(f"no texture for {ground!r}")
    colour = np.asarray(GROUND_COLOURS[ground], dtype=np.float32) * np.float32(
        rng.uniform(0.95, 1.05)
    )
    return (colour[None, None] + pattern_hw[..., None]).astype(np.float32)


def _pattern(rng: np.random.Generator, pattern: str, side: int) -> NDArray[np.float32]:
    """Two random colours [h, w, 3] in checks, stripes or dots of random size; or plain noise."""
    if pattern == "static":
        return rng.uniform(0, 255, (side, side, 3)).astype(np.float32)
    colours_23 = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    period = int(rng.integers(3, 9))
    rows, columns = np.indices((side, side)) + int(rng.integers(period))
    second_hw: NDArray[Any]
    if pattern == "checks":
        second_hw = (rows // period + columns // period) % 2
    elif pattern == "stripes":
        second_hw = (rows * int(rng.integers(2)) + columns) // period % 2
    else:
        middle = period - 1
        second_hw = (rows % (2 * period) - middle) ** 2 + (columns % (2 * period) - middle) ** 2 < (
            0.7 * period
        ) ** 2
    return colours_23[second_hw.astype(np.intp)]


def _smooth(values_hw: NDArray[np.float32], axis: int, reach: int) -> NDArray[np.float32]:
    total = values_hw.copy()
    for shift in range(1, reach):
        total += np.roll(values_hw, shift, axis=axis)
    return (total / reach).astype(np.float32)


def _generators(seed: int, stream: str, count: int) -> Iterator[np.random.Generator]:
    for index in range(count):
        yield np.random.default_rng([seed, _STREAMS[stream], index])


def _write_split(
    settings: DrawnData,
    library: StampLibrary,
    out_dir: Path,
    seed: int,
    split: str,
    count: int,
    first_id: int,
) -> None:
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    conversations: list[dict[str, Any]] = []
    category = {noun: i + 1 for i, noun in enumerate(library.nouns)}
    drawn = scene_images(settings, library, seed, split, count)
    for i, (scene, pixels) in enumerate(
        progress(drawn, total=count, desc=f"{split} scenes", unit="image")
    ):
        image_id, name = first_id + i, f"{split}_{i:06d}"
        Image.fromarray(pixels).save(out_dir / "images" / f"{name}.png")
        side = settings.image_size
        images.append({"id": image_id, "file_name": f"{name}.png", "width": side, "height": side})
        for j, item in enumerate(scene.objects):
            mask_hw = object_mask(item, library, side)
            instances.append(
                {
                    "id": 10 * image_id + j,
                    "image_id": image_id,
                    "category_id": category[item.noun],
                    "bbox": [item.x, item.y, item.width, item.height],
                    "area": int(mask_hw.sum()),
                    "iscrowd": 0,
                    "segmentation": encode_mask(mask_hw),
                }
            )
        captions.append({"id": image_id, "image_id": image_id, "caption": scene.caption})
        conversations.append(
            {"id": name, "image": f"{name}.png", "conversations": _conversation(scene)}
        )
    categories = [{"id": number, "name": noun} for noun, number in category.items()]
    folder = out_dir / "annotations"
    write_json(
        folder / f"instances_{split}.json",
        {"images": images, "annotations": instances, "categories": categories},
    )
    write_json(folder / f"captions_{split}.json", {"images": images, "annotations": captions})
    write_json(folder / f"llava_{split}.json", conversations)


def object_mask(item: SceneObject, library: StampLibrary, side: int) -> NDArray[np.bool_]:
    """The object's exact pixels as a mask over the image [h, w]."""
    mask_hw = np.zeros((side, side), dtype=np.bool_)
    stamp = library.stamp(item.noun, item.variant, item.size)
    mask_hw[item.y : item.y + item.height, item.x : item.x + item.width] = stamp.mask_hw
    return mask_hw


def _conversation(scene: Scene) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    for i, (question, answer) in enumerate(scene.turns):
        turns.append({"from": "human", "value": question if i else f"<image>\n{question}"})
        turns.append({"from": "gpt", "value": answer})
    return turns
