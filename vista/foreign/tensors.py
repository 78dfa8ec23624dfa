"""Files of tensors that other programs saved with torch.save, or as safetensors.

A pickle can run anything. Here torch's restricted unpickler makes tensors, plain values and, where
a caller names its class, a settings object, of which only the attributes are taken: the class
itself is never imported.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vista.errors import UserError, reason_of
from vista.foreign.text import one_line
from vista.foreign.weights import refuse_no_weights

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class _Attributes:
    """Stands in for the class of a settings object: it has attributes, and does nothing."""


def read_checkpoint(path: Path, *, skip: int = 0, settings: Collection[str] = ()) -> Any:
    """Return what a file holds: tensors in mappings, plain values, settings as mappings.

    Args:
        path: A file of torch.save, or of safetensors by its suffix.
        skip: Bytes at its start that are not part of what torch saved.
        settings: Full names of classes whose objects are read as mappings of their attributes.

    Raises:
        UserError: The file cannot be read, is no such file, or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist, or is no file; correct the path")
    refuse_no_weights(path)
    stand_ins = [(_Attributes, name) for name in settings]
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            if not skip:
                return _plain(torch.load(path, map_location="cpu", weights_only=True))
            content = io.BytesIO(path.read_bytes()[skip:])
            return _plain(torch.load(content, map_location="cpu", weights_only=True))
    except UserError:
        raise
    except Exception as error:  # both libraries raise anything on a file that is damaged
        reason = reason_of(error)
        if isinstance(error, pickle.UnpicklingError):
            # What torch says here is long and recommends to read the file without protection.
            is_unsafe = re.search(
                r"[Uu]nsupported (global|GLOBAL|class)|allowlisted|reduce", str(error)
            )
            reason = "it holds more than tensors" if is_unsafe else "it is damaged"
        raise UserError(
            f"{path}: not a file of plain tensors ({reason}); save its state_dict() alone with "
            "torch.save, or as safetensors"
        ) from error


def float_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict in float32; whole numbers (a buffer `k`) are kept.

    Raises:
        UserError: It is no mapping of names to tensors, or one is sparse, quantised, of a number
            format that is not read, or not finite.
    """
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path}: no state dict in it; save the model's state_dict()")
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        shown = one_line(name)[:100]
        if not isinstance(value, Tensor):
            raise UserError(f"{path}: {shown!r} is no tensor; save the state_dict() alone")
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            raise UserError(f"{path}: {shown} is no dense tensor; save the model in float32")
        if value.dtype in (torch.int32, torch.int64):
            tensors[str(name)] = value.detach()
            continue
        if value.dtype not in _DTYPES:
            raise UserError(
                f"{path}: {shown} is a tensor of {str(value.dtype).removeprefix('torch.')}, "
                "expected float32, bfloat16, float16 or float64; save the model in one of them"
            )
        tensors[str(name)] = value.detach().float()
        if not torch.isfinite(tensors[str(name)]).all():
            raise UserError(
                f"{path}: {shown} holds NaN or infinity, or numbers beyond float32; fetch it again"
            )
    return tensors


def _plain(content: Any, depth: int = 0) -> Any:
    """The content with settings objects as mappings of their attributes."""
    if depth > 8:
        return content
    if isinstance(content, _Attributes):
        content = vars(content)
    if isinstance(content, Mapping):
        return {key: _plain(value, depth + 1) for key, value in content.items()}
    return content
