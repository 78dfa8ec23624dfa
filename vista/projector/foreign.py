"""Import of a projector that another program trained.

Names differ from program to program (`linear.weight`, `module.linear.weight`,
`model.mm_projector.0.weight`, `linear_1.weight`), shapes do not: one or two weights
[out, in] with biases [out]. So a layer's name is what stands before `.weight` and `.bias`. Layers
are checked by their shapes and ordered by the number in their names; where names differ in more
than a number, by the shapes, if those leave no doubt.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from vista.errors import UserError, reason_of
from vista.foreign.weights import refuse_no_weights
from vista.projector.module import KINDS, Projector

# Where training programs put the state dict when they save more than it.
_WRAPPERS = ("state_dict", "model_state_dict", "projector", "projector_state_dict", "model")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_Layer = tuple[str, Tensor, Tensor | None]


def read_foreign(
    path: Path, *, d_vision: int, d_model: int, output_scale: float = 1.0
) -> Projector:
    """Convert a foreign state dict to a projector, frozen and in evaluation mode, in float32.

    Args:
        path: a PyTorch file, read with weights_only, or safetensors.
        d_vision: width of the encoder's patch features.
        d_model: width of the LLM's residual stream.
        output_scale: factor on the output, folded into the last layer.

    Raises:
        UserError: the file is not there, is damaged or holds more than tensors, its tensors are not
            one or two linear layers of floats, the order of two is ambiguous, or their widths are
            not those of the models.
    """
    layers = _layers(_tensors(path), path)
    kind = next((name for name, n in KINDS.items() if n == len(layers)), None)
    if kind is None:
        raise UserError(
            f"{path}: {len(layers)} linear layers; a projector here has one, or two with a GELU"
        )
    module = Projector(kind, d_vision, d_model)
    with torch.no_grad():
        for layer, (name, weight, bias) in zip(
            module.linears(), _ordered(layers, path), strict=True
        ):
            if weight.shape != layer.weight.shape:
                raise UserError(
                    f"{path}: {name}weight is {list(weight.shape)}, expected "
                    f"{list(layer.weight.shape)} between an encoder of width {d_vision} and an "
                    f"LLM of width {d_model}; name the models that the projector was trained for"
                )
            if bias is not None and bias.shape != layer.bias.shape:
                raise UserError(
                    f"{path}: {name}bias is {list(bias.shape)}, expected {list(layer.bias.shape)}"
                )
            layer.weight.copy_(weight)
            layer.bias.zero_() if bias is None else layer.bias.copy_(bias)
            for part, value in layer.named_parameters():
                if not torch.isfinite(value).all():
                    raise UserError(
                        f"{path}: {name}{part} holds NaN or infinity, or numbers beyond float32; "
                        "fetch or save the projector again"
                    )
        for parameter in module.linears()[-1].parameters():
            parameter.mul_(output_scale)
            if not torch.isfinite(parameter).all():
                raise UserError(
                    f"{path}: `output_scale` {output_scale:g} makes numbers beyond float32; "
                    "correct it"
                )
    return module.requires_grad_(False).eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, out of any wrapper."""
    if not path.exists():
        raise UserError(f"projector {path} does not exist; correct `pretrained`")
    refuse_no_weights(path)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            # weights_only: a pickle can run anything, this unpickler makes tensors and no more.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise anything on a file that is damaged
        reason = reason_of(error)
        if isinstance(error, pickle.UnpicklingError):
            # What torch says here is long and recommends to read the file without protection.
            is_unsafe = re.search(r"[Uu]nsupported (global|GLOBAL)|allowlisted|reduce", str(error))
            reason = "it holds more than tensors" if is_unsafe else "it is damaged"
        raise UserError(
            f"{path}: not a file of plain tensors ({reason}); save the projector's state_dict() "
            "again, with torch.save or as safetensors"
        ) from error
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path}: no state dict in it; save the projector's state_dict()")
    wrong = next((n for n, value in content.items() if not isinstance(value, Tensor)), None)
    if wrong is not None:
        raise UserError(
            f"{path}: {str(wrong)[:100]!r} is no tensor; save the projector's state_dict() alone"
        )
    for name, value in content.items():
        is_plain = value.layout is torch.strided and value.device.type == "cpu"
        if not is_plain or value.is_quantized or value.dtype not in _DTYPES:
            raise UserError(
                f"{path}: {str(name)[:100]} is a tensor of {_kind(value)}, expected float32, "
                "bfloat16, float16 or float64; save the projector in one of them"
            )
    return {str(name): value.detach() for name, value in content.items()}


def _kind(value: Tensor) -> str:
    kind = str(value.dtype).removeprefix("torch.")
    if value.layout is not torch.strided:
        return f"{kind} in a sparse layout"
    return kind if value.device.type == "cpu" else f"{kind} without values"


def _layers(tensors: Mapping[str, Tensor], path: Path) -> list[_Layer]:
    """(name, weight, bias or None) of each linear layer.

    A name ends in a dot, or is empty where the tensors are called `weight` and `bias` alone.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        layer, dot, part = name.rpartition(".")
        if part not in ("weight", "bias") or value.ndim != (2 if part == "weight" else 1):
            what = " (of a normalisation?)" if part == "weight" and value.ndim == 1 else ""
            raise UserError(
                f"{path}: {name[:100]} {list(value.shape)}{what} is not the weight or bias of a "
                "linear layer; a file with the tensors of one or two linear layers alone is "
                "expected"
            )
        layers.setdefault(layer + dot, {})[part] = value
    lonely = next((layer for layer, parts in layers.items() if "weight" not in parts), None)
    if lonely is not None:
        raise UserError(f"{path}: {lonely}bias has no {lonely}weight beside it")
    return [(name, parts["weight"], parts.get("bias")) for name, parts in layers.items()]


def _ordered(layers: list[_Layer], path: Path) -> list[_Layer]:
    """The layers, first to last: one, or two whose names or shapes tell which comes first."""
    if len(layers) == 1:
        return layers
    first, second = layers
    numbers = _numbers(first[0], second[0])
    if numbers is not None:
        return layers if numbers[0] < numbers[1] else [second, first]
    # The second layer is as wide as it is high, [d_model, d_model]; the first reads the encoder.
    square = [weight.shape[0] == weight.shape[1] for _, weight, _ in layers]
    if square[0] == square[1]:
        raise UserError(
            f"{path}: which of the layers {first[0]}weight {list(first[1].shape)} and "
            f"{second[0]}weight {list(second[1].shape)} comes first is not told; name them "
            "`0.weight` (that reads the encoder) and `2.weight`"
        )
    return layers if square[1] else [second, first]


def _numbers(first: str, second: str) -> tuple[int, int] | None:
    """The numbers in which two names differ, if they differ in nothing before them."""
    for one, other in zip(
        re.split(r"([0-9]+)", first), re.split(r"([0-9]+)", second), strict=False
    ):
        if one != other:
            is_number = one.isdecimal() and other.isdecimal() and max(len(one), len(other)) < 10
            return (int(one), int(other)) if is_number and int(one) != int(other) else None
    return None
