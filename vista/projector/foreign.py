"""A projector that another program trained, as one of ours.

Names differ from program to program (`linear.weight`, `module.linear.weight`,
`model.mm_projector.0.weight`, `linear_1.weight`), shapes do not: one or two weights
[out, in] with biases [out]. So layers are told by what stands before `.weight` and `.bias`, in
natural order, and checked by their shapes.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vista.errors import UserError
from vista.projector.module import KINDS, Projector

# Where training programs put the state dict when they save more than it.
_WRAPPERS = ("state_dict", "model_state_dict", "projector", "projector_state_dict", "model")


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
        UserError: the file is not there or holds more than tensors, its tensors are not one or
            two linear layers, or their widths are not those of the models.
    """
    layers = _layers(_tensors(path), path)
    kind = next((name for name, n in KINDS.items() if n == len(layers)), None)
    if kind is None:
        raise UserError(
            f"{path}: {len(layers)} linear layers; a projector here has one, or two with a GELU"
        )
    module = Projector(kind, d_vision, d_model)
    with torch.no_grad():
        for layer, (name, weight, bias) in zip(module.linears(), layers, strict=True):
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
        for parameter in module.linears()[-1].parameters():
            parameter.mul_(output_scale)
    return module.requires_grad_(False).eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, out of any wrapper."""
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            # weights_only: a pickle can run anything, this unpickler makes tensors and no more.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"projector {path} does not exist; correct `pretrained`") from error
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError) as error:
        # What torch says here is long and recommends to read the file without protection.
        unsafe = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors" if unsafe else str(error).splitlines()[0][:120]
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
        raise UserError(f"{path}: {wrong!r} is no tensor; save the projector's state_dict() alone")
    return {str(name): value for name, value in content.items()}


def _layers(tensors: Mapping[str, Tensor], path: Path) -> list[tuple[str, Tensor, Tensor | None]]:
    """(name, weight, bias or None) of each linear layer, in natural order of their names.

    A name ends in a dot, or is empty where the tensors are called `weight` and `bias` alone.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        layer, dot, part = name.rpartition(".")
        if part not in ("weight", "bias") or value.ndim != (2 if part == "weight" else 1):
            raise UserError(
                f"{path}: {name} {list(value.shape)} is not the weight or bias of a linear layer; "
                "a file with the projector's tensors alone is expected"
            )
        if not torch.isfinite(value).all():
            raise UserError(f"{path}: {name} holds NaN or infinity")
        found.setdefault(layer + dot, {})[part] = value
    lonely = next((layer for layer, parts in found.items() if "weight" not in parts), None)
    if lonely is not None:
        raise UserError(f"{path}: {lonely}bias has no {lonely}weight beside it")
    ordered = sorted(found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    return [(name, found[name]["weight"], found[name].get("bias")) for name in ordered]
