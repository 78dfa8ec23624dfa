"""From a folder on disk to a Hugging Face causal language model on its device or devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vista.device import find_device
from vista.errors import UserError
from vista.foreign.pretrained import load_model, load_part, loading
from vista.foreign.values import integer
from vista.language.vlm import IMAGE_INPUTS

# What multimodal checkpoints (Gemma 3 from 4B on, LLaVA; Qwen2.5-VL the last) carry beside the text
# decoder. Visual tokens are made before they come here, so these would only fill memory.
VISION_PARTS = ("vision_tower", "multi_modal_projector", "visual")


def load_checkpoint(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    device_map: str | Mapping[str, Any] | None = None,
    max_memory: Mapping[str, str] | None = None,
) -> tuple[Any, Any]:
    """The model and the tokenizer of a `save_pretrained` folder.

    Arguments as in `LanguageModel.load`. A multimodal checkpoint gives its text decoder.

    Raises:
        UserError: the folder is missing, has no safetensors weights, or weights are missing or of
            another shape; it holds no known causal language model; a package for quantised weights
            is missing; or a device is not there or has too little memory.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoTokenizer,
    )
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    spread: dict[str, Any] = {}
    if device_map is None:
        place = find_device(device)
    else:
        spread["device_map"] = device_map if isinstance(device_map, str) else dict(device_map)
        if max_memory is not None:
            # Accelerate numbers GPUs by integers and names the others.
            spread["max_memory"] = {
                int(name) if name.isdigit() else name: size for name, size in max_memory.items()
            }
    with loading(
        f"language model {folder}: could not be loaded as a causal language model",
        "a save_pretrained folder with a tokenizer and safetensors weights",
    ):
        tokenizer = load_part(AutoTokenizer, folder)
        tokenizer(["a text"])  # invalid settings fail here, not in the middle of a job
        multimodal = load_part(AutoConfig, folder).model_type in IMAGE_INPUTS
        auto_class = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
        # The attention implementation is left to the model: Gemma 2 picks the eager one, since
        # the fused one cannot cap the attention logits.
        model, missing = load_model(auto_class, folder, dtype=getattr(torch, dtype), **spread)
    missing = [name for name in missing if not set(VISION_PARTS) & set(name.split("."))]
    if missing:
        raise UserError(
            f"language model {folder}: {len(missing)} weights are missing (first: {missing[0]}); "
            "fetch or save the checkpoint again"
        )
    _drop_vision(model)
    if device_map is None:
        return model.to(place), tokenizer
    if any(parameter.is_meta for parameter in model.parameters()):
        raise UserError(
            f"device_map: language model {folder} does not fit into the memory of the devices; use "
            "more of them, a smaller dtype, or a larger max_memory"
        )
    return model, tokenizer


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer: instruction-tuned models have an end of turn beside EOS."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    values = list(declared) if isinstance(declared, list | tuple) else [declared]
    if tokenizer.eos_token_id is not None:
        values.append(tokenizer.eos_token_id)
    ids = [integer(value) for value in values if value is not None]
    rows = model.get_input_embeddings().weight.shape[0]
    ends = frozenset(token for token in ids if token is not None and 0 <= token < rows)
    if len(ends) < len(set(ids)):
        raise UserError(
            f"language model: its generation_config.json has eos_token_id {declared!r}, expected "
            "the id of a token or a list of them"
        )
    return ends


def _drop_vision(model: Any) -> None:
    inner = getattr(model, "model", None)
    for name in VISION_PARTS:
        if hasattr(inner, name):
            delattr(inner, name)
