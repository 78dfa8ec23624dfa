"""Vision SAEs on planted features: directions come back, labels name them, bytes are equal.

A patch is the sum of one of 6 ground directions and, where an object lies, of one of 8 class
directions on its four patches, each of random strength, with a little noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from tests.long_table import read_rows
from vista.config.encoders import CheckpointEncoder, EncoderSettings
from vista.config.vision_sae import (
    CheckVisionSaeSettings,
    LabelVisionSettings,
    TrainVisionSaeSettings,
)
from vista.data.records import Box, Object, Record, encode_mask, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs.vision import encoder_block
from vista.sae.convert import from_sae_lens
from vista.sae.label_table import read_labels
from vista.sae.neutral import load_sae
from vista.sae.patches import read_patches, shuffled_patches
from vista.stages import check_vision_sae, label_vision_latents, train_vision_sae
from vista.store.features import FeatureWriter

D, CLASSES, GROUNDS, IMAGES, GRID = 16, 8, 6, 160, 4
SMALL = TrainVisionSaeSettings(
    architecture="topk", d_sae=16, k=2, steps=250, batch_patches=256, lr=5e-3, dead_window=20
)
ARCHITECTURES = ("topk", "batchtopk", "matryoshka_batchtopk", "standard", "jumprelu")


def publish(
    root: Path, stage: str, write: Callable[[Path], Any], settings: dict[str, Any] | None = None
) -> Artifact:
    node = f"n{len(list(root.glob(f'{stage}/*')))}"
    record = Provenance(stage, settings or {}, {}, "code", {})
    with publishing(root, stage, node, record) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / node)


def run(root: Path, stage: Any, settings: dict[str, Any], **inputs: Any) -> Artifact:
    name = stage.__name__.rsplit(".", 1)[1]
    return publish(root, name, lambda work: stage.run(Job(name, settings, inputs, work)))


class Planted:
    """Directions, features [b, p, d] and records of a planted world."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        directions = np.linalg.qr(rng.standard_normal((D, D)))[0].astype(np.float32)
        self.class_d, self.ground_d = directions[:CLASSES], directions[CLASSES:][:GROUNDS]
        size = (IMAGES, GRID * GRID)
        self.class_b = np.arange(IMAGES) % CLASSES
        corner = rng.integers(0, GRID - 1, (IMAGES, 2))
        self.corner_b = [(int(row), int(column)) for row, column in corner]
        ground = self.ground_d[rng.integers(0, GROUNDS, IMAGES)]
        x = rng.uniform(2, 4, size)[..., None] * ground[:, None]
        for b, places in enumerate(map(self.places, self.corner_b)):
            x[b, places] += rng.uniform(3, 5, (4, 1)) * self.class_d[self.class_b[b]]
        x += 0.02 * rng.standard_normal(x.shape) + directions[-1]
        self.x = x.astype(np.float16)
        self.records = [self._record(b) for b in range(IMAGES)]

    @staticmethod
    def places(corner: tuple[int, int]) -> list[int]:
        """The four patches of an object whose left top patch is `corner`."""
        first = corner[0] * GRID + corner[1]
        return [first, first + 1, first + GRID, first + GRID + 1]

    def _record(self, b: int) -> Record:
        row, column = self.corner_b[b]
        mask = np.zeros((32, 32), dtype=bool)
        mask[8 * row : 8 * row + 16, 8 * column : 8 * column + 16] = True
        box = Box(8.0 * column, 8.0 * row, 16.0, 16.0)
        thing = Object(f"class{self.class_b[b]}", box, encode_mask(mask) if b % 2 else None)
        split = "train" if b < 120 else "validation"
        return Record(f"image{b}", split, f"{b}.png", 32, 32, objects=(thing,))


@pytest.fixture(scope="module")
def planted() -> Planted:
    torch.set_num_threads(1)
    return Planted()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def inputs(root: Path, planted: Planted) -> dict[str, Artifact]:
    def write_features(work: Path) -> None:
        ids = [record.image_id for record in planted.records]
        writer = FeatureWriter(work / "features.zarr", ids, (GRID, GRID), D, shard=64)
        for shard in range(writer.shards):
            writer.write_shard(shard, planted.x[writer.shard_images(shard)])
        writer.close()
        (work / "geometry.json").write_text('{"fit": "pad", "patch": 8, "size": 32}')

    source = CheckpointEncoder(kind="checkpoint", path="somewhere", family="clip")
    encoder = EncoderSettings(source=source, layer=3).model_dump()
    return {
        "features": publish(root, "features", write_features, {"encoder": encoder}),
        "records": publish(
            root, "records", lambda work: write_records(work / "records.parquet", planted.records)
        ),
    }


def train(root: Path, inputs: dict[str, Artifact], **changes: Any) -> Artifact:
    settings = SMALL.model_copy(update=changes).model_dump()
    return run(root, train_vision_sae, {"sae": settings, "name": "clip-topk"}, **inputs)


@pytest.fixture(scope="module")
def sae(root: Path, inputs: dict[str, Artifact]) -> Artifact:
    return train(root, inputs)


def fvu(planted: Planted, artifact: Artifact) -> float:
    x = torch.from_numpy(planted.x[120:].reshape(-1, D).astype(np.float32))
    with torch.no_grad():
        error = load_sae(artifact.path)(x) - x
    return float(error.square().sum() / (x - x.mean(dim=0)).square().sum())


def test_the_directions_come_back(planted: Planted, sae: Artifact) -> None:
    loaded = load_sae(sae.path)
    # Raw features in, raw features out: the scale of training is folded back.
    assert fvu(planted, sae) < 0.02
    cosine = (loaded.W_dec.numpy() @ planted.class_d.T).max(axis=0)
    assert cosine.min() > 0.95
    torch.testing.assert_close(loaded.W_dec.norm(dim=1), torch.ones(16), rtol=1e-4, atol=1e-4)
    assert (loaded.config.layer, loaded.config.name, loaded.config.k) == (3, "clip-topk", 2)
    curve = pq.read_table(sae.file("curve.parquet")).to_pydict()
    assert curve["mse"][-1] < 0.2 * curve["mse"][0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_runs_as_in_sae_lens(
    architecture: str, root: Path, planted: Planted, inputs: dict[str, Artifact]
) -> None:
    import sae_lens

    found = train(root, inputs, architecture=architecture, steps=100, l1=0.5)
    ours, theirs = load_sae(found.path), sae_lens.SAE.load_from_disk(found.path / "sae")
    known = {"matryoshka_batchtopk": "matryoshka"}
    assert ours.config.architecture == known.get(architecture, architecture)
    x = torch.from_numpy(planted.x[:20].reshape(-1, D).astype(np.float32))
    with torch.no_grad():
        z = theirs.encode(x)
        torch.testing.assert_close(ours.encode(x), z, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(x), theirs.decode(z), rtol=1e-5, atol=1e-5)
    # The object that sae_lens loads converts to the very same weights.
    again = from_sae_lens(theirs, "again", layer=3)
    torch.testing.assert_close(again.W_enc, ours.W_enc)
    assert fvu(planted, found) < 0.6


def test_equal_bytes_twice_and_another_seed(root: Path, inputs: dict[str, Artifact]) -> None:
    short = {"steps": 10, "architecture": "matryoshka_batchtopk"}
    first = train(root, inputs, **short)
    torch.rand(3)  # the surroundings' random state must not matter
    assert train(root, inputs, **short).digest == first.digest
    assert train(root, inputs, **short, seed=1).digest != first.digest


def test_check_and_its_bounds(
    root: Path, planted: Planted, inputs: dict[str, Artifact], sae: Artifact
) -> None:
    settings = CheckVisionSaeSettings().model_dump()
    found = run(root, check_vision_sae, {"check": settings}, sae=sae, **inputs)
    figures = json.loads(found.file("result.json").read_text())
    assert figures["tokens"] == 40 * GRID * GRID
    assert figures["fvu"] == pytest.approx(fvu(planted, sae), rel=1e-3)
    assert 1 <= figures["l0"] <= 2
    rows = {row["metric"]: row for row in read_rows(found)}
    assert {row["layer"] for row in rows.values()} == {3}
    size = rows["vision_sae_expansion"]
    assert (size["value"], size["n"]) == (figures["d_sae"] / D, figures["d_sae"])
    dead, explained = rows["vision_sae_dead_share"], rows["vision_sae_explained_variance"]
    assert (dead["value"], dead["n"]) == (figures["dead_share"], figures["d_sae"])
    assert (explained["value"], explained["chance"]) == (1 - figures["fvu"], 0)
    assert rows["vision_sae_l0"]["n"] == figures["tokens"]
    part = run(root, check_vision_sae, {"check": {**settings, "patches": 33}}, sae=sae, **inputs)
    assert json.loads(part.file("result.json").read_text())["tokens"] == 3 * GRID * GRID
    with pytest.raises(UserError, match=r"clip: on 640 held-out patches, FVU .*key check.max_fvu"):
        run(root, check_vision_sae, {"check": {**settings, "max_fvu": 1e-9}}, sae=sae, **inputs)


@pytest.mark.parametrize("by", ["patch", "image"])
def test_labels_name_the_planted_classes(
    by: str, root: Path, planted: Planted, inputs: dict[str, Artifact], sae: Artifact
) -> None:
    settings = {"labels": LabelVisionSettings(by=by).model_dump()}
    found = run(root, label_vision_latents, settings, sae=sae, **inputs)
    labels = read_labels(found.file("labels.parquet"))
    assert (labels.layer, labels.sae, labels.tokens) == (3, "clip-topk", 120 * GRID * GRID)
    loaded = load_sae(sae.path)
    z = loaded.encode(torch.from_numpy(planted.x[:120].astype(np.float32)))
    np.testing.assert_allclose(labels.density_s, (z > 0).float().mean(dim=(0, 1)), rtol=1e-5)
    cosine = loaded.W_dec.numpy() @ planted.class_d.T
    for number, latent in enumerate(cosine.argmax(axis=0)):
        assert labels.label_s[latent] == f"class{number}"
        assert labels.share_s[latent] >= 0.9
    if by == "patch":
        # Grounds have images of every class, and no patch on an object.
        grounds = (loaded.W_dec.numpy() @ planted.ground_d.T).max(axis=1) > 0.9
        assert grounds.sum() >= 4
        assert all(labels.label_s[latent] is None for latent in np.flatnonzero(grounds))
    top = pq.read_table(found.file("top.parquet")).to_pylist()
    latent = int(cosine[:, 2].argmax())
    rows = [row for row in top if row["latent"] == latent]
    assert [row["rank"] for row in rows] == list(range(len(rows)))
    assert sorted((row["activation"] for row in rows), reverse=True) == [
        row["activation"] for row in rows
    ]
    corner = planted.corner_b[int(rows[0]["image_id"].removeprefix("image"))]
    assert rows[0]["patch"] in planted.places(corner)
    assert rows[0]["classes"] == ["class2"]
    assert labels.contexts_s[latent][0].endswith(f"patch {rows[0]['patch']}, class2")


def test_labels_need_images_and_a_share(
    root: Path, inputs: dict[str, Artifact], sae: Artifact
) -> None:
    def named(**changes: Any) -> int:
        settings = {"labels": LabelVisionSettings(**changes).model_dump()}
        found = run(root, label_vision_latents, settings, sae=sae, **inputs)
        return sum(map(bool, read_labels(found.file("labels.parquet")).label_s))

    assert named() >= CLASSES
    assert named(min_images=121) == 0
    assert named(top_k=40, min_share=1.0, by="image") < named(top_k=40, by="image", min_share=0.1)


class Watched:
    """Features that count what is asked for at once."""

    shape = (50, 4, 3)

    def __init__(self) -> None:
        self.most = 0
        self.x = np.arange(600, dtype=np.float16).reshape(50, 4, 3)

    def read(self, indices: Any) -> Any:
        self.most = max(self.most, len(indices))
        return self.x[np.asarray(indices)]


def test_every_patch_comes_once_an_epoch_in_bounded_memory() -> None:
    features, images = Watched(), np.arange(0, 50, 2)
    batches = shuffled_patches(features, images, 10, 16, np.random.default_rng(0))
    epoch = torch.cat([next(batches) for _ in range(10)])
    wanted = features.x[images].reshape(-1, 3).astype(np.float32)
    assert sorted(epoch[:, 0].tolist()) == wanted[:, 0].tolist()
    assert epoch[:, 0].tolist() != wanted[:, 0].tolist()
    assert features.most == 4
    following = torch.cat([next(batches) for _ in range(10)])
    assert not torch.equal(epoch, following)
    in_order = torch.cat(list(read_patches(features, images, 9)))
    np.testing.assert_array_equal(in_order.numpy(), wanted)
    # A batch may be larger than the buffer, and than the data.
    wide = next(shuffled_patches(features, images[:2], 20, 4, np.random.default_rng(0)))
    assert wide.shape == (20, 3)


def test_the_encoder_says_which_block(root: Path, inputs: dict[str, Artifact]) -> None:
    from transformers import CLIPConfig, CLIPVisionConfig

    config = CLIPConfig(vision_config=CLIPVisionConfig(num_hidden_layers=5).to_dict())
    encoder = publish(root, "fetch_model", lambda work: config.save_pretrained(work / "model"))
    settings = inputs["features"].settings
    last = publish(
        root, "features", lambda work: None, {"encoder": {**settings["encoder"], "layer": -2}}
    )
    assert encoder_block(last, encoder) == 3


def test_mistakes_are_named(root: Path, inputs: dict[str, Artifact], sae: Artifact) -> None:
    with pytest.raises(UserError, match=r"SAE clip-topk, train.split: .*'test'"):
        train(root, inputs, split="test")
    with pytest.raises(UserError, match="lower `k`"):
        train(root, inputs, k=17)
    with pytest.raises(UserError, match="too few for `widths`"):
        train(root, inputs, architecture="matryoshka_batchtopk", d_sae=3)
    with pytest.raises(ValidationError, match="whole number"):
        TrainVisionSaeSettings(k=2.5)
    with pytest.raises(ValidationError, match="must rise"):
        TrainVisionSaeSettings(widths=(0.5, 0.25, 1.0))
    assert TrainVisionSaeSettings(expansion=4).latents(24) == 96

    def write_wide(work: Path) -> None:
        writer = FeatureWriter(work / "features.zarr", ["image0"], (1, 1), D + 1)
        writer.write_shard(0, np.zeros((1, 1, D + 1), np.float16))
        writer.close()

    wide = publish(root, "features", write_wide)
    settings = {"check": CheckVisionSaeSettings().model_dump()}
    with pytest.raises(UserError, match="has d_in 16, but the features have 17 channels"):
        run(root, check_vision_sae, settings, sae=sae, features=wide, records=inputs["records"])
