"""Manifests, Zarr metadata and small files that are damaged: an error that names the file, or what
was written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from safety.mutations import damaged, read_or_told

from vista.data.records import SCHEMA, read_records
from vista.engine.artifacts import Provenance, open_artifact, publishing
from vista.errors import UserError
from vista.interventions.methods.latent_at import read_latent_ids
from vista.judges.backends.judgements import Judgements
from vista.sae.label_table import LatentLabels, read_labels, write_labels
from vista.store.features import FeatureReader, FeatureWriter
from vista.store.latents import LatentReader, LatentWriter
from vista.store.show import describe

DENSE_BPD = np.arange(5 * 4 * 3, dtype=np.float16).reshape(5, 4, 3)
IDS = [f"image {i}" for i in range(5)]


@pytest.fixture(autouse=True, scope="module")
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def features(folder: Path) -> Path:
    writer = FeatureWriter(folder / "features.zarr", IDS, (2, 2), 3, shard=2)
    for shard in range(writer.shards):
        writer.write_shard(shard, DENSE_BPD[writer.shard_images(shard)])
    writer.close()
    return folder / "features.zarr"


@pytest.fixture(scope="module")
def foreign(folder: Path) -> Path:
    """A store as another program writes it."""
    group: Any = zarr.open_group(folder / "foreign.zarr", mode="w", attributes={"grid": [2, 2]})
    array = group.create_array(
        "features", shape=DENSE_BPD.shape, chunks=(2, 4, 3), dtype="float16", fill_value=np.nan
    )
    array[:] = DENSE_BPD
    return folder / "foreign.zarr"


def change(
    data: st.DataObject, store: Path, folder: Path, names: list[str]
) -> tuple[Path, Any, Any]:
    """A copy of a store in which one metadata file is damaged; that file's content, old and new."""
    copied = Path(tempfile.mkdtemp(dir=folder)) / store.name
    shutil.copytree(store, copied)
    file = copied / data.draw(st.sampled_from(names))
    text = file.read_text()
    how = data.draw(st.sampled_from(["values", "values", "values", "cut", "deep", "gone"]))
    old = json.loads(text)
    new: Any = None
    if how == "gone":
        file.unlink()
    elif how == "values":
        new = data.draw(damaged(old, most=2))
        file.write_text(json.dumps(new))
    else:
        end = data.draw(st.integers(0, len(text) - 2))
        file.write_text(text[:end] if how == "cut" else text[:end] + "[" * 50_000)
    return copied, old, new


@settings(max_examples=80)
@given(data=st.data())
def test_own_features_with_damaged_metadata(
    features: Path, folder: Path, data: st.DataObject
) -> None:
    names = ["zarr.json", "features/zarr.json", "image/zarr.json", "row/zarr.json"]
    store, old, new = change(data, features, folder, names)
    with read_or_told("features.zarr"):
        reader = FeatureReader(store)
        assert (reader.read(range(5)) == DENSE_BPD).all() and reader.grid == (2, 2)
        # What was put in its place says the same (1 and true, 2 and 2.0), or is another program's.
        assert old == new or "format" not in new["attributes"]
    shutil.rmtree(store.parent)


@settings(max_examples=120)
@given(data=st.data())
def test_foreign_features_with_damaged_metadata(
    foreign: Path, folder: Path, data: st.DataObject
) -> None:
    store, _, new = change(data, foreign, folder, ["zarr.json", "features/zarr.json"])
    with read_or_told("foreign.zarr"):
        reader = FeatureReader(store)
        read = reader.read(range(len(reader.image_ids)))
        assert np.isfinite(read).all() and read.shape == reader.shape
        assert reader.grid[0] * reader.grid[1] == read.shape[1]
        if read.shape == DENSE_BPD.shape and read.dtype == DENSE_BPD.dtype:
            assert (read == DENSE_BPD).all(), new
    shutil.rmtree(store.parent)


@settings(max_examples=60)
@given(data=st.data())
def test_any_damage_is_shown_without_harm(
    features: Path, folder: Path, data: st.DataObject
) -> None:
    store, _, _ = change(data, features, folder, ["zarr.json", "features/zarr.json"])
    with read_or_told():
        assert all(each.isprintable() or each == "\n" for each in describe(store))
    shutil.rmtree(store.parent)


# Latents of tokens [image, token, slot]: one, two or three of twenty latents fire, in turns.
NNZ_BT = 1 + np.arange(20).reshape(5, 4) % 3
INDEX_BTK = (np.arange(20).reshape(5, 4, 1) + 7 * np.arange(3)) % 20
USED_BTK = np.arange(3) < NNZ_BT[..., None]
LATENTS = np.where(USED_BTK, INDEX_BTK, 0), np.where(USED_BTK, INDEX_BTK + 1.0, 0)


@pytest.fixture(scope="module", params=[3, 1], ids=["one block", "blocks"])
def latents(folder: Path, request: pytest.FixtureRequest) -> Path:
    """Of one layer, whose slots are one block or three."""
    place = Path(tempfile.mkdtemp(dir=folder)) / "latents.zarr"
    writer = LatentWriter(
        place,
        image_ids=IDS, grid=(2, 2), layers={0: 20}, kinds={"image": 4}, k={0: 3}, shard=4,
        d_model=2, block=request.param,
    )  # fmt: skip
    ones = np.ones(NNZ_BT.shape, dtype=np.float32)
    writer.set_valid("image", 0, np.ones(NNZ_BT.shape, dtype=bool))
    writer.write("image", 0, 0, *LATENTS, NNZ_BT, ones, ones, np.ones((len(IDS), 2)))
    writer.finish(0, "image")
    writer.close()
    return place


@settings(max_examples=80)
@given(data=st.data())
def test_latents_with_damaged_metadata(latents: Path, folder: Path, data: st.DataObject) -> None:
    own = ["index", "value", "nnz", "error", "norm2", "mean"]
    names = ["zarr.json", *(f"layer_00/image/{name}/zarr.json" for name in own)]
    names += [
        path.relative_to(latents).as_posix()
        for path in sorted((latents / "layer_00" / "by_latent").rglob("zarr.json"))
    ]
    store, _, _ = change(data, latents, folder, names)
    with read_or_told("latents.zarr"):
        reader = LatentReader(store)
        read = reader.tokens(0, "image")
        assert (read.index == LATENTS[0]).all() and (read.value == LATENTS[1]).all()
        assert (read.norm2 == 1).all() and read.valid.all()
        assert reader.mean(0, "image").tolist() == [0.25, 0.25]
        for latent in (0, 19):
            image, token, _ = np.nonzero(USED_BTK & (latent == INDEX_BTK))
            entries = reader.by_latent(0, latent)
            assert (entries.image == image).all() and (entries.token == token).all()
            assert (entries.value == latent + 1).all()
            histogram = reader.histogram(0, latent)
            assert histogram is not None and histogram.counts.tolist() == [0] * 31 + [len(image)]
    shutil.rmtree(store.parent)


@settings(max_examples=80)
@given(data=st.data())
def test_latents_with_a_damaged_or_lost_shard(
    latents: Path, folder: Path, data: st.DataObject
) -> None:
    store = Path(tempfile.mkdtemp(dir=folder)) / latents.name
    shutil.copytree(latents, store)
    arrays = [store / "layer_00" / "image" / name / "c" for name in ("index", "value", "nnz")]
    files = [path for array in arrays for path in sorted(array.rglob("*")) if path.is_file()]
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    how = data.draw(st.sampled_from(["flip", "cut", "lost"]))
    at = data.draw(st.integers(0, len(content) - 1))
    file.unlink()
    if how != "lost":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(content if how == "flip" else content[:at])
    with pytest.raises(UserError, match="is damaged") as raised:
        LatentReader(store).tokens(0, "image")
    assert str(file) in str(raised.value)
    shutil.rmtree(store.parent)


def published(folder: Path) -> Path:
    root = Path(tempfile.mkdtemp(dir=folder))
    with publishing(root, "text", "one", Provenance("text", {"n": 1}, {}, {}, {})) as work:
        assert work is not None
        (work / "a.txt").write_text("a")
    return root / "text" / "one"


@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_manifest_or_list_of_checksums(folder: Path, data: st.DataObject) -> None:
    artifact = published(folder)
    file = artifact / data.draw(st.sampled_from(["manifest.json", "checksums.json", "memo.json"]))
    text = file.read_text()
    if data.draw(st.booleans()):
        file.write_text(json.dumps(data.draw(damaged(json.loads(text)))))
    else:
        file.write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    if file.read_text() == text:
        open_artifact(artifact, "text").verify()
    else:
        with pytest.raises(UserError, match="is damaged"):
            open_artifact(artifact, "text")
    shutil.rmtree(artifact.parents[1])


LABELS = LatentLabels(
    2, "mine", 9, ("cat", None), np.ones(2, "float32"), np.zeros(2, "float32"), (("a",), ())
)


@settings(max_examples=60)
@given(data=st.data())
def test_a_table_of_labels_with_other_columns(folder: Path, data: st.DataObject) -> None:
    path = folder / "labels.parquet"
    write_labels(path, LABELS)
    table = pq.read_table(path)
    name = data.draw(st.sampled_from([*table.column_names, "metadata"]))
    odd: dict[str, Any] = {
        "int": pa.array([1, 2]), "text": pa.array(["1", "x"]), "null": pa.nulls(2),
        "list": pa.array([[1], [2]]), "double": pa.array([0.5, float("nan")]),
        "some": pa.array([None, 0.25]), "binary": pa.array([b"\xff", b""]),
    }  # fmt: skip
    how = data.draw(st.sampled_from(["drop", *odd]))
    if name == "metadata":
        metadata = data.draw(st.sampled_from([{}, {"layer": "x"}, {b"layer": b"\xff"}, None]))
        changed = table.replace_schema_metadata(metadata)
    elif how == "drop":
        changed = table.drop_columns([name])
    else:
        at = table.column_names.index(name)
        changed = table.set_column(at, name, odd[how])
    pq.write_table(changed, path)
    with read_or_told("labels.parquet"):
        read = read_labels(path)
        # Columns of another type that hold what they should.
        assert name in ("label", "contexts") or np.isfinite([*read.share_s, *read.density_s]).all()
        assert all(label is None or isinstance(label, str) for label in read.label_s)
        assert all(isinstance(text, str) for row in read.contexts_s for text in row)


@settings(max_examples=60)
@given(data=st.data())
def test_latents_that_a_user_names(folder: Path, data: st.DataObject) -> None:
    content = {"cat": {"layer": 4, "latent": 15456}, "dog": {"layer": 5, "latent": 7}}
    new = data.draw(damaged(content))
    (folder / "ids.json").write_text(json.dumps(new))
    with read_or_told("ids.json"):
        read = read_latent_ids(folder / "ids.json")
        assert read == {name: (at["layer"], at["latent"]) for name, at in new.items()}
        assert all(type(n) is int and n >= 0 for pair in read.values() for n in pair)


@settings(max_examples=60)
@given(data=st.data())
def test_judgements_that_were_cut_or_altered(folder: Path, data: st.DataObject) -> None:
    place = Path(tempfile.mkdtemp(dir=folder))
    kept = Judgements(str(place), judge="api", model="m", prompt="1")
    for i in range(3):
        kept.add(False, f"text {i}", ("cat",), (bool(i % 2),))
    (file,) = place.iterdir()
    lines = file.read_text().splitlines()
    at = data.draw(st.integers(0, 2))
    if data.draw(st.booleans()):
        lines[at] = json.dumps(data.draw(damaged(json.loads(lines[at]))))
    else:
        lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
    file.write_text("\n".join(lines))
    again = Judgements(str(place), judge="api", model="m", prompt="1")
    for i in range(3):
        found = again.find(False, f"text {i}", ("cat",))
        assert found == (bool(i % 2),) or (found is None and i == at)
    shutil.rmtree(place)


def test_a_records_table_of_other_types_is_told(tmp_path: Path) -> None:
    columns = {name: pa.array([1, 2]) for name in SCHEMA.names}
    pq.write_table(pa.table(columns), tmp_path / "records.parquet")
    with pytest.raises(UserError, match=r"records\.parquet"):
        read_records(tmp_path / "records.parquet")
