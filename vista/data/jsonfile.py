"""JSON files of annotations: errors name the file, and equal values are written alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vista.errors import UserError


def read_json(path: Path, kind: type) -> Any:
    """The content of a JSON file whose top must be an object (dict) or a list."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, kind):
        what = "an object" if kind is dict else "a list"
        raise UserError(f"{path} must hold {what} at its top, as COCO and LLaVA files do")
    return content


def get_key(item: Any, key: str, kind: type, path: Path) -> Any:
    """`item[key]` if it is of the kind; UserError naming file, key and the entry's id if not."""
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        number = f" of entry {item['id']}" if isinstance(item, dict) and "id" in item else ""
        raise UserError(f"{path}: key `{key}`{number} is missing or of a wrong type")
    return value


def write_json(path: Path, value: object) -> None:
    """Write with sorted keys and no spaces: equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
