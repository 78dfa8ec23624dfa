"""Features, SAEs and projectors that were made elsewhere: each setting changes what is written."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vista.config.data import FolderData
from vista.config.encoders import CheckpointEncoder, EncoderSettings
from vista.config.projector import PretrainedProjector
from vista.config.sae import ImportSaeSettings
from vista.data.geometry import prepare_image
from vista.data.records import Record, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs import models as loading
from vista.stages import features, import_projector, import_sae
from vista.store.features import FeatureReader, FeatureWriter

SIZE, PATCH, WIDTH = 16, 8, 16
# Rows of the table: two are about one image.
NAMES = ["a.png", "b.png", "a.png", "c.png", "d.png"]


def publish(
    root: Path,
    stage: str,
    write: Callable[[Path], object],
    settings: dict[str, Any] | None = None,
) -> Artifact:
    with publishing(root, stage, "one", Provenance(stage, settings or {}, {}, "", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "one")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A vision transformer, as fetched, whose images are resized to the nearest pixel."""
    import torch
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIZE,
        patch_size=PATCH,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ViTModel(config, add_pooling_layer=False)
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": SIZE, "width": SIZE},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1 / 255,
        "resample": int(Image.Resampling.NEAREST),
    }

    def write(work: Path) -> None:
        model.save_pretrained(work / "model")
        (work / "model" / "preprocessor_config.json").write_text(json.dumps(preprocessor))

    return publish(tmp_path_factory.mktemp("encoder"), "fetch_model", write)


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, Any]:
    """The folder of the images and their records, larger than the model's input and not square."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in set(NAMES):
        pixels = rng.integers(0, 256, (31, 43, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    table = [Record(f"row{i}", "test", name, 43, 31) for i, name in enumerate(NAMES)]
    settings = FolderData(kind="folder", images=str(folder)).model_dump(mode="json")
    records = publish(
        tmp_path, "records", lambda work: write_records(work / "records.parquet", table), settings
    )
    return {"folder": folder, "records": records}


def settings_of(encoder: Artifact, prefix_tokens: int | None = None, **given: Any) -> Any:
    source = CheckpointEncoder(
        kind="checkpoint",
        path=str(encoder.path / "model"),
        family="vit",
        prefix_tokens=prefix_tokens,
    )
    settings = EncoderSettings(source=source, fit="crop", batch_size=2, **given)
    return {"encoder": settings.model_dump(mode="json")}


def run_features(
    root: Path, encoder: Artifact, photos: dict[str, Any], *, threads: int = 1, **given: Any
) -> NDArray[Any]:
    inputs = {"encoder": encoder, "records": photos["records"]}
    settings = settings_of(encoder, **given)
    made = publish(
        root,
        "features",
        lambda work: features.run(Job("n", settings, inputs, work, threads=threads)),
    )
    reader = FeatureReader(made.store("features.zarr"))
    return np.asarray(reader.read(range(reader.shape[0])))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_are_those_of_the_checkpoint_in_its_dtype_and_with_its_filter(
    tmp_path: Path, encoder: Artifact, photos: dict[str, Any], dtype: str
) -> None:
    from vista.encoders.contract import load_encoder

    found = run_features(tmp_path, encoder, photos, threads=3, dtype=dtype)

    def expected(number_format: str, resample: Image.Resampling) -> NDArray[Any]:
        model = load_encoder(encoder.path / "model", "vit", dtype=number_format)
        pixels = [
            prepare_image(
                Image.open(photos["folder"] / name), SIZE, "crop", model.mean_colour, resample
            )
            for name in ("a.png", "b.png", "c.png", "d.png")
        ]
        # In the stage's batches: another shape of a product may differ in its last bit.
        parts = [model.encode(np.stack(pixels[i : i + 2])).numpy() for i in (0, 2)]
        return np.concatenate(parts).astype(np.float16)

    other = "bfloat16" if dtype == "float32" else "float32"
    assert np.array_equal(found, expected(dtype, Image.Resampling.NEAREST))
    assert not np.array_equal(found, expected(other, Image.Resampling.NEAREST))
    assert not np.allclose(found, expected(dtype, Image.Resampling.BICUBIC), atol=0.1)


def test_prefix_tokens_of_the_settings_count(
    tmp_path: Path, encoder: Artifact, photos: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="not 2 prefix tokens and 4 patches"):
        run_features(tmp_path, encoder, photos, prefix_tokens=2)


def test_an_image_that_is_cut_off_is_named_with_its_remedy(
    tmp_path: Path, encoder: Artifact, photos: dict[str, Any]
) -> None:
    broken = photos["folder"] / "c.png"
    broken.write_bytes(broken.read_bytes()[:-900])
    with pytest.raises(UserError, match=r"max_unreadable.*rm -r") as raised:
        run_features(tmp_path, encoder, photos, threads=2)
    assert str(broken) in str(raised.value)
    assert str(photos["records"].path) in str(raised.value)


def test_reading_ahead_keeps_the_order_and_stays_within_bounds() -> None:
    records = [Record(str(i), "test", str(i), 1, 1) for i in range(40)]
    started: list[int] = []
    lock = threading.Lock()

    def read(record: Record) -> NDArray[np.uint8]:
        with lock:
            started.append(int(record.path))
        # The later ones are the quicker ones.
        time.sleep(0.004 if int(record.path) % 4 == 0 else 0)
        return np.full((1, 1, 3), int(record.path), np.uint8)

    for taken, pixels in enumerate(features.read_ahead(read, iter(records), 3, 5)):
        assert pixels[0, 0, 0] == taken
        assert len(started) <= taken + 1 + 5
    assert sorted(started) == list(range(40))


def test_an_error_while_reading_ahead_comes_in_its_place_and_stops_the_rest() -> None:
    walked: list[int] = []

    def records() -> Iterator[Record]:
        for i in range(1000):
            walked.append(i)
            yield Record(str(i), "test", str(i), 1, 1)

    def read(record: Record) -> NDArray[np.uint8]:
        if record.path == "7":
            raise UserError("7 is broken")
        return np.zeros((1, 1, 3), np.uint8)

    images = features.read_ahead(read, records(), 4, 5)
    assert sum(1 for _ in zip(range(7), images, strict=False)) == 7
    with pytest.raises(UserError, match="7 is broken"):
        next(images)
    assert len(walked) <= 7 + 1 + 5


def test_import_projector_applies_the_output_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from vista.projector.module import load_projector

    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 8)
    torch.save(layer.state_dict(), tmp_path / "theirs.pth")

    def write_features(work: Path) -> None:
        writer = FeatureWriter(work / "features.zarr", ["a"], (1, 1), 6)
        writer.write_shard(0, np.zeros((1, 1, 6)))
        writer.close()

    monkeypatch.setattr(loading, "llm_width", lambda *_: 8)
    settings = PretrainedProjector(pretrained=str(tmp_path / "theirs.pth"), output_scale=3.0)
    llm = {"source": {"kind": "standin", "family": "llama"}}
    job_settings = {"llm": llm, "projector": settings.model_dump(mode="json")}
    inputs = {"features": publish(tmp_path, "features", write_features)}
    made = publish(
        tmp_path,
        "import_projector",
        lambda work: import_projector.run(Job("n", job_settings, inputs, work)),
    )
    ours = load_projector(made.path, d_vision=6, d_model=8)
    x = torch.randn(5, 6)
    torch.testing.assert_close(ours(x), 3.0 * layer(x))


def test_import_sae_applies_the_activation_scale(tmp_path: Path) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    import torch
    from sae_lens.saes.sae import SAEMetadata

    from vista.sae.neutral import load_sae

    scaled = "expected_average_only_in"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sae_lens.StandardSAE(
            sae_lens.StandardSAEConfig(
                d_in=6,
                d_sae=20,
                normalize_activations=scaled,
                metadata=SAEMetadata(hook_name="blocks.1.hook_resid_post"),
            )
        )
        generator = torch.Generator().manual_seed(0)
        for tensor in theirs.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        theirs.save_model(tmp_path / "theirs")
    source = ImportSaeSettings(path=str(tmp_path / "theirs"), activation_scale=2.5)
    settings = {"sae": source.model_dump(mode="json"), "layer": 1, "name": "their-l1"}
    made = publish(
        tmp_path, "import_sae", lambda work: import_sae.run(Job("n", settings, {}, work))
    )
    ours = load_sae(made.path)
    x = torch.randn(7, 6, generator=generator)
    with torch.no_grad():
        expected = theirs.eval().decode(theirs.encode(2.5 * x)) / 2.5
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
    assert ours.config.layer == 1
