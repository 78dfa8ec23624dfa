"""Stored latents for other programs: the table, and Neuronpedia's files, read back."""

from __future__ import annotations

import errno
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from explored_run import IDS, LATENTS, NAME, run_to_explore

from tests.published import publish
from vista.cli import main
from vista.config.sae import NeuronpediaSettings
from vista.engine.artifacts import open_artifact
from vista.errors import UserError
from vista.explore.latents import LatentView
from vista.library import exports
from vista.library.latents import Latents
from vista.sae.neuronpedia import read_export
from vista.store.latents import LatentWriter

SOURCE = f"gemma2/4-{NAME}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_explore(tmp_path_factory.mktemp("run"))


@pytest.fixture
def latents(results: Path) -> Latents:
    return Latents(LatentView(results / LATENTS))


def test_a_table_has_a_row_for_each_active_latent(
    latents: Latents, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_IMAGES", 2)
    path = latents.to_parquet(tmp_path / "new" / "latents.parquet")
    table = pyarrow.dataset.dataset(path).to_table()
    script = "<img src=x onerror=alert(1)>"
    assert table.to_pylist() == [
        dict(zip(exports.SCHEMA.names, row, strict=True))
        for row in [
            (IDS[0], 4, 0, 0, 1, 2.0, script),
            (IDS[0], 4, 0, 0, 2, 0.5, "dog"),
            (IDS[0], 4, 0, 1, 2, 1.5, "dog"),
            (IDS[1], 4, 0, 0, 3, 1.0, None),
            (IDS[2], 4, 0, 0, 1, 3.0, script),
            (IDS[2], 4, 0, 1, 1, 4.0, script),
        ]
    ]
    about = json.loads(pq.read_schema(path).metadata[b"vista"])
    assert about["format"] == exports.FORMAT and about["artifact"] == LATENTS
    assert about["digest"] == open_artifact(results / LATENTS).digest
    assert (about["encoder"], about["llm"], about["sae_weight"]) == ("dinov2", "gemma2", 1.0)
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_large_table_has_several_row_groups(
    latents: Latents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_IMAGES", 1)
    monkeypatch.setattr(exports, "_ROWS", 2)
    path = latents.to_parquet(tmp_path / "latents.parquet", layer=4)
    metadata = pq.ParquetFile(path).metadata
    sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert sizes == [2, 2, 2]
    assert pq.read_table(path)["activation"].to_pylist() == [2.0, 0.5, 1.5, 1.0, 3.0, 4.0]


def test_tokens_that_stand_for_nothing_have_no_row(tmp_path: Path) -> None:
    def write(work: Path) -> None:
        writer = LatentWriter(work / "latents.zarr", ["a"], (1, 2), {4: 5}, {"image": 2}, k=1)
        writer.set_valid("image", 0, np.array([[False, True]]))
        index, value = np.array([[[3], [4]]], np.uint16), np.ones((1, 2, 1), np.float16)
        ones = np.ones((1, 2), np.float32)
        writer.write("image", 0, 4, index, value, np.ones((1, 2), np.uint16), ones, ones)
        writer.finish(4, "image", np.full(4, 1.0))
        writer.close()

    latents = Latents(LatentView(publish(tmp_path / "results", LATENTS, write).path))
    table = pq.read_table(latents.to_parquet(tmp_path / "latents.parquet"))
    assert table.select(["column", "latent"]).to_pylist() == [{"column": 1, "latent": 4}]


def test_datasets_read_a_table(latents: Latents, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs `datasets`")
    path = latents.to_parquet(tmp_path / "latents.parquet")
    rows = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(rows) == 6 and rows[1]["label"] == "dog" and rows[1]["activation"] == 0.5


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((folder / SOURCE / kind).glob("batch-*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


def test_neuronpedias_files_are_read_back_to_the_same_labels(
    latents: Latents, tmp_path: Path
) -> None:
    folder = latents.to_neuronpedia(tmp_path / "export", top=1)
    own = latents.view.labels[4]
    settings = NeuronpediaSettings(path=str(folder / SOURCE))
    back = read_export(folder / SOURCE, settings, layer=4, d_sae=5, sae=own.sae)
    assert back.label_s == own.label_s
    assert back.density_s.tolist() == own.density_s.tolist()
    # Latent 1 fires most at the last image; latents 0 and 4 nowhere; 3 has no label.
    activations = {row["index"]: row for row in lines(folder, "activations")}
    assert set(activations) == {"1", "2"}
    row = activations["1"]
    assert (row["tokens"], row["values"]) == (["r0c0", "r0c1"], [3.0, 4.0])
    assert (row["maxValue"], row["maxValueTokenIndex"], row["minValue"]) == (4.0, 1, 3.0)
    assert row["dataIndex"] == IDS[2] and row["dataSource"] == LATENTS
    assert (row["modelId"], row["layer"]) == ("gemma2", f"4-{NAME}")
    assert [row["maxActApprox"] for row in lines(folder, "features")] == [0.0, 4.0, 1.5, 1.0, 0.0]
    heads = [
        json.loads((folder / SOURCE / f"{name}.jsonl").read_text())
        for name in ("model", "release", "sourceset", "source")
    ]
    assert heads[3]["setName"] == heads[2]["name"] and heads[2]["releaseName"] == heads[1]["name"]
    again = latents.to_neuronpedia(tmp_path / "again", top=1)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert all(p.read_bytes() == (again / p.relative_to(folder)).read_bytes() for p in files)
    # More images than one: the strongest first.
    more = latents.to_neuronpedia(tmp_path / "more", layer=4)
    images = [row["dataIndex"] for row in lines(more, "activations") if row["index"] == "1"]
    assert images == [IDS[2], IDS[0]]


def test_the_command(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ["export", f"latents:{NAME}", "--results", str(results)]
    file, folder = tmp_path / "l.parquet", tmp_path / "export"
    assert main([*export, "--parquet", str(file)]) == 0
    assert main([*export, "--neuronpedia", str(folder), "--layer", "4", "--top", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: 6 active latents",
        f"{folder}: 4 labelled latents",
    ]
    for options, said in (
        (["--parquet", str(file)], "l.parquet exists: remove it, or name another"),
        (["--neuronpedia", str(folder)], "export exists"),
        (["--parquet", str(file), "--top", "3"], "--top goes with --neuronpedia"),
        (["--neuronpedia", str(tmp_path / "n"), "--top", "65"], "give 1 to 64 images"),
        (["--parquet", str(tmp_path / "n"), "--layer", "3"], "has no layer 3"),
    ):
        assert main([*export, *options]) == 2
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("kind", ["parquet", "neuronpedia"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    latents: Latents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    monkeypatch.setattr(gzip.GzipFile, "write", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        getattr(latents, f"to_{kind}")(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_latents_without_labels_have_a_table_alone(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = Latents(LatentView(results / LATENTS))
    latents.view.__dict__["labels"] = {}
    with pytest.raises(UserError, match="layer 4 has no labels in these results"):
        latents.to_neuronpedia(tmp_path / "export")
    assert list(tmp_path.iterdir()) == []
    table = pq.read_table(latents.to_parquet(tmp_path / "latents.parquet"))
    assert table["label"].null_count == 6
