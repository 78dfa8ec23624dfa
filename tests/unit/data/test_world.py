"""The drawn world: what is written, and that it is told truly."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vista.config.drawn import DrawnData
from vista.data.digits import DigitLibrary
from vista.data.glyphs import NOUNS, GlyphLibrary
from vista.data.images import ImageSource
from vista.data.readers.coco import coco_records
from vista.data.records import Record, decode_mask
from vista.data.scenes import (
    COLOURS,
    DESCRIBE,
    GROUNDS,
    PLACES,
    covered_patches,
    documents,
    patch_words,
    place_name,
    sample_scene,
)
from vista.data.skipped import Skipped
from vista.data.source import world_as_coco
from vista.data.world import GROUND_COLOURS, INKS, draw_world

SMALL = DrawnData.model_validate(
    {
        "scenes": {"train": 60, "validation": 20, "test": 40},
        "documents": {"train": 200, "heldout": 50},
    }
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    draw_world(SMALL, out, seed=3)
    return out


@pytest.fixture(scope="module")
def records(world: Path) -> list[Record]:
    return list(coco_records(world_as_coco(world), Skipped()))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_settings_same_bytes(world: Path, tmp_path: Path) -> None:
    draw_world(SMALL, tmp_path, seed=3)
    assert digests(tmp_path) == digests(world)
    other = tmp_path / "other"
    draw_world(SMALL, other, seed=4)
    assert not set(digests(other).values()) & set(digests(world).values())


def test_more_scenes_do_not_change_those_there_were(world: Path, tmp_path: Path) -> None:
    more = SMALL.model_copy(update={"scenes": SMALL.scenes.model_copy(update={"train": 70})})
    draw_world(more, tmp_path, seed=3)
    before, after = digests(world / "images"), digests(tmp_path / "images")
    assert before.items() <= after.items()
    assert len(after) == len(before) + 10


def test_splits_share_no_scene(world: Path, records: list[Record]) -> None:
    images = digests(world / "images")
    assert len(images) == 120
    assert len(set(images.values())) == 120
    layouts: dict[str, set[object]] = {}
    for record in records:
        layouts.setdefault(record.split, set()).add(layout_key(record))
    assert [len(layouts[split]) for split in ("train", "validation", "test")] == [60, 20, 40]
    assert not layouts["train"] & layouts["test"]
    assert not layouts["train"] & layouts["validation"]
    assert not layouts["validation"] & layouts["test"]


def layout_key(record: Record) -> tuple[object, ...]:
    return (record.captions, tuple((o.category, o.box) for o in record.objects))


def test_masks_are_the_objects_pixels(world: Path, records: list[Record]) -> None:
    """Inside a mask pixels have the object's tint, right outside they are ground."""
    source = ImageSource(world / "images")
    for record in records:
        pixels = np.asarray(source.open(record), dtype=np.float64)
        objects_hw = np.zeros((48, 48), dtype=int)
        words = record.captions[0].split()
        ground = np.array(GROUND_COLOURS[words[-2]])
        for item in record.objects:
            assert item.rle is not None
            mask_hw = decode_mask(item.rle)
            rows, columns = np.flatnonzero(mask_hw.any(1)), np.flatnonzero(mask_hw.any(0))
            assert item.box == (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)
            objects_hw += mask_hw
            # A box of its own: objects touch nobody else's box.
            colour = words[words.index(item.category) - 1]
            tints = np.array(INKS[colour]) * 0.96
            distance = np.abs(pixels[mask_hw][:, None] - tints[None]).max(axis=-1).min(axis=1)
            far = np.abs(pixels[mask_hw] - ground).max(axis=-1)
            assert np.mean(distance < far) > 0.75, (record.path, item.category)
        assert objects_hw.max() == 1
        clear = ~_grow(objects_hw > 0, 2)
        assert np.abs(pixels[clear] - ground).max(axis=-1).mean() < 20


def _grow(mask_hw: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        padded = np.pad(mask_hw, 1)
        mask_hw = (
            padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2]
        ) | padded[1:-1, 2:]
    return mask_hw


def test_captions_tell_objects_places_and_ground(records: list[Record]) -> None:
    for record in records:
        words = record.captions[0].split()
        assert words[-1] == "."
        assert words[-2] in GROUNDS
        assert len(record.objects) <= 3
        for item in record.objects:
            at = words.index(item.category)
            assert words[at - 1] in COLOURS
            assert words[at - 2] == ("an" if words[at - 1] == "orange" else "a")
            place = place_name(
                item.box.x + item.box.width / 2, item.box.y + item.box.height / 2, 48
            )
            assert words[at + 1] == "at"
            assert words[at + 2 : at + 2 + len(place.split())] == place.split()
        assert record.turns[0].question == DESCRIBE
        assert record.turns[0].answer == record.captions[0]
        total = [*DESCRIBE.split(), *words, *record.turns[1].question.split()]
        assert len(total) + len(record.turns[1].answer.split()) <= 36


def test_second_turns_are_answered_truly(records: list[Record]) -> None:
    asked: Counter[str] = Counter()
    for record in records:
        words = record.captions[0].split()
        question, answer = record.turns[1].question.split(), record.turns[1].answer
        if question[:3] == ["what", "color", "is"]:
            assert answer == words[words.index(question[4]) - 1]
            asked["colour"] += 1
        else:
            place = " ".join(question[3:-1])
            assert question[:3] == ["what", "is", "at"]
            assert place in PLACES
            assert f"{answer} at {place} " in record.captions[0]
            asked["object"] += 1
    assert min(asked["colour"], asked["object"]) > 30


def test_files_are_in_the_formats_they_claim(world: Path) -> None:
    content = json.loads((world / "annotations" / "instances_test.json").read_text())
    assert {"images", "annotations", "categories"} == set(content)
    assert len(content["categories"]) == 64
    for item in content["annotations"]:
        assert item["area"] == decode_mask(item["segmentation"]).sum()
    rows = json.loads((world / "annotations" / "llava_test.json").read_text())
    assert all(row["conversations"][0]["value"].startswith("<image>\n") for row in rows)
    with Image.open(world / "images" / rows[0]["image"]) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (48, 48))


def test_half_of_the_documents_open_with_patch_words(world: Path) -> None:
    known = {*NOUNS, *COLOURS, *GROUNDS}
    for name, count in (("train", 200), ("heldout", 50)):
        lines = (world / "text" / f"{name}.txt").read_text().splitlines()
        assert len(lines) == count
        for i, line in enumerate(lines):
            words = line.split()
            start = words.index("describe")
            assert start == (36 if i % 2 == 0 else 0)
            assert set(words[:start]) <= known
            fields = line.split("\t")
            # Question, answer, question, answer; before them a field of patch words, or none.
            assert len(fields) == (5 if i % 2 == 0 else 4)
            assert fields[-4] == DESCRIBE
            assert fields[-3].endswith(" .")
            assert fields[-2].endswith(" ?")
    train = set((world / "text" / "train.txt").read_text().splitlines())
    heldout = (world / "text" / "heldout.txt").read_text().splitlines()
    with_grid = [line for line in heldout if not line.startswith("describe")]
    assert not train & set(with_grid)


def test_no_document_opens_with_patch_words_where_none_shall() -> None:
    unseen = SMALL.model_copy(update={"image_openings": False})
    texts = [
        list(documents(settings, GlyphLibrary(), map(np.random.default_rng, range(10))))
        for settings in (SMALL, unseen)
    ]
    assert all(text.startswith(DESCRIBE) for text in texts[1])
    # The scenes and what is said of them are the same.
    assert [text.split("\t")[-4:] for text in texts[0]] == [text.split("\t") for text in texts[1]]
    assert "image_openings" not in SMALL.model_dump()


def test_patch_words_lie_where_the_object_lies() -> None:
    quiet = SMALL.model_copy(update={"noise_share": 0.0})
    library = GlyphLibrary()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, quiet, library, "train")
        words = patch_words(rng, scene, quiet, library.nouns)
        assert len(words) == 36
        taken: set[int] = set()
        for item in scene.objects:
            covered = covered_patches(item, 48, 6)
            assert not taken & set(covered)
            taken |= set(covered)
            said = {words[p] for p in covered}
            assert item.noun in said
            assert said <= {item.noun, item.colour}
            assert (item.colour in said) == (len(covered) > 1)
            for p in covered:
                row, column = divmod(p, 6)
                assert item.y < 8 * row + 8 and 8 * row < item.y + item.height
                assert item.x < 8 * column + 8 and 8 * column < item.x + item.width
        assert {words[p] for p in set(range(36)) - taken} == {scene.ground}


def test_scenes_fit_and_keep_apart() -> None:
    library = GlyphLibrary()
    counts: Counter[int] = Counter()
    for seed in range(400):
        scene = sample_scene(np.random.default_rng(seed), SMALL, library, "train")
        counts[len(scene.objects)] += 1
        used = np.zeros((48, 48), dtype=int)
        for item in scene.objects:
            assert 0 <= item.x <= 48 - item.width
            assert 0 <= item.y <= 48 - item.height
            assert 15 <= max(item.width, item.height) <= 24
            used[item.y : item.y + item.height, item.x : item.x + item.width] += 1
        assert used.max() == 1
        assert len({item.noun for item in scene.objects}) == len(scene.objects)
        assert len({item.place for item in scene.objects}) == len(scene.objects)
    for count, share in zip((1, 2, 3), SMALL.object_counts, strict=True):
        assert abs(counts[count] / 400 - share) < 0.08


def test_nouns_are_single_words_that_mean_one_thing() -> None:
    small_words = ["a", "an", "and", "at", "on", "what", "is", "the", "color", "describe", "scene"]
    other = {*COLOURS, *GROUNDS, *" ".join(PLACES).split(), *small_words}
    for noun in NOUNS:
        assert noun.isalpha() and noun.islower()
        assert noun not in other
    assert len(set(NOUNS.values())) == len(NOUNS) == 64


def test_glyphs_are_told_apart() -> None:
    """No two stamps are nearly the same picture, and none fades away."""
    library = GlyphLibrary()
    views = []
    for noun in library.nouns:
        for size in (16, 24):
            stamp = library.stamp(noun, 0, size)
            assert size - 1 <= max(stamp.width, stamp.height) <= size
            assert stamp.mask_hw.sum() >= 0.12 * size**2, noun
        canvas = np.zeros((24, 24))
        y, x = (24 - stamp.height) // 2, (24 - stamp.width) // 2
        canvas[y : y + stamp.height, x : x + stamp.width] = stamp.ink_hw + stamp.body_hw
        views.append(canvas.reshape(-1) / np.linalg.norm(canvas))
    alike = np.array(views) @ np.array(views).T
    np.fill_diagonal(alike, 0)
    assert alike.max() < 0.96


def test_test_scenes_show_digits_that_training_never_shows() -> None:
    library = DigitLibrary()
    for noun in library.nouns:
        train, test = set(library.pools[noun, "train"]), set(library.pools[noun, "test"])
        assert not train & test
        assert len(train) > 2 * len(test) > 60
    settings = SMALL.model_copy(update={"objects": "digits"})
    for pool in ("train", "test"):
        for seed in range(40):
            scene = sample_scene(np.random.default_rng(seed), settings, library, pool)
            for item in scene.objects:
                assert item.variant in library.pools[item.noun, pool]


def test_a_world_of_digits(tmp_path: Path) -> None:
    settings = DrawnData.model_validate(
        {
            "objects": "digits",
            "scenes": {"train": 6, "validation": 2, "test": 4},
            "documents": {"train": 4, "heldout": 2},
        }
    )
    draw_world(settings, tmp_path, seed=1)
    records = list(coco_records(world_as_coco(tmp_path), Skipped()))
    assert len(records) == 12
    assert {name for record in records for name in record.categories} <= set(DigitLibrary.nouns)
