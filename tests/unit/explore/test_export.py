"""An export holds what the server answers, byte by byte, and replaces nothing but an export."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs the extra `explore`")

from explored_run import IDS, LATENTS, RECORDS, SECRET, explored, run_to_explore

from tests.published import publish
from vista.cli import main
from vista.engine.artifacts import open_artifact
from vista.errors import UserError
from vista.explore.export import MARKER, export
from vista.explore.finished import Finished
from vista.explore.page_files import page_files
from vista.sae.top_table import write_top


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_explore(tmp_path_factory.mktemp("run"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("link", [False, True])
def test_an_export_is_what_the_server_answers(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], link: bool
) -> None:
    target = tmp_path / "site"
    export(Finished(results), target, link=link)
    written = files_of(target)
    with explored(results) as client:
        client.enter()
        for name, content in written.items():
            answer = client.ask(f"/{name}")
            if name == "catalogue.json":
                live, still = json.loads(answer.body), json.loads(content)
                assert (live.pop("live"), still.pop("live")) == (True, False)
                assert live == still
            elif name != MARKER:
                assert (answer.status, answer.body) == (200, content), name
    folder = RECORDS.partition("/")[2]
    for size in ("images", "thumbs"):
        held = {name for name in written if name.startswith(f"{size}/")}
        assert held == {f"{size}/{folder}/{row}.png" for row in range(len(IDS))}
    assert {name for name in written if "/" not in name} == {
        *(*page_files(), "catalogue.json", MARKER)
    }
    read = {name.split("/")[1] for name in written if name.startswith("results/")}
    assert read == {"latents", "label_latents", "records", "features", "matching_rate"}
    assert {name for name in written if "/latents/" in name} == {
        f"results/{LATENTS}/{path.relative_to(results / LATENTS).as_posix()}"
        for path in (results / LATENTS / "latents.zarr").rglob("*")
        if path.is_file()
    }
    assert not any(SECRET in content for content in written.values())
    assert not any(str(results.parent).encode() in c for n, c in written.items() if "/" not in n)
    shard = f"{LATENTS}/latents.zarr/zarr.json"
    assert os.path.samefile(results / shard, target / "results" / shard) is link
    assert not [path for path in target.rglob("*") if path.is_symlink()]
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    said = capsys.readouterr().out
    size = sum(len(content) for name, content in written.items() if name.startswith("results/"))
    assert f"{size / 1e6:,.1f} MB" in said.splitlines()[0]
    assert "3 images" in said and str(results.parent / "images") in said
    assert ("hard links" in said) is link


def test_the_top_images_of_vision_saes_are_exported(tmp_path: Path) -> None:
    results = run_to_explore(tmp_path / "run")
    shutil.rmtree(results / LATENTS)
    records = open_artifact(results / RECORDS)
    columns = {
        "latent": [0, 3],
        "rank": [0, 0],
        "image_id": [IDS[2], IDS[2]],
        "patch": [0, 1],
        "activation": [1.0, 2.0],
        "classes": [[], ["cat"]],
    }
    labels, steered = ("label_vision_latents/dinov2-topk-1", "label_by_steering/dinov2-a-1")
    publish(results, labels, lambda work: write_top(work / "top.parquet", columns), records=records)
    publish(results, steered, lambda work: (work / "steering.parquet").write_bytes(b"PAR1"))
    export(Finished(results), tmp_path / "site")
    written = files_of(tmp_path / "site")
    folder = RECORDS.partition("/")[2]
    assert {name for name in written if name.startswith(("images/", "thumbs/"))} == {
        f"{size}/{folder}/2.png" for size in ("images", "thumbs")
    }
    assert {f"results/{labels}/top.parquet", f"results/{steered}/steering.parquet"} <= set(written)


def test_an_earlier_export_is_replaced_on_request_alone(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    target.mkdir()
    export(Finished(results), target)  # an empty folder is no obstacle
    before = files_of(target)
    with pytest.raises(UserError, match="--force replaces it"):
        export(Finished(results), target)
    (target / "results" / "old.txt").touch()
    export(Finished(results), target, force=True)
    assert files_of(target) == before
    (target / ".git").mkdir()
    with pytest.raises(UserError, match=r"'\.git', which no export wrote"):
        export(Finished(results), target, force=True)
    assert (target / ".git").is_dir() and (target / "index.html").is_file()


def test_a_folder_that_no_export_wrote_stays_as_it_is(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    (tmp_path / "file").touch()
    cases = [
        (other, "no export wrote"),
        (tmp_path / "file", "is a file"),
        (results, "lie in each other"),
        (results / "site", "lie in each other"),
        (results.parent, "lie in each other"),
    ]
    for target, message in cases:
        with pytest.raises(UserError, match=message):
            export(Finished(results), target, force=True)
    assert (other / "chapter.tex").read_text() == "years of work"
    # The results' own catalogue does not make them an export.
    (other / "catalogue.json").write_text(json.dumps({"live": False}))
    with pytest.raises(UserError, match="no export wrote"):
        export(Finished(results), other, force=True)


def test_a_failed_export_leaves_nothing_and_keeps_the_earlier_one(tmp_path: Path) -> None:
    results = run_to_explore(tmp_path / "run")
    target = tmp_path / "site"
    export(Finished(results), target)
    before = files_of(target)
    shard = results / LATENTS / "latents.zarr" / "zarr.json"
    content = shard.read_bytes()
    for damage in (shard.unlink, lambda: shard.write_bytes(content[:-1])):
        damage()
        with pytest.raises(UserError, match="damaged"):
            export(Finished(results), target, force=True)
        assert files_of(target) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "site"]


def test_images_that_are_gone_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run_to_explore(tmp_path / "run")
    (tmp_path / "run" / "images" / "2.png").unlink()
    export(Finished(results), tmp_path / "site")
    assert "left out: 1." in capsys.readouterr().out
    folder = RECORDS.partition("/")[2]
    held = sorted(path.name for path in (tmp_path / "site" / "images" / folder).iterdir())
    assert held == ["0.png", "1.png"]
    shutil.rmtree(tmp_path / "run" / "images")
    export(Finished(results), tmp_path / "other")
    assert "left out: 3." in capsys.readouterr().out


def test_by_the_command_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "site"
    assert main(["explore", str(results), "--export", str(target), "--link"]) == 0
    assert (target / "index.html").is_file()
    assert main(["explore", str(results), "--export", str(target)]) == 2
    assert capsys.readouterr().err.strip().endswith("is an earlier export: --force replaces it")
    assert main(["explore", str(results), "--export", str(target), "--force"]) == 0


def test_results_without_latents_are_exported_without_images(tmp_path: Path) -> None:
    publish(tmp_path / "results", "text/drawn-1", lambda work: (work / "a.txt").touch())
    export(Finished(tmp_path / "results"), tmp_path / "site")
    assert not (tmp_path / "site" / "images").exists()
    assert not (tmp_path / "site" / "results").exists()
