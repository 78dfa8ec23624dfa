"""A language model out of a GGUF file, its weights dequantised, as a `save_pretrained` folder.

Transformers reads the file and names the weights; here the file is checked before that.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vista.errors import UserError
from vista.foreign.gguf import Header, read_header, refuse_without_package
from vista.foreign.pretrained import load_model, load_part, loading
from vista.foreign.weights import refuse_endless
from vista.language.model import find_blocks

# The factors of Llama 3.1 and later on wavelengths of rotary positions. Transformers does not take
# them from a GGUF file: the model would run, with wrong positions.
_FACTORS = "rope_freqs.weight"
# What the factors are computed from besides the largest one, in all published models of the family.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_NAME = "model.gguf"
# Tokens that end an answer, beside the end of the text.
_ENDS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def convert_gguf(
    path: Path, folder: Path, dtype: Literal["float32", "float16", "bfloat16"]
) -> None:
    """Write the model of the GGUF file at `path` into `folder`: config.json, safetensors weights
    in `dtype`, tokenizer and generation_config.json.

    Raises UserError where the package gguf is not installed, or the file is damaged, of a class or
    quantisation that transformers does not read, or holds numbers that `dtype` does not.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    header = read_header(path)
    refuse_without_package(path)
    # In a folder of its own: transformers would read other files beside it, too.
    with (
        tempfile.TemporaryDirectory(dir=folder.parent) as alone,
        loading(
            f"{path}: could not be read as a causal language model",
            "a GGUF file of a class and a quantisation that transformers reads",
        ),
    ):
        (Path(alone) / _NAME).symlink_to(path.absolute())
        config = load_part(AutoConfig, alone, gguf_file=_NAME)
        refuse_endless(config.to_dict(), path)
        _check_weights(header, config, path)
        _scale_positions(config, header, path)
        tokenizer = load_part(AutoTokenizer, alone, gguf_file=_NAME)
        model, missing = load_model(
            AutoModelForCausalLM,
            alone,
            config=config,
            gguf_file=_NAME,
            dtype=torch.float32,
            **_dequantised(),
        )
        if missing:
            raise UserError(
                f"{path}: {len(missing)} weights of the model are not in it (first: {missing[0]}); "
                "take another file"
            )
        find_blocks(model, config.get_text_config().num_hidden_layers)
        _end_answers(model, header)
        model = _stored(model, getattr(torch, dtype), path)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _dequantised() -> dict[str, Any]:
    """Options of `from_pretrained` that unpack all weights; before 5.23 there is no other way."""
    import transformers

    kind = getattr(transformers, "GgufConfig", None)
    return {} if kind is None else {"quantization_config": kind(dequantize=True)}


def _check_weights(header: Header, config: Any, path: Path) -> None:
    """Refuse a header that describes a model of more weights than the file holds: with one damaged
    number the model could be larger than the memory."""
    import transformers

    classes: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = classes.from_config(config, trust_remote_code=False)
    model.tie_weights()
    described = sum(weight.numel() for weight in model.parameters())
    if described > header.elements:
        raise UserError(
            f"{path}: its header describes a model of {described} weights, and its tensors hold "
            f"{header.elements}; fetch it again"
        )
    read = [tensor.size for name, tensor in header.tensors.items() if name != _FACTORS]
    if surplus := sum(read) - described:
        print(f"{path}: {surplus} of {header.elements} weights are not read", file=sys.stderr)


def _scale_positions(config: Any, header: Header, path: Path) -> None:
    """Take over the scaling of rotary positions that a file holds as one factor a frequency."""
    held = header.tensors.get(_FACTORS)
    if held is None:
        return
    rotary = getattr(config, "rope_parameters", None)
    if held.type == "F32" and isinstance(rotary, dict) and rotary.get("rope_type") == "default":
        factor_f = np.fromfile(path, "<f4", held.size, offset=held.start)
        longest = float(factor_f.max())
        expected_f = _llama3_factors(held.size, float(rotary["rope_theta"]), longest)
        if np.allclose(factor_f, expected_f, rtol=1e-3):
            scaling = {**_LLAMA3, "rope_type": "llama3", "factor": longest}
            config.rope_parameters = {**rotary, **scaling}
            return
    raise UserError(
        f"{path} has scaled rotary frequencies ({_FACTORS}) of another kind than Llama 3's, which "
        "transformers does not read; take the model's safetensors checkpoint"
    )


def _llama3_factors(n: int, base: float, factor: float) -> NDArray[np.float64]:
    """The factor on each of `n` wavelengths, as Llama 3.1 defines them: 1 for short ones, `factor`
    for long ones, and between them a blend."""
    turns_f = _LLAMA3["original_max_position_embeddings"] * base ** -(np.arange(n) / n) / math.tau
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    blend_f = np.clip((turns_f - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - blend_f) / factor + blend_f))


def _end_answers(model: Any, header: Header) -> None:
    """Let answers end at the ends of a turn that the file names, as at the end of the text."""
    generation = model.generation_config
    ends = generation.eos_token_id
    known = ends if isinstance(ends, list) else [] if ends is None else [ends]
    further = [header.metadata[key] for key in _ENDS if isinstance(header.metadata.get(key), int)]
    every = list(dict.fromkeys([*known, *further]))
    if len(every) > len(known):
        generation.eos_token_id = every


def _stored(model: Any, dtype: torch.dtype, path: Path) -> Any:
    model = model.to(dtype)
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise UserError(
                f"{path}: its weight {name} has numbers that {str(dtype).removeprefix('torch.')} "
                "does not hold; set stored_dtype: float32, or fetch the file again"
            )
    return model
