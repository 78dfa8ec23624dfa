"""`vista show` on latents: planted activations, labels, images; what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from explore_run import NAME, publish_run, write_store
from PIL import Image
from safetensors.numpy import save_file

from tests.published import publish
from vista.cli import main
from vista.errors import UserError
from vista.explore.addresses import find, is_address
from vista.explore.latents import LatentView
from vista.explore.terminal import show_latents


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return publish_run(tmp_path)


def test_an_image_shows_each_latent_at_its_strongest_patch(results: Path) -> None:
    view = LatentView(find(results, f"latents:{NAME}"))
    assert view.active(4, 0) == [(1, 2.0, 0), (2, 1.5, 1)]
    assert view.active(4, 0, token=0) == [(1, 2.0, 0), (2, 0.5, 0)]
    assert view.active(4, 2) == [(1, 4.0, 1)]
    assert view.active(4, 1, token=1) == []
    assert view.reconstruction(4, 0, None) == (1.5, 0.25)
    assert view.reconstruction(4, 0, 1) == (1.0, 0.25)
    assert view.heat_map(4, 2, 1).tolist() == [[3.0, 4.0]]


def shown(results: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["show", f"latents:{NAME}", "--results", str(results), *options]) == 0
    return capsys.readouterr().out


def test_the_table_of_an_image(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(results, capsys, "--image", "cat 1")
    rows = [line.split() for line in text.splitlines() if line.startswith("    4")]
    assert [(row[0], row[1], row[-3], row[-2]) for row in rows] == [
        ("4", "1", "2.000", "0,0"),
        ("4", "2", "1.500", "0,1"),
    ]
    assert rows[0][-1] == "0.667"  # fires in two of three images
    assert "shows cat" in text and "caption: a picture of 0" in text
    # A label is text: no control character reaches the terminal.
    assert "\x1b" not in text and "<b>cat</b>" in text


def test_the_table_of_a_patch(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(results, capsys, "--image", "cat 1", "--patch", "0,1", "--top", "1")
    (row,) = [line.split() for line in text.splitlines() if line.startswith("    4")]
    assert row[1:4] == ["2", "dog", "1.500"]
    assert "active latents 1," in text


def test_a_latent(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(results, capsys, "--latent", "1", "--layer", "4")
    assert "density in text: 0.0200" in text and "a «cat» sat" in text
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("image")) + 2
    top = [line.split() for line in lines[start : start + 2]]
    assert [row[:3] for row in top] == [["3", "4.000", "0,1"], ["cat", "1", "2.000"]]


def test_heat_maps_are_saved(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, options in {
        "image.png": ("--image", "cat 1"),
        "latent.png": ("--latent", "1", "--layer", "4"),
    }.items():
        text = shown(results, capsys, *options, "--save", str(tmp_path / name))
        assert f"Written: {tmp_path / name}" in text
        with Image.open(tmp_path / name) as picture:
            colours = picture.convert("RGB").getcolors(1 << 24)
            assert picture.width > 300 and colours is not None and len(colours) > 50


def test_the_neighbours_of_a_latent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write_sae(work: Path) -> None:
        rows_sd = np.array([[1, 0], [1, 0.1], [1, 1], [0, 1], [-1, 0]], np.float32)
        save_file({"W_dec": rows_sd}, work / "sae.safetensors")

    root = publish_run(tmp_path)
    sae = publish(root, "import_sae/l4-2", write_sae, {"layer": 4})
    publish(root, f"latents/{NAME}-2", write_store, saes=[sae])
    text = show_latents(
        root / f"latents/{NAME}-2",
        image=None, patch=None, latent=0, layer=4, top=None, save=None,
    )  # fmt: skip
    lines = text.splitlines()
    start = lines.index("neighbours by cosine of decoder rows:")
    assert lines[start + 1] == "  1 - 0.99, 2 - 0.71, 3 - 0.00, 4 - -1.00"
    (root / f"latents/{NAME}-2").rename(tmp_path / "aside")
    assert "neighbours" not in shown(root, capsys, "--latent", "1", "--layer", "4")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--image", "none"), "has no image none; it has 3: cat 1, dog 2, 3"),
        (("--image", "3", "--patch", "1,0"), "no patch 1,0: the grid has rows 0..0"),
        (("--image", "3", "--layer", "7"), "has no layer 7; it has [4]"),
        (("--latent", "9", "--layer", "4"), "layer 4 has no latent 9: it has 0..4"),
        (("--latent", "1"), "--latent needs --layer"),
        (("--latent", "1", "--layer", "4", "--image", "3"), "either --image or --latent"),
        (("--latent", "0", "--layer", "4", "--save", "x.png"), "fires at no image"),
        (("--image", "3", "--top", "0"), "--top must be 1 or more"),
        (("--image", "3", "--save", "/no/such/folder/x.png"), "cannot be written"),
        (("--top", "3"), "go with --image or --latent"),
    ],
)
def test_what_cannot_be_shown_is_said(
    results: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str
) -> None:
    assert main(["show", f"latents:{NAME}", "--results", str(results), *options]) == 2
    assert says in capsys.readouterr().err


def test_a_patch_is_two_numbers(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["show", f"latents:{NAME}", "--image", "3", "--patch", "3"])
    assert "argument --patch: '3' is not ROW,COLUMN" in capsys.readouterr().err


def test_what_the_results_lack_is_said(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("records/r-1", "label_latents/l4-1"):
        (results / folder).rename(tmp_path / folder.replace("/", "-"))
    assert "none of these SAEs is labelled" in shown(results, capsys, "--image", "3")
    assert "not labelled in these results" in shown(
        results, capsys, "--latent", "1", "--layer", "4"
    )
    save = ("--save", str(tmp_path / "x.png"))
    arguments = ["show", f"latents:{NAME}", "--results", str(results), "--image", "3", *save]
    assert main(arguments) == 2
    assert "its records are not in these results" in capsys.readouterr().err


def test_addresses(results: Path) -> None:
    assert is_address("latents:a-b") and not is_address("results/latents/a")
    assert not is_address("https://x") and not is_address("latents:../x")
    publish(results, f"latents/{NAME}-2", write_store)
    with pytest.raises(UserError, match=f"several latents:{NAME}"):
        find(results, f"latents:{NAME}")
    assert find(results, f"latents:{NAME}-2").name == f"{NAME}-2"
    # The last report says which one is meant.
    entry = {"folder": f"latents/{NAME}-2"}
    (results / "catalogue.json").write_text(json.dumps({"artifacts": [entry]}))
    assert find(results, f"latents:{NAME}").name == f"{NAME}-2"
    (results / "catalogue.json").write_text("[")
    with pytest.raises(UserError, match="several"):
        find(results, f"latents:{NAME}")
    with pytest.raises(
        UserError, match=f"no finished artifact latents:x; of latents it has {NAME}"
    ):
        find(results, "latents:x")
    with pytest.raises(UserError, match="it has none of stage caption"):
        find(results, "caption:x")


def test_an_address_without_options_prints_the_artifact(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"artifact {NAME}-1" in shown(results, capsys)
