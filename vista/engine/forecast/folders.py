"""What a folder that a config names lacks, from its small files and the first bytes of its weights.

No library that would load it is imported here: what only that can tell, the stage tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vista.errors import UserError
from vista.foreign.chat import chat_template
from vista.foreign.preprocessor import image_steps, preprocessors, read_preprocessor
from vista.foreign.text import read_json_object, read_text
from vista.foreign.weights import check_checkpoint
from vista.sae.lens_folder import folder_config

LANGUAGE, VISION, PIPELINE, SAE, MODEL = (
    "folder of the language model",
    "folder of the vision encoder",
    "folder of the pipeline",
    "folder of the SAE",
    "folder of the judge's model",
)
_INDEX = "model.safetensors.index.json"
# One of these is what a tokenizer is read from.
_TOKENIZERS = ("tokenizer*", "vocab*", "spiece.model", "sentencepiece.*", "tekken.json")
# Files that tell what else a folder holds.
_OTHERS = {
    "cfg.json": "an SAE",
    "model_index.json": "a pipeline of diffusers",
    "adapter_config.json": "an adapter (merge it into its model)",
}
_PARTS = ("text_encoder", "tokenizer", "unet", "vae", "scheduler")
_VIDEO, _VIDEO_PARTS = "StableVideoDiffusionPipeline", ("unet", "vae", "image_encoder", "scheduler")
_VISION_KEYS = ("vision_config", "patch_size", "image_size")


def problems(what: str, folder: Path) -> Iterator[str]:
    """Yield a sentence where a folder cannot be used as `what`, one of the names above."""
    try:
        if what in _CHECKS:
            _CHECKS[what](folder)
    except UserError as error:
        yield f"{error}."
    else:
        if what == VISION:
            yield from _two_preprocessors(folder)


def _language(folder: Path) -> None:
    config = _model(folder, "a language model")
    if "vocab_size" not in config and "text_config" not in config and _looks(config):
        raise UserError(f"{folder} holds a vision model, not a language model: correct its path")
    _tokenizer(folder)


def _vision(folder: Path) -> None:
    index = folder / "model_index.json"
    if index.is_file() and read_json_object(index).get("_class_name") == _VIDEO:
        _parts(folder, _VIDEO_PARTS)
        return
    config = _model(folder, "a vision encoder")
    if "vocab_size" in config and not _looks(config):
        raise UserError(f"{folder} holds a language model, not a vision encoder: correct its path")
    read_preprocessor(folder)


def _judge(folder: Path) -> None:
    _model(folder, "a model of transformers")
    _tokenizer(folder)


def _pipeline(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} has no model_index.json: give a pipeline that diffusers saved")
    read_json_object(folder / "model_index.json")
    _parts(folder, _PARTS)


def _parts(folder: Path, names: Sequence[str]) -> None:
    for part in names:
        if not (folder / part).is_dir():
            raise UserError(f"{folder / part} is missing: give the whole pipeline")
        check_checkpoint(folder / part)


_CHECKS: Mapping[str, Callable[[Path], object]] = {
    LANGUAGE: _language,
    VISION: _vision,
    PIPELINE: _pipeline,
    SAE: folder_config,
    MODEL: _judge,
}


def _model(folder: Path, what: str) -> dict[str, Any]:
    """The config of a `save_pretrained` folder with weights."""
    if not (folder / "config.json").is_file():
        held = next((name for file, name in _OTHERS.items() if (folder / file).is_file()), None)
        raise UserError(
            f"{folder} holds {held}, not {what}: correct its path"
            if held
            else f"{folder} has no config.json: give a save_pretrained folder of {what}"
        )
    check_checkpoint(folder)
    if (folder / _INDEX).is_file():
        shards = read_json_object(folder / _INDEX).get("weight_map")
        names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
        lost = [name for name in names if not (folder / name).is_file()]
        if lost:
            raise UserError(f"{folder / lost[0]} is missing: fetch the checkpoint again")
    elif not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder} has no safetensors weights: save it with them, or fetch it")
    return read_json_object(folder / "config.json")


def _tokenizer(folder: Path) -> None:
    if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS):
        raise UserError(f"{folder} has no tokenizer: save the model's tokenizer into it")
    try:
        chat_template(_templates(folder))
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error


def _templates(folder: Path) -> Any:
    """The chat template of a tokenizer's folder, or several by name, as transformers finds them."""
    whole, below = folder / "chat_template.jinja", folder / "additional_chat_templates"
    files = {path.stem: path for path in sorted(below.glob("*.jinja"))}
    if whole.is_file():
        files["default"] = whole
    if files:
        return {name: read_text(path) for name, path in files.items()}
    if not (folder / "tokenizer_config.json").is_file():
        return None
    listed = read_json_object(folder / "tokenizer_config.json").get("chat_template")
    if not isinstance(listed, list):
        return listed
    entries = [entry for entry in listed if isinstance(entry, Mapping)]
    return {str(entry.get("name")): entry.get("template") for entry in entries}


def _looks(config: Mapping[str, Any]) -> bool:
    return any(key in config for key in _VISION_KEYS)


def _two_preprocessors(folder: Path) -> Iterator[str]:
    """Two files of one folder that normalise images in two ways: one is used, the other is not."""
    entries = preprocessors(folder)
    if len(entries) < 2:
        return
    (used, content), (unused, other) = entries
    try:
        differ = image_steps(content) != image_steps(other)
    except UserError:
        return
    if differ:
        yield (
            f"{folder}: {used} and {unused} differ in how images are prepared: the first is used; "
            "remove the wrong one."
        )
