"""A DINOv2 out of an ONNX file: equal outputs, and files that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_onnx
import torch
from numpy.typing import NDArray

from vista.encoders.contract import load_encoder
from vista.encoders.onnx import convert_dinov2
from vista.errors import UserError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
SIZE = tiny_onnx.PATCH * tiny_onnx.GRID
NEWER = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
Weights = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def vit() -> Any:
    return tiny_onnx.dinov2()


@pytest.fixture(scope="module")
def weights(vit: Any, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tiny_onnx.weights(vit, tmp_path_factory.mktemp("saved"))


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that converts the bytes of a file and returns the folder of the model."""

    def converted(content: bytes, size: int = SIZE, heads: int | None = tiny_onnx.HEADS) -> Path:
        (tmp_path / "vit.onnx").write_bytes(content)
        folder = tmp_path / "model"
        convert_dinov2(tmp_path / "vit.onnx", folder, size=size, mean=MEAN, std=STD, heads=heads)
        return folder

    return converted


def same_outputs(folder: Path, vit: Any, size: int, tolerance: float = 0.0) -> None:
    images_bhwc = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    encoder = load_encoder(folder, "dinov2")
    pixels = torch.from_numpy(images_bhwc).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        expected_bpd = vit(pixels).last_hidden_state[:, 1:]
    assert encoder.grid == (size // tiny_onnx.PATCH,) * 2
    torch.testing.assert_close(
        encoder.encode(images_bhwc), expected_bpd, rtol=tolerance, atol=tolerance + 1e-5
    )


@pytest.mark.parametrize("prefix", ["backbone.", "", "model.encoder."])
@pytest.mark.parametrize("apart", [True, False])
def test_an_exported_encoder_gives_the_features_of_the_model(
    prefix: str, apart: bool, vit: Any, weights: Weights, convert: Callable[..., Path]
) -> None:
    same_outputs(convert(tiny_onnx.export(weights, prefix, apart=apart)), vit, SIZE)


def test_the_size_of_the_input_is_a_setting(
    vit: Any, weights: Weights, convert: Callable[..., Path]
) -> None:
    same_outputs(convert(tiny_onnx.export(weights), size=SIZE // 2), vit, SIZE // 2)


def test_names_of_newer_versions_are_read(
    vit: Any, weights: Weights, convert: Callable[..., Path]
) -> None:
    newer = {}
    for name, array in weights.items():
        for old, new in NEWER.items():
            name = name.replace(old, new)
        newer[name] = array
    assert newer.keys() != weights.keys()
    same_outputs(convert(tiny_onnx.export(newer)), vit, SIZE)


def test_numbers_may_be_a_field_of_floats_or_of_16_bits(
    vit: Any, weights: Weights, convert: Callable[..., Path], tmp_path: Path
) -> None:
    same_outputs(convert(tiny_onnx.export(weights, floats=True)), vit, SIZE)
    (tmp_path / "model").rename(tmp_path / "first")
    halves = {name: array.astype(np.float16) for name, array in weights.items()}
    same_outputs(convert(tiny_onnx.export(halves)), vit, SIZE, tolerance=0.05)


def test_heads_are_64_channels_each_where_none_are_set(
    weights: Weights, convert: Callable[..., Path]
) -> None:
    folder = convert(tiny_onnx.export(weights), heads=None)
    assert json.loads((folder / "config.json").read_text())["num_attention_heads"] == 1


def test_two_conversions_write_the_same_bytes(weights: Weights, tmp_path: Path) -> None:
    (tmp_path / "vit.onnx").write_bytes(tiny_onnx.export(weights))
    for name in ("a", "b"):
        convert_dinov2(tmp_path / "vit.onnx", tmp_path / name, size=SIZE, mean=MEAN, std=STD)
    files = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in files] == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert all(path.read_bytes() == (tmp_path / "b" / path.name).read_bytes() for path in files)


def without(name: str) -> Callable[[Weights], bytes]:
    return lambda weights: tiny_onnx.export({k: v for k, v in weights.items() if k != name})


def changed(name: str, array: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Weights], bytes]:
    return lambda weights: tiny_onnx.export({**weights, name: array(weights[name])})


FC1, LAYER = "encoder.layer.1.mlp.fc1", "encoder.layer.1."
POSITIONS = "embeddings.position_embeddings"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda _: b"<!doctype html><p>Not found", "is a web page"),
        (lambda weights: tiny_onnx.export(weights)[:-1000], "no ONNX file, or is damaged"),
        (lambda _: tiny_onnx.model([], []), "0 tensors named embeddings.patch_embeddings"),
        (without("layernorm.bias"), "no tensor layernorm.bias"),
        (
            without(f"{FC1}.weight"),
            "no single MatMul to whose product encoder.layer.1.mlp.fc1.bias",
        ),
        (without(f"{FC1}.bias"), "no tensor encoder.layer.1.mlp.fc1.bias"),
        (without(POSITIONS), "neither embeddings.position_embeddings nor two constants"),
        (changed(POSITIONS, lambda array: array[:, :-1]), "of 35 patches, not a square"),
        (changed(f"{FC1}.weight", lambda array: array[:-1]), r"\[32, 63\], not \[32, 64\]"),
        (changed("layernorm.bias", lambda array: array[:-1]), r"\[31\], not \[32\]"),
        (lambda weights: tiny_onnx.export(weights, external=True), "external data"),
        (changed("layernorm.bias", lambda array: array.astype(np.int8)), "the type 3 of ONNX"),
        (
            lambda weights: tiny_onnx.export(
                {k: v for k, v in weights.items() if not k.startswith("encoder.layer.0.")}
            ),
            "1 blocks encoder.layer",
        ),
        (
            lambda weights: tiny_onnx.export(
                {**weights, "embeddings.register_tokens": np.zeros((1, 4, 32), np.float32)}
            ),
            "register tokens",
        ),
    ],
)
def test_another_file_is_refused_and_says_what_is_missing(
    content: Callable[[Weights], bytes],
    message: str,
    weights: Weights,
    convert: Callable[..., Path],
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=message) as told:
        convert(content(weights))
    assert str(tmp_path / "vit.onnx") in str(told.value)
    assert not (tmp_path / "model").exists()


def test_a_size_or_heads_that_do_not_fit_are_refused(
    weights: Weights, convert: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match="size 25 px is no multiple of the model's patches of 4"):
        convert(tiny_onnx.export(weights), size=25)
    with pytest.raises(UserError, match="5 heads do not divide its width 32"):
        convert(tiny_onnx.export(weights), heads=5)


def test_a_bias_of_two_products_is_refused(weights: Weights, convert: Callable[..., Path]) -> None:
    """An exporter keeps one of several equal constants: whose weight is meant is not known."""
    other = list(weights).index("encoder.layer.0.mlp.fc1.weight")
    again = tiny_onnx.operation("Add", [f"backbone.{FC1}.bias", f"p{other}"], "again")
    with pytest.raises(UserError, match=f"no single MatMul to whose product {FC1}.bias"):
        convert(tiny_onnx.export(weights, further=[again]))
