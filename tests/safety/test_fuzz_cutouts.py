"""Cut-outs, grounds and maps that are damaged: read, or told in a sentence that names the file."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.composed_scenes import composed, write_cutouts
from tests.safety.mutations import damaged_files, fuzz, mutated_bytes, read_or_told
from vista.data.cutouts import CutoutLibrary, Ground, GroundLibrary, choose_photographs


def picture(mode: str, kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
def test_damaged_cutouts(tmp_path: Path, mode: str, kind: str) -> None:
    content = picture(mode, kind)
    library = CutoutLibrary(tmp_path, 8)
    numbers = iter(range(10**6))

    def check(rng: random.Random) -> None:
        name = f"{next(numbers)}.png"
        (tmp_path / name).write_bytes(mutated_bytes(rng, content))
        with read_or_told(name):
            cutout = library.cutout(name)
            assert cutout.mode == "RGBA"
            assert 1 <= min(cutout.size) <= max(cutout.size) <= 8

    fuzz(f"cut-out {mode} {kind}", check)


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "PNG"), ("L", "JPEG"), ("RGB", "WEBP")])
def test_damaged_grounds(tmp_path: Path, mode: str, kind: str) -> None:
    content = picture(mode, kind)
    numbers = iter(range(10**6))

    def check(rng: random.Random) -> None:
        path = tmp_path / f"{next(numbers)}.png"
        path.write_bytes(mutated_bytes(rng, content))
        with read_or_told(path.name):
            library = GroundLibrary([], 8, 0.5)
            piece = library.piece(Ground(None, path, None), np.random.default_rng(0))
            assert (piece.mode, piece.size) == ("RGB", (8, 8))

    fuzz(f"ground {mode} {kind}", check)


def test_damaged_maps(tmp_path: Path) -> None:
    path = write_cutouts(tmp_path, {"cat": 3, "owl": 2})
    settings = composed(tmp_path)
    for content in damaged_files(path.read_bytes(), "map of cut-outs"):
        path.write_bytes(content)
        with read_or_told("map.json", "scenes", "nouns", "cutouts"):
            chosen = choose_photographs(settings, tmp_path / "cutouts")
            for noun, names in chosen.held_out.items():
                assert not set(names) & set(chosen.seen[noun])
