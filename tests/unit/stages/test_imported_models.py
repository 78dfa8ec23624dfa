"""Stages that convert models in files, of a package or the user's own, to what others load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_gguf
import tiny_onnx

from vista.config.encoders import EncoderSettings
from vista.config.language import LanguageSettings
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs.models import llm_width, load_llm, load_vision_encoder
from vista.stages import import_gguf, import_onnx

PACKAGE = {"package": {"kind": "pip", "package": "tiny", "version": "1.0", "sha256": "0" * 64}}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A fetched package with one file of each kind."""
    root = tmp_path_factory.mktemp("results")
    saved = tmp_path_factory.mktemp("saved")
    provenance = Provenance("fetch_package", PACKAGE, {}, "", {})
    with publishing(root, "fetch_package", "tiny", provenance) as work:
        assert work is not None
        folder = work / "files/tiny"
        folder.mkdir(parents=True)
        llama = tiny_gguf.llama(tiny_gguf.tokenizer().get_vocab_size())
        tiny_gguf.write_gguf(folder / "m.gguf", llama)
        weights = tiny_onnx.weights(tiny_onnx.dinov2(), saved)
        (folder / "vit.onnx").write_bytes(tiny_onnx.export(weights))
    return open_artifact(root / "fetch_package/tiny")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Artifact]:
    """Return a function that runs a stage and publishes what it writes."""

    def published(stage: Any, settings: dict[str, Any], package: Artifact | None) -> Artifact:
        name = stage.__name__.rpartition(".")[2]
        inputs: Any = {"package": package} if package else {}
        with publishing(tmp_path, name, "one", Provenance(name, settings, {}, "", {})) as work:
            assert work is not None
            stage.run(Job(name, settings, inputs, work))
        return open_artifact(tmp_path / name / "one")

    return published


@pytest.mark.parametrize("own", [True, False])
def test_a_language_model_is_loaded_as_a_checkpoint_is(
    own: bool, run: Callable[..., Artifact], package: Artifact
) -> None:
    file = str(package.path / "files/tiny/m.gguf") if own else "tiny/m.gguf"
    source = {"kind": "gguf", "file": file, "stored_dtype": "float32"}
    model = run(import_gguf, source, None if own else package)
    assert {name.partition("/")[0] for name in model.checksums} == {"model"}
    settings = LanguageSettings.model_validate({"source": source})
    assert load_llm(settings, model).n_blocks == tiny_gguf.BLOCKS
    assert llm_width(settings, model) == tiny_gguf.WIDTH


@pytest.mark.parametrize("own", [True, False])
def test_an_encoder_is_loaded_as_a_checkpoint_is(
    own: bool, run: Callable[..., Artifact], package: Artifact
) -> None:
    file = str(package.path / "files/tiny/vit.onnx") if own else "tiny/vit.onnx"
    source = {"kind": "onnx", "family": "dinov2", "file": file, "size": 12}
    model = run(import_onnx, source, None if own else package)
    images = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3), dtype=np.uint8)

    def encoded(**changes: Any) -> Any:
        settings = EncoderSettings.model_validate({"source": {**source, **changes}})
        return load_vision_encoder(settings, model).encode(images)

    assert encoded().shape == (1, 9, tiny_onnx.WIDTH)
    assert (encoded(random_weights=3) == encoded(random_weights=3)).all()
    assert not (encoded(random_weights=3) == encoded()).any()


def test_a_file_that_is_not_there_is_told(run: Callable[..., Artifact], package: Artifact) -> None:
    with pytest.raises(UserError, match=r"tiny 1.0 has no file 'm.gguf'; it has tiny/m.gguf"):
        run(import_gguf, {"kind": "gguf", "file": "m.gguf"}, package)
    with pytest.raises(UserError, match=r"gone.onnx is not a file"):
        source = {"kind": "onnx", "family": "dinov2", "file": "gone.onnx", "size": 12}
        run(import_onnx, source, None)
