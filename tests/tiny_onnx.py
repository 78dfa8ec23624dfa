"""Tiny ONNX files, written byte by byte as PyTorch exports a DINOv2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, BLOCKS, HEADS, PATCH, GRID = 32, 2, 2, 4, 6
Array = NDArray[Any]
_TYPES = {"float32": 1, "int64": 7, "float16": 10, "float64": 11, "int8": 3}
_LINEAR = ("query", "key", "value", "dense", "fc1", "fc2", *(f"{part}_proj" for part in "qkvo"))


def varint(value: int) -> bytes:
    """A whole number as protobuf writes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(name: str, array: Array, floats: bool = False, external: bool = False) -> bytes:
    """A TensorProto; its numbers as raw bytes, as a packed field of floats, or in another file."""
    message = b"".join(field(1, size) for size in array.shape)
    message += field(2, _TYPES[array.dtype.name])
    if external:
        message += field(8, name) + field(13, field(1, "location") + field(2, "weights.bin"))
        return message + field(14, 1)
    return message + field(4 if floats else 9, array.tobytes()) + field(8, name)


def operation(operator: str, inputs: list[str], output: str) -> bytes:
    """A NodeProto."""
    named = b"".join(field(1, name) for name in inputs) + field(2, output)
    return named + field(3, f"/{output}") + field(4, operator)


def model(operations: list[bytes], tensors: list[bytes]) -> bytes:
    """A ModelProto."""
    graph = b"".join(field(1, node) for node in operations) + field(2, "main_graph")
    graph += b"".join(field(5, constant) for constant in tensors)
    return field(1, 8) + field(2, "pytorch") + field(7, graph) + field(8, field(2, 17))


def dinov2(seed: int = 0, **sizes: Any) -> Any:
    """A DINOv2 of random weights, no two of them equal."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.Dinov2Config(
        **{
            "hidden_size": WIDTH,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": HEADS,
            "patch_size": PATCH,
            "image_size": GRID * PATCH,
            "mlp_ratio": 2,
            "use_mask_token": False,
            **sizes,
        }
    )
    vit = transformers.Dinov2Model(config).eval()
    with torch.no_grad():
        for weight in vit.parameters():
            weight.copy_(torch.randn_like(weight) * 0.2)
    return vit


def weights(vit: Any, folder: Path) -> dict[str, Array]:
    """The parameters of a model by the names that its checkpoints have."""
    from safetensors.numpy import load_file

    vit.save_pretrained(folder)
    held: dict[str, Array] = load_file(folder / "model.safetensors")
    return held


def export(
    parameters: Mapping[str, Array],
    prefix: str = "backbone.",
    *,
    apart: bool = True,
    further: Sequence[bytes] = (),
    **how: Any,
) -> bytes:
    """The bytes of an ONNX file with a DINOv2 and another part.

    Args:
        apart: position embeddings are two constants without a name, as where they are resized.
        further: more operations.
        how: of the tensors, as `tensor` takes it.
    """
    operations, tensors = [], [tensor("head.weight", np.zeros((1, WIDTH), np.float32))]
    for number, (name, array) in enumerate(parameters.items()):
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and layer.rpartition(".")[2] in _LINEAR:
            constant, product, bias = f"onnx::MatMul_{number}", f"p{number}", f"{layer}.bias"
            tensors.append(tensor(constant, np.ascontiguousarray(array.T), **how))
            operations.append(operation("MatMul", [f"x{number}", constant], product))
            operations.append(operation("Add", [prefix + bias, product], f"y{number}"))
        elif name == "embeddings.position_embeddings" and apart:
            tensors.append(tensor("onnx::Concat_7", array[:, :1], **how))
            tensors.append(tensor("onnx::Reshape_8", array[:, 1:], **how))
            operations.append(operation("Reshape", ["onnx::Reshape_8", "shape"], "resized"))
            operations.append(operation("Concat", ["onnx::Concat_7", "resized"], "positions"))
        else:
            tensors.append(tensor(prefix + name, array, **how))
    return model([*operations, *further], tensors)
