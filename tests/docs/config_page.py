"""The page of a config's keys, from the JSON schema of the settings."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tests.docs.markdown import prose, table

Schema = Mapping[str, Any]

_HEAD = """# Keys of a config

<!-- Written by `python -m tests.docs.references --fix` from the settings in vista/config. -->

Every key with its type, its default and its meaning. A dot leads into a key: `report.dpi: 60` is
written `report: {dpi: 60}`. NAME stands for a name of your choice. Where a value is one of several
kinds, its key `kind` says which, and each kind has a table of its own. An unknown key is an error.
[Configs](configs.md) says what to write for what. An editor that knows YAML schemas completes keys
by config/vista.schema.json, which the first line of each shipped config names."""
_COLUMNS = ("key", "type", "default", "meaning")
_PREFIX = "#/$defs/"
_LONGEST = 60  # characters of a default
_WRITTEN = {
    **{word: word.upper() for word in ("api", "coco", "gguf", "json", "llm", "onnx", "sae", "vlm")},
    "llava": "LLaVA",
}


def config_page(schema: Schema) -> str:
    """Return the page of the JSON schema of a config."""
    return "\n\n".join([_HEAD, *_Page(schema).sections()]) + "\n"


class _Page:
    """Tables of keys. Settings that stand in one place are told there, others by a link."""

    def __init__(self, schema: Schema) -> None:
        self.schema, self.defs = schema, schema["$defs"]
        self.uses = Counter(_refs(schema))
        self.kinds = {
            name
            for node in _nodes(schema)
            for name in map(_name, node.get("oneOf", ()))
            if name is not None
        }

    def sections(self) -> Iterator[str]:
        """Yield a section a key of the top level; settings of several keys stand at the first."""
        simple, large = [], []
        told: set[str] = set()
        for key, node in self.schema["properties"].items():
            rows = list(self._rows(key, node, key in self.schema.get("required", ())))
            links = [name for name in self._reached(node, {}) if self._apart(name)]
            links = [name for name in links if name not in told]
            told.update(links)
            if len(rows) > 1 or links:
                large.append((key, rows, links))
            else:
                simple += rows
        yield "## Top level"
        yield table(_COLUMNS, simple)
        for key, rows, links in large:
            yield f"## {key} {{#{key}}}"
            yield table(_COLUMNS, rows)
            yield from self._parts(links)

    def _parts(self, names: list[str]) -> Iterator[str]:
        for name in names:
            settings = self.defs[name]
            yield f"### {_title(name, settings)} {{#{_anchor(name)}}}"
            if text := settings.get("description"):
                yield prose(text)
            if rows := list(self._keys("", settings)):
                yield table(_COLUMNS, rows)
            else:
                yield "It has no keys."

    def _keys(self, path: str, settings: Schema) -> Iterator[list[str]]:
        required = settings.get("required", ())
        for key, node in settings.get("properties", {}).items():
            if key == "kind" and "const" in node:
                continue  # the heading names it
            yield from self._rows(f"{path}.{key}" if path else key, node, key in required)

    def _rows(self, path: str, node: Schema, required: bool) -> Iterator[list[str]]:
        """Yield the row of a key, and those of the settings below that stand nowhere else."""
        default = "required" if required else _default(node)
        text = node.get("description", "")
        below = [(suffix, name) for suffix, name in self._below(node, "") if not self._apart(name)]
        if not text and below:
            text = self.defs[below[0][1]].get("description", "")
        yield [f"`{path}`", self._type(node), default, prose(text)]
        for suffix, name in below:
            yield from self._keys(path + suffix, self.defs[name])

    def _below(self, node: Schema, suffix: str) -> Iterator[tuple[str, str]]:
        """Yield the settings that a value holds, with what leads to them."""
        if (name := _name(node)) is not None:
            yield suffix, name
        for option in (
            *node.get("anyOf", ()),
            *node.get("oneOf", ()),
            *node.get("prefixItems", ()),
        ):
            yield from self._below(option, suffix)
        if isinstance(node.get("items"), Mapping):
            yield from self._below(node["items"], suffix)
        for values in _values(node):
            yield from self._below(values, f"{suffix}.NAME")

    def _apart(self, name: str) -> bool:
        return self.uses[name] > 1 or name in self.kinds

    def _reached(self, node: Schema, seen: dict[str, None]) -> list[str]:
        """Return the settings that a value can hold, in the order in which they are met."""
        for name in _refs(node):
            if name not in seen:
                seen[name] = None
                self._reached(self.defs[name], seen)
        return list(seen)

    def _type(self, node: Schema) -> str:
        if (name := _name(node)) is not None:
            settings = self.defs[name]
            if "properties" not in settings and settings.get("type") != "object":
                return self._type(settings)
            if not self._apart(name):
                return "keys below" if settings.get("properties") else "`{}`"
            kind = settings.get("properties", {}).get("kind", {}).get("const")
            text = f"`kind: {kind}`" if kind else _title(name, settings)
            return f"[{text}](#{_anchor(name)})"
        if options := node.get("oneOf") or node.get("anyOf"):
            return " or ".join(dict.fromkeys(self._type(option) for option in options))
        if "const" in node:
            return f"`{node['const']}`"
        if "enum" in node:
            return ", ".join(f"`{value}`" for value in node["enum"])
        kind = node.get("type")
        if kind == "array":
            items = node.get("prefixItems") or [node.get("items", {})]
            return f"list of {', '.join(dict.fromkeys(map(self._type, items)))}"
        if kind == "object":
            values = list(dict.fromkeys(map(self._type, _values(node))))
            return f"by name: {' or '.join(values)}" if values else "keys"
        words = {
            "string": "text",
            "null": "null",
            "boolean": "true or false",
            "integer": "whole number",
        }
        return words.get(str(kind), str(kind or "any")) + _bounds(node)


def _values(node: Schema) -> Iterator[Schema]:
    """Yield what may stand below names of the user's choice."""
    yield from node.get("patternProperties", {}).values()
    if isinstance(node.get("additionalProperties"), Mapping):
        yield node["additionalProperties"]


def _bounds(node: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {node[key]:g}" for key, sign in signs.items() if key in node]
    return f" {', '.join(found)}".replace("<", "&lt;") if found else ""


def _default(node: Schema) -> str:
    if "default" not in node:
        return "–"
    text = json.dumps(node["default"], ensure_ascii=False)
    return f"`{text}`" if len(text) <= _LONGEST else "that of its keys"


def _title(name: str, settings: Schema) -> str:
    kind = settings.get("properties", {}).get("kind", {}).get("const")
    words = " ".join(_WRITTEN.get(word, word) for word in _words(name))
    return f"{words[0].upper()}{words[1:]}" + (f" (`kind: {kind}`)" if kind else "")


def _anchor(name: str) -> str:
    return "-".join(_words(name))


def _words(name: str) -> list[str]:
    """Return the words of a definition's name, e.g. of CocoData or a__judges__kinds__api__B."""
    if "__" in name:
        room, _, own = name.split("__")[1:4]
        return [*own.split("_"), room.removesuffix("s")]
    words = re.findall(r"[A-Z][a-z0-9]*", name.removesuffix("Settings"))
    return [word.lower() for word in words]


def _name(node: Schema) -> str | None:
    ref = node.get("$ref")
    return ref.removeprefix(_PREFIX) if isinstance(ref, str) else None


def _nodes(node: Any) -> Iterator[Schema]:
    if isinstance(node, Mapping):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


def _refs(node: Any) -> Iterator[str]:
    """Yield the definition of each reference; a discriminator's mapping names them again."""
    for part in _nodes(node):
        if (name := _name(part)) is not None:
            yield name
