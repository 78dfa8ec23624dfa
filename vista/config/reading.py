"""Reading and checking a config; each mistake is reported in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vista.config.judges import judge_names
from vista.config.run import RunConfig
from vista.config.values import refuse_odd
from vista.errors import UserError


def load_config(path: Path) -> RunConfig:
    """Read a config file. Raises UserError that names the file and the key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"config file {path} does not exist.") from error
    # PyYAML lets through what its constructors raise, over a date such as 2026-13-40.
    except (OSError, ValueError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"config file {path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"config file {path} must hold keys and values, e.g. `name: my_run`.")
    return parse_config(content, str(path))


def parse_config(content: Mapping[str, Any], place: str = "config") -> RunConfig:
    """Check the content of a config. Raises UserError that names all wrong keys."""
    refuse_odd(content, place)
    try:
        return RunConfig.model_validate(_plain(content))
    except ValidationError as error:
        lines = [_complaint(fault, content) for fault in error.errors()]
        raise UserError(f"{place}: " + "; ".join(dict.fromkeys(lines))) from None


def _plain(value: Any) -> Any:
    """Turn mappings of any type (Snakemake has its own) into dicts."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _complaint(error: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return one pydantic error as a sentence: the key, the value, what was expected."""
    key = _key(error["loc"], content)
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][-1])
        close = difflib.get_close_matches(name, _known_keys(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "remove it, or see `vista schema`."
        if name in close:
            hint = "it belongs to another part; remove it, or see `vista schema`."
        return f"unknown key {key}; {hint}"
    if error["type"] == "missing":
        *above, last = error["loc"]
        key = ".".join(filter(None, (_key(tuple(above), content), str(last))))
        return f"key {key} is missing; see `vista schema` for what it means"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{key}: {message}" if key else message


# What pydantic adds to the location of an error inside a union that `kind` discriminates.
_TAGS = frozenset(
    {
        *("standin", "checkpoint", "combined", "drawn", "composed", "coco", "llava", "folder"),
        *("list", "webdataset", "name", "pip", "apt", "json", "wordnet", "plug-in", *judge_names()),
        *("gguf", "onnx"),
    }
)


def _key(location: tuple[int | str, ...], content: Any) -> str:
    """Return a location as a dotted key, without the tags that pydantic adds for unions."""
    parts: list[str] = []
    for place, part in enumerate(location):
        inside = isinstance(content, Mapping) and part in content
        at = isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)
        if inside or at:
            content = content[part]
        elif place + 1 < len(location) or part in _TAGS:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _known_keys() -> list[str]:
    schema = RunConfig.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    return sorted({key for model in models for key in model.get("properties", {})})
