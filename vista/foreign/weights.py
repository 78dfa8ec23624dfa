"""Checks of checkpoints: files that hold no weights, and weights that need another package.

Cheap enough for a plan: only the first bytes of a file and a checkpoint's config.json are read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shown  # cuts long values
from typing import Any
from zipfile import ZipFile

from vista.errors import UserError, reason_of
from vista.foreign.text import read_json_object
from vista.foreign.values import integer

SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})
_POINTERS = {
    b"version https://git-lfs": ("a Git LFS pointer", "run `git lfs pull` in its repository"),
    b"/annex/objects/": ("a git-annex pointer", "run `git annex get` in its repository"),
}
_ARCHIVE, _FOLDER = b"PK", 0x10  # the first bytes of a zip; an attribute in its index
_PAGE = (b"<!doctype html", b"<html", b"<?xml")
# Method in a config's quantization_config -> modules that transformers imports for it.
_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "aqlm": ("aqlm",),
    "auto-round": ("auto_round",),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "eetq": ("kernels",),
    "fbgemm_fp8": ("fbgemm_gpu",),
    "gptq": ("optimum", "gptqmodel"),
    "higgs": ("flute", "fast_hadamard_transform"),
    "hqq": ("hqq",),
    "mxfp4": ("kernels",),
    "quanto": ("optimum.quanto",),
    "spqr": ("spqr_quant",),
    "torchao": ("torchao",),
    "vptq": ("vptq",),
}


# Upper bounds on a config's sizes: no model has more.
_LARGEST: Mapping[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), 10_000),
    **dict.fromkeys(("hidden_size", "n_embd", "intermediate_size", "n_inner"), 1_000_000),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_key_value_heads"), 100_000),
    **dict.fromkeys(("head_dim", "image_size", "patch_size", "projection_dim"), 100_000),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 1_000_000_000),
    "vocab_size": 100_000_000,
}


def refuse_no_weights(path: Path) -> None:
    """Raise UserError where a file of weights is a pointer, a web page, empty, or an archive that
    torch would read wrongly."""
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    if not start:
        raise UserError(f"{path} is empty: fetch it again")
    for mark, (what, remedy) in _POINTERS.items():
        if start.startswith(mark):
            raise UserError(f"{path} is {what}, not the weights: {remedy}")
    if start.lower().startswith(_PAGE):
        raise UserError(
            f"{path} is a web page, not the weights: fetch it again, by its own address"
        )
    if start.startswith(_ARCHIVE) and _has_unread_record(path):
        raise UserError(f"{path} is damaged: fetch it again")


def _has_unread_record(path: Path) -> bool:
    """Whether a zip archive has content that its index calls a folder, or empty: torch.load returns
    uninitialised memory for such a record, without an error.
    """
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # reported by the library that loads the file
        return False
    return any(
        entry.file_size and (entry.external_attr & _FOLDER or not entry.compress_size)
        for entry in entries
    )


def check_checkpoint(folder: Path) -> None:
    """Raise UserError where a `save_pretrained` folder cannot be loaded on this machine: its
    config is damaged, a file of weights is none, or its quantisation needs a missing package.

    Other faults of a folder are reported by the library that loads it.
    """
    for path in sorted(folder.glob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            refuse_no_weights(path)
    if (folder / "config.json").is_file():
        config = read_json_object(folder / "config.json")
        refuse_endless(config, folder / "config.json")
        missing = [name for name in quantisation_packages(config) if not _is_installed(name)]
        if missing:
            raise UserError(
                f"{folder} is a checkpoint quantised with {_method(config)}, which needs "
                f"{' and '.join(missing)}: install that, or take the checkpoint in full precision"
            )


def refuse_endless(config: Mapping[str, Any], path: Path) -> None:
    """Refuse sizes that no model has: a library would build layers until the memory is full."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            refuse_endless(value, path)
        size = integer(value)
        if size is not None and size > _LARGEST.get(key, size):
            raise UserError(
                f"{path}: {key} is {shown(value)}, more than any model has; fetch the checkpoint "
                "again"
            )


def quantisation_packages(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules that loading a checkpoint with this config.json needs beside transformers."""
    return _PACKAGES.get(_method(config), ())


def _method(config: Mapping[str, Any]) -> str:
    parts = [config, config.get("text_config")]
    for part in parts:
        entry = part.get("quantization_config") if isinstance(part, dict) else None
        if isinstance(entry, dict):
            named = entry.get("quant_method")
            if isinstance(named, str):
                return named.lower().removesuffix("_4bit").removesuffix("_8bit")
            if entry.get("load_in_4bit") or entry.get("load_in_8bit"):
                return "bitsandbytes"  # older files name no method
    return ""


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False
