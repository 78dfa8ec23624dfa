"""Cut-outs and grounds: what is chosen, what is held out, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.composed_scenes import composed, write_cutouts
from vista.config.composed import GroundSource
from vista.data.cutouts import (
    CutoutLibrary,
    Ground,
    GroundLibrary,
    choose_photographs,
    list_grounds,
    read_map,
)
from vista.errors import UserError


def choose(folder: Path, counts: dict[str, int], **changes: Any) -> Any:
    write_cutouts(folder, counts)
    return choose_photographs(composed(folder, **changes), folder / "cutouts")


def test_no_photograph_is_both_seen_and_held_out(tmp_path: Path) -> None:
    chosen = choose(tmp_path, {"cat": 6, "owl": 2, "scissors": 1}, held_out_share=0.34)
    assert {noun: len(files) for noun, files in chosen.seen.items()} == {
        "cat": 4,
        "owl": 1,
        "scissors": 1,
    }
    assert {noun: len(files) for noun, files in chosen.held_out.items()} == {"cat": 2, "owl": 1}
    for noun, files in chosen.held_out.items():
        assert not set(files) & set(chosen.seen[noun])
        assert len(set(files) | set(chosen.seen[noun])) == {"cat": 6, "owl": 2}[noun]


def test_a_large_share_leaves_a_photograph_to_learn_from(tmp_path: Path) -> None:
    chosen = choose(tmp_path, {"cat": 3, "owl": 2}, held_out_share=0.99)
    assert {noun: len(files) for noun, files in chosen.seen.items()} == {"cat": 1, "owl": 1}


def test_what_is_held_out_depends_on_the_seed_and_on_no_other_noun(tmp_path: Path) -> None:
    counts = {"cat": 9, "owl": 2, "scissors": 2}
    whole = choose(tmp_path, counts).held_out
    less = choose(tmp_path, counts, nouns=["owl", "cat"]).held_out
    assert less == {noun: whole[noun] for noun in ("cat", "owl")}
    assert choose(tmp_path, counts, seed=1).held_out != whole


def test_a_photograph_that_is_there_twice_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else it could be seen and held out."""
    path = write_cutouts(tmp_path, {"cat": 3, "owl": 2})
    folder = tmp_path / "cutouts"
    for name in ("again.png", "cat/once more.png"):
        shutil.copyfile(folder / "cat/0.png", folder / name)
    nouns = json.loads(path.read_text())
    path.write_text(json.dumps({**nouns, "again.png": "cat", "cat/once more.png": "cat"}))
    chosen = choose_photographs(composed(tmp_path), folder)
    names = (*chosen.seen["cat"], *chosen.held_out["cat"])
    assert sorted(names) == ["again.png", "cat/1.png", "cat/2.png"]
    assert "'cat/0.png' is left out: it is 'again.png' again" in capsys.readouterr().err
    path.write_text(json.dumps({**nouns, "again.png": "owl"}))
    with pytest.raises(UserError, match=r"'again\.png' .*are the same photograph: leave one out"):
        choose_photographs(composed(tmp_path), folder)


def test_copies_do_not_make_a_noun_of_two_photographs(tmp_path: Path) -> None:
    path = write_cutouts(tmp_path, {"cat": 2, "owl": 2, "scissors": 1})
    folder = tmp_path / "cutouts"
    shutil.copyfile(folder / "scissors/0.png", folder / "scissors/1.png")
    path.write_text(json.dumps({**json.loads(path.read_text()), "scissors/1.png": "scissors"}))
    chosen = choose_photographs(composed(tmp_path, min_photographs=2), folder)
    assert list(chosen.seen) == ["cat", "owl"]


def test_without_held_out_scenes_no_photograph_is_kept_out(tmp_path: Path) -> None:
    scenes = {"train": 1, "validation": 1, "test": 1, "held_out": 0}
    chosen = choose(tmp_path, {"cat": 3, "owl": 1}, scenes=scenes)
    assert len(chosen.seen["cat"]) == 3
    assert chosen.held_out == {}


def test_nouns_with_few_photographs_are_left_out(tmp_path: Path) -> None:
    chosen = choose(tmp_path, {"cat": 2, "owl": 2, "scissors": 1}, min_photographs=2)
    assert list(chosen.seen) == ["cat", "owl"]


@pytest.mark.parametrize(
    ("counts", "changes", "message"),
    [
        ({"cat": 2}, {"nouns": ["dog"]}, r"`nouns` asks for 'dog', of which .*map\.json names no"),
        ({"cat": 1, "owl": 1}, {"min_photographs": 2}, "no noun has 2 photographs"),
        ({"cat": 2}, {}, "scenes of two objects need two nouns, got 1"),
        ({"cat": 2, "owl": 1}, {}, r"scenes\.held_out is 6, but 1 of 2 nouns"),
        ({"cat": 1, "owl": 1}, {"pair_share": 0}, r"scenes\.held_out is 6, but 0 of 2 nouns"),
    ],
)
def test_a_choice_without_photographs_is_refused(
    tmp_path: Path, counts: dict[str, int], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        choose(tmp_path, counts, **changes)


@pytest.mark.parametrize(
    ("name", "message"),
    [("cat/9.png", r"map\.json names 'cat/9\.png', but .* is missing"), ("../x.png", "leads out")],
)
def test_a_file_of_the_map_must_be_in_the_folder(tmp_path: Path, name: str, message: str) -> None:
    path = write_cutouts(tmp_path, {"cat": 2, "owl": 2})
    (tmp_path / "x.png").touch()
    path.write_text(json.dumps({**json.loads(path.read_text()), name: "cat"}))
    with pytest.raises(UserError, match=message):
        choose_photographs(composed(tmp_path), tmp_path / "cutouts")
    with pytest.raises(UserError, match=r"is no folder: `cutouts\.folder`"):
        choose_photographs(composed(tmp_path), tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "object at its top"),
        ("{}", "is empty"),
        ('{"a.png": 1}', r"'a\.png' has 1 for its noun"),
        ('{"a.png": " "}', "for its noun"),
        ("{", "not JSON"),
    ],
)
def test_a_map_that_is_none_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_map(tmp_path / "map.json")


def test_a_map_of_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_cutouts(tmp_path, {"cat": 1})
    monkeypatch.setattr("vista.data.cutouts.MAX_MAP", path.stat().st_size - 1)
    with pytest.raises(UserError, match="no map of cut-outs"):
        read_map(path)


def test_a_cutout_is_cropped_to_its_object_and_reduced(tmp_path: Path) -> None:
    write_cutouts(tmp_path, {"cat": 1})
    assert CutoutLibrary(tmp_path / "cutouts", 100).cutout("cat/0.png").size == (23, 23)
    reduced = CutoutLibrary(tmp_path / "cutouts", 10).cutout("cat/0.png")
    assert (reduced.mode, reduced.size) == ("RGBA", (10, 10))


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_alpha_of_other_modes_counts(tmp_path: Path, mode: str) -> None:
    if mode == "LA":
        image = Image.new("LA", (9, 9), (0, 0))
        image.paste((80, 255), (2, 3, 6, 5))
        image.save(tmp_path / "a.png")
    else:
        image = Image.new("P", (9, 9), 0)
        image.putpalette([0, 0, 0, 80, 80, 80])
        image.paste(1, (2, 3, 6, 5))
        image.save(tmp_path / "a.png", transparency=0)
    cutout = CutoutLibrary(tmp_path, 20).cutout("a.png")
    assert cutout.size == (4, 2)
    assert np.array_equal(np.asarray(cutout), np.full((2, 4, 4), (80, 80, 80, 255)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (4, 4)), "has no alpha channel: cut the object out"),
        (Image.new("RGBA", (4, 4), (1, 2, 3, 255)), "is opaque everywhere"),
        (Image.new("RGBA", (4, 4), (1, 2, 3, 90)), "is transparent everywhere"),
        (Image.new("RGBA", (40, 40)), "has 40x40 px, more than 1,000: reduce it"),
        (b"no image", "none of PNG, WEBP"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "cannot be read as an image"),
    ],
)
def test_what_is_no_cutout_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Image.Image | bytes, message: str
) -> None:
    monkeypatch.setattr("vista.data.cutouts.MAX_PIXELS", 1000)
    if isinstance(image, bytes):
        (tmp_path / "a.png").write_bytes(image)
    else:
        image.save(tmp_path / "a.png")
    with pytest.raises(UserError, match=message) as raised:
        CutoutLibrary(tmp_path, 20).cutout("a.png")
    assert str(tmp_path / "a.png") in str(raised.value)


def test_a_folder_of_grounds_is_all_its_photographs(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "png")
    sources = [GroundSource(folder="f", name="grass"), GroundSource(colour=(1, 2, 3))]
    assert list_grounds(sources, [tmp_path, None]) == [
        Ground("grass", tmp_path / "a.JPG", None),
        Ground("grass", tmp_path / "b.png", None),
        Ground(None, None, (1, 2, 3)),
    ]
    with pytest.raises(UserError, match="holds no photograph"):
        list_grounds(sources, [tmp_path / "elsewhere", None])


def test_a_piece_of_a_ground_is_a_square_of_it(tmp_path: Path) -> None:
    """Left half black, right half white: pieces are of different places and sizes, and turned."""
    wide = np.zeros((40, 400, 3), np.uint8)
    wide[:, 200:] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    ground = Ground(None, tmp_path / "wide.png", None)
    library = GroundLibrary([ground], 20, 0.5)
    rng = np.random.default_rng(0)
    pieces = [np.asarray(library.piece(ground, rng)) for _ in range(40)]
    assert {piece.shape for piece in pieces} == {(20, 20, 3)}
    white = np.array([piece.mean() / 255 for piece in pieces])
    # The outer parts of a panorama are not used, so the edge is in most pieces.
    assert ((white > 0.02) & (white < 0.98)).mean() > 0.3
    starts = [int(piece[0, 0, 0] > 127) - int(piece[0, -1, 0] > 127) for piece in pieces]
    assert {-1, 1} <= set(starts)


def test_a_plain_ground_draws_as_many_numbers_as_a_photograph(tmp_path: Path) -> None:
    Image.new("L", (50, 40), 99).save(tmp_path / "grey.png")
    library = GroundLibrary([], 20, 0.5)
    after = []
    for ground in (Ground(None, tmp_path / "grey.png", None), Ground(None, None, (99, 99, 99))):
        rng = np.random.default_rng(5)
        assert np.array_equal(np.asarray(library.piece(ground, rng)), np.full((20, 20, 3), 99))
        after.append(rng.random())
    assert after[0] == after[1]
