"""Files of every kind of data, damaged anywhere: all rows are read or told, or one clear error.

VISTA_FUZZ sets the mutations of each format.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safety.mutations import fuzz, mutated_bytes, mutated_json, read_or_told

from vista.config.data import DATA_SETTINGS
from vista.data.images import ImageSource, is_hidden
from vista.data.masks import encode_mask, mask_runs
from vista.data.records import Record, read_records, write_records
from vista.data.skipped import HIDDEN, Skipped
from vista.data.source import iterate_records
from vista.data.tree import SUFFIXES

WHOLE = {"train": 1, "validation": 0, "test": 0}
MASK = np.zeros((8, 10), dtype=bool)
MASK[2:6, 3:7] = True
IMAGES = [
    {"id": i, "file_name": f"{name}.png", "width": 10, "height": 8}
    for i, name in enumerate("abc", 1)
]
OUTLINES = [
    [[1, 2, 6, 2, 6, 7, 1, 7]],
    encode_mask(MASK),
    {"size": [8, 10], "counts": mask_runs(MASK)},
    [],
]
INSTANCES: dict[str, Any] = {
    "info": {"year": 2017},
    "images": IMAGES,
    "categories": [{"id": 1, "name": "cat"}, {"id": 90, "name": "dining table"}],
    "annotations": [
        {"id": i, "image_id": 1 + i % 2, "category_id": 90 if i else 1, "bbox": [3.0, 2, 4, 4.5],
         "iscrowd": 0, "segmentation": outline}
        for i, outline in enumerate(OUTLINES)
    ],
}  # fmt: skip
CAPTIONS: dict[str, Any] = {
    "images": IMAGES,
    "annotations": [{"id": i, "image_id": 1 + i % 3, "caption": f"cat {i}"} for i in range(5)],
}
TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
LLAVA = [{"id": f"r{name}", "image": f"{name}.png", "conversations": TALK} for name in "abca"]


def picture(kind: str = "PNG", mode: str = "RGB", **more: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind, **more)
    return file.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "images"
    root.mkdir()
    for name in "abc":
        (root / f"{name}.png").write_bytes(picture())
    return root


def read(root: Path, skipped: Skipped, **settings: Any) -> list[Record]:
    """The records of some data, written as a table and read back."""
    whole = DATA_SETTINGS.validate_python({"images": str(root), "fractions": WHOLE, **settings})
    records = list(iterate_records(whole, None, None, skipped))
    table = root.parent / "records.parquet"
    assert write_records(table, records) == len(records)
    assert list(read_records(table)) == records
    skipped.write(root.parent / "skipped.parquet")
    return records


def rows_of(text: str, key: str) -> list[Any]:
    """The entries of a COCO file's list, or of several where its key comes twice."""
    lists: list[list[Any]] = []

    def top(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        lists[:] = [value for name, value in pairs if name == key and isinstance(value, list)]
        return dict(pairs)

    json.loads(text, object_pairs_hook=top)  # calls it for the top last
    return [row for rows in lists for row in rows]


def objects_of(text: str) -> list[Any]:
    """Category, box and crowd of each annotation of a COCO file, converted in another way."""
    names = {str(row["id"]).removesuffix(".0"): row["name"] for row in rows_of(text, "categories")}
    return [
        (
            names[str(row["category_id"]).removesuffix(".0")],
            tuple(map(float, row["bbox"])),
            str(row.get("iscrowd")).strip().lower() in ("1", "1.0", "true"),
        )
        for row in rows_of(text, "annotations")
    ]


LENIENT = {"missing_images": "skip", "max_unreadable": 9}


def damaged_json(rng: random.Random, content: Any) -> bytes:
    if rng.random() < 0.25:
        return mutated_bytes(rng, json.dumps(content).encode())
    start = b"\xef\xbb\xbf" if rng.random() < 0.1 else b""
    return start + mutated_json(rng, content).encode()


@pytest.mark.parametrize("kind", ["instances", "captions"])
def test_coco_files(root: Path, kind: str) -> None:
    content = {"instances": INSTANCES, "captions": CAPTIONS}[kind]
    file = root.parent / "annotations.json"

    def check(rng: random.Random) -> None:
        file.write_bytes(damaged_json(rng, content))
        skipped, more = Skipped(), rng.choice([{}, LENIENT])
        with read_or_told("annotations.json", "comes twice", "no Unicode"):
            records = read(root, skipped, kind="coco", files={kind: str(file)}, **more)
            text = file.read_bytes().decode("utf-8-sig")
            images = [row for row in skipped.rows if row[2].startswith("image ")]
            assert len(rows_of(text, "images")) == len(records) + len(images)
            if not images:
                kept = sum(len(each.objects) + len(each.captions) for each in records)
                assert len(rows_of(text, "annotations")) == kept + len(skipped.rows)
            if kind == "instances" and not skipped.rows:
                read_objects = [
                    (each.category, tuple(each.box), each.crowd)
                    for record in records
                    for each in record.objects
                ]
                assert sorted(read_objects) == sorted(objects_of(text))

    fuzz(f"coco {kind}", check)


def test_llava_files(root: Path) -> None:
    file = root.parent / "rows.json"

    def check(rng: random.Random) -> None:
        file.write_bytes(damaged_json(rng, LLAVA))
        skipped, more = Skipped(), rng.choice([{}, LENIENT])
        with read_or_told("rows.json", "comes twice", "no Unicode"):
            records = read(root, skipped, kind="llava", file=str(file), **more)
            rows = json.loads(file.read_bytes().decode("utf-8-sig"))
            assert len(rows) == len(records) + len(skipped.rows)
            assert all(turn.answer for record in records for turn in record.turns)

    fuzz("llava", check)


def test_conversations_over_coco_images(root: Path) -> None:
    file, images = root.parent / "rows.json", root.parent / "annotations.json"

    def check(rng: random.Random) -> None:
        images.write_text(json.dumps(INSTANCES))
        file.write_bytes(damaged_json(rng, LLAVA))
        skipped = Skipped()
        files = {"instances": str(images), "conversations": str(file)}
        with read_or_told("rows.json"):
            records = read(root, skipped, kind="coco", files=files)
            rows = json.loads(file.read_bytes().decode("utf-8-sig"))
            turns = sum(len(record.turns) for record in records)
            assert len(rows) <= turns + len(skipped.rows)

    fuzz("conversations", check)


LIST = "a.png 0\nb.png\t1\n\nc.png -1\n"
NAMES = "cat\nsea_lion\n"


def test_lists_of_images(root: Path) -> None:
    listed, names = root.parent / "list.txt", root.parent / "names.txt"

    def check(rng: random.Random) -> None:
        listed.write_text(LIST)
        names.write_text(NAMES)
        changed = rng.choice([listed, names])
        content = changed.read_bytes()
        if rng.random() < 0.5:
            content = mutated_bytes(rng, content)
        else:
            lines = content.decode().splitlines()
            rng.shuffle(lines)
            odd = rng.choice(
                ["", "\t", "a.png", "a.png 1 ", "a.png\t\t1", "x 1\u2028", "a.png 1.0"]
            )
            lines.insert(rng.randint(0, len(lines)), odd)
            ending = rng.choice(["\n", "\r\n", "\r"])
            content = rng.choice([b"", b"\xef\xbb\xbf"]) + ending.join(lines).encode()
        changed.write_bytes(content)
        skipped, more = Skipped(), rng.choice([{}, LENIENT])
        settings = {"kind": "list", "classes": str(names), "splits": {"test": str(listed)}, **more}
        whole = DATA_SETTINGS.validate_python({"images": str(root), **settings})
        with read_or_told("list.txt", "names.txt", "comes twice", "no Unicode"):
            records = list(iterate_records(whole, None, None, skipped))
            write_records(root.parent / "records.parquet", records)
            text = listed.read_bytes().decode("utf-8-sig").replace("\r", "\n")
            lines = [line for line in text.split("\n") if line.strip()]
            assert len(lines) == len(records) + len(skipped.rows)
            assert all(len(name) < 100 for each in records for name in each.categories)

    fuzz("list", check)


PARTS = [
    "cat", "sea_lion", ".cache", "__MACOSX", "a b", "{x}", "é", "\ufeff", "a\nb", "x" * 200,
    "@eaDir", "caf\udce9",
]  # fmt: skip
FILES = ["1.png", "2.PNG", "._1.png", ".DS_Store", "n.txt", "{1}.png", "a\nb.png", "\udcff.png"]
LINKS = ["..", ".", "cat", "../cat", "1.png", "nowhere.png", "/", "../../outside"]


def plant(rng: random.Random, folder: Path) -> None:
    (folder / "cat").mkdir()
    (folder / "cat" / "0.png").write_bytes(picture())
    for _ in range(rng.randint(1, 6)):
        depth = rng.randint(0, 3)
        place = folder.joinpath(*(rng.choice(PARTS) for _ in range(depth)))
        name = rng.choice(FILES)
        try:
            place.mkdir(parents=True, exist_ok=True)
            if rng.random() < 0.25:
                os.symlink(rng.choice(LINKS), place / rng.choice([*PARTS, "l.png"]))
            else:
                content = picture()
                (place / name).write_bytes(
                    mutated_bytes(rng, content) if rng.random() < 0.2 else content
                )
        except OSError:
            continue  # a link or a file is there already


def test_trees_of_folders(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "3.png").write_bytes(picture())

    def check(rng: random.Random) -> None:
        folder = tmp_path / "images"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        plant(rng, folder)
        skipped = Skipped()
        classes = rng.random() < 0.5
        more = rng.choice([{}, LENIENT])
        with read_or_told(str(folder), "leads out of", "comes twice"):
            records = read(folder, skipped, kind="folder", classes=classes, **more)
            # Walked in another way, without links to folders.
            plain = [
                path.relative_to(folder).as_posix()
                for path in folder.rglob("*")
                if path.suffix.lower() in SUFFIXES and not path.is_dir()
            ]
            counted = {each.path for each in records} | {path for _, path, _ in skipped.rows}
            assert {name for name in plain if not is_hidden(name)} <= counted
            assert all(not is_hidden(each.path) for each in records)
            real = [os.path.realpath(folder / each.path) for each in records]
            assert all(path.startswith(f"{folder.resolve()}/") for path in real)

    fuzz("folder", check)


MEMBERS = {
    "1.png": picture(), "1.txt": b"A cat.", "1.cls": b"0", "2.jpg": picture("JPEG"),
    "2.json": b'{"alt": ["A dog."]}', "d/3.webp": picture("WEBP"), "d/3.txt": b"A\r\nbird.",
}  # fmt: skip


def packed(members: list[tuple[str, bytes]], form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def samples_of(shard: Path) -> dict[str, dict[str, bytes]]:
    """The members of a shard by sample and extension, wherever they stand."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            name = member.name.encode("utf-8", "backslashreplace").decode()
            stem, dot, extension = name.rpartition("/")[2].partition(".")
            content = tar.extractfile(member)
            if stem and dot and content is not None and not is_hidden(name):
                key = name.removesuffix(f".{extension}")
                samples.setdefault(key, {})[extension.lower()] = content.read()
    return samples


def test_tars(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    shard = folder / "s.tar"

    def check(rng: random.Random) -> None:
        members = list(MEMBERS.items())
        form = rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
        repacked = rng.random() < 0.5
        if repacked:
            if rng.random() < 0.5:
                rng.shuffle(members)
            at = rng.randrange(len(members))
            name, content = members[at]
            if rng.random() < 0.5:
                members[at] = (name, mutated_bytes(rng, content))
            elif form != tarfile.USTAR_FORMAT:
                odd = rng.choice(["", ".", "./", "é", "x" * 300, "a\nb", "\udce9", "__MACOSX/"])
                members[at] = (odd + name, content)
            content = packed(members, form)
        else:
            content = mutated_bytes(rng, packed(members, form))
        shard.write_bytes(content)
        skipped = Skipped()
        more = {**rng.choice([{}, LENIENT]), "caption_key": rng.choice([None, "alt"])}
        with read_or_told("s.tar"):
            records = read(folder, skipped, kind="webdataset", **more)
            samples = samples_of(shard)
            # Damage to a tar loses none of its samples without a word.
            assert repacked or sorted(samples) == ["1", "2", "d/3"]
            counted = [record.image_id for record in records]
            counted += [name for name, _, reason in skipped.rows if reason != HIDDEN]
            assert sorted(counted) == sorted(f"s/{key}" for key in samples)
            if more["caption_key"] is None:
                for record in records:
                    text = samples[record.image_id[2:]].get("txt", b"").decode("utf-8-sig")
                    assert "".join(record.captions).split() == text.split()

    fuzz("tar", check)


KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("png", "RGB", {}), ("png", "P", {}), ("png", "LA", {}), ("png", "I;16", {}),
    ("jpeg", "RGB", {}), ("jpeg", "CMYK", {}), ("gif", "P", {}), ("bmp", "RGB", {}),
    ("tiff", "RGB", {}), ("tiff", "L", {"compression": "tiff_lzw"}), ("tiff", "F", {}),
    ("webp", "RGB", {}), ("ppm", "RGB", {}), ("dds", "RGBA", {}), ("avif", "RGB", {}),
    ("ico", "RGBA", {}), ("tga", "RGB", {}), ("jpeg2000", "RGB", {}), ("pcx", "RGB", {}),
    ("sgi", "RGB", {}),
]  # fmt: skip


def test_images(tmp_path: Path) -> None:
    source = ImageSource(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = []
    for kind, mode, more in KINDS:
        try:
            whole.append(picture(kind, mode, **more, exif=exif.tobytes()))
        except (OSError, KeyError, ValueError):
            continue  # this Pillow has no such encoder

    def check(rng: random.Random) -> None:
        content = rng.choice(whole)
        (tmp_path / "i.png").write_bytes(mutated_bytes(rng, content))
        with read_or_told("i.png"):
            annotated = rng.choice([None, (10, 8), (8, 10)])
            (width, height), _ = source.header("i.png", annotated)
            image = source.open(Record("1", "test", "i.png", width, height))
            assert (image.mode, image.size) == ("RGB", (width, height))

    fuzz("image", check)
