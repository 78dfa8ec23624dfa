"""`vista show` describes whatever it is given, damaged or not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from safetensors.numpy import save_file

from vista.errors import UserError
from vista.store.features import FeatureWriter
from vista.store.show import describe


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "clip-0123456789"
    path.mkdir()
    manifest = {
        "stage": "features",
        "digest": "d" * 64,
        "settings": {"layer": -1, "family": "clip"},
        "inputs": {"encoder": "e" * 64},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "checksums.json").write_text("{}")
    writer = FeatureWriter(path / "features.zarr", ["a", "b", "c"], (2, 2), 5, shard=2)
    for shard, n in ((0, 2), (1, 1)):
        writer.write_shard(shard, np.ones((n, 4, 5)))
    writer.close()
    table = {"label": [f"word {n}" for n in range(20)], "share": [n / 3 for n in range(20)]}
    pq.write_table(pa.table({**table, "none": [None] * 20}), path / "labels.parquet")
    (path / "result.json").write_text('{"fvu": 0.125}')
    (path / "summary.csv").write_text("metric,value\nfvu,0.125\n")
    save_file({"weight": np.zeros((3, 2), np.float32)}, path / "sae.safetensors")
    (path / "images").mkdir()
    for number in range(30):
        (path / "images" / f"{number:02d}.png").write_bytes(b"png")
    return path


def test_an_artifact_is_described_with_all_that_it_holds(artifact: Path) -> None:
    text = describe(artifact)
    for expected in (
        "artifact clip-0123456789",
        "stage    features",
        '"family": "clip"',
        "vista features 1  complete",
        "grid: [2, 2]",
        "float16 [image 3, token 4, channel 5]  units activation; chunk 1, shard 2; bytes+crc32c",
        "20 rows, 3 columns",
        "label:string",
        "word 7",
        '"fvu": 0.125',
        "fvu,0.125",
        "weight  F32 [3, 2]",
        "images/  30 files, 90 B",
    ):
        assert expected in text
    assert "word 8" not in text
    assert "12.png" not in text
    assert "checksums" not in text


def test_a_missing_shard_and_an_unfinished_store_are_pointed_out(artifact: Path) -> None:
    (artifact / "features.zarr" / "features" / "c" / "1" / "0" / "0").unlink()
    assert "1 MISSING" in describe(artifact / "features.zarr")

    FeatureWriter(artifact / "new.zarr", ["a"], (2, 2), 5)
    text = describe(artifact / "new.zarr")
    assert "UNFINISHED" in text
    assert "float16 [image 1, token 4, channel 5]" in text


def test_a_store_by_another_program_is_described(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "foreign.zarr")
    group.create_array("deep/values", shape=(5, 4), chunks=(2, 2), dtype="int8")[:] = 1
    text = describe(tmp_path / "foreign.zarr")
    assert "Zarr group" in text
    assert "int8 [? 5, ? 4]  no units; chunk [2, 2], shard [2, 2]" in text


def test_any_damage_is_described_and_never_raised(artifact: Path) -> None:
    rng = np.random.default_rng(0)
    files = [each for each in sorted(artifact.rglob("*")) if each.is_file()]
    names = ["manifest.json", "zarr.json", ".parquet", ".safetensors", "result.json"]
    for file in [each for each in files if each.name.endswith(tuple(names))]:
        content = file.read_bytes()
        for damage in range(12):
            broken = bytearray(content)
            position = int(rng.integers(len(content)))
            if damage < 8:
                broken[position] ^= 1 << int(rng.integers(8))
            elif damage < 10:
                del broken[position:]
            else:
                broken[position:] = rng.bytes(len(content) - position)
            file.unlink()
            file.write_bytes(broken)
            assert describe(artifact)
            assert describe(file)
        file.unlink()
        assert describe(artifact)
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1 nothing of the kind PAR1"),
        ("a.safetensors", b"\xff" * 64),
        ("a.json", b"{"),
        ("zarr.json", b"[]"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    path = tmp_path if name == "zarr.json" else tmp_path / name
    assert "cannot be read" in describe(path)


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": ["\x1b[31mred\x07"]}), tmp_path / "labels.parquet")
    (tmp_path / "a.txt").write_text("\x1b]0;title\x07")
    text = describe(tmp_path)
    assert "red" in text
    assert not {"\x1b", "\x07"} & set(text)


def test_nothing_there_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        describe(tmp_path / "none")
