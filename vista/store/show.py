"""Artifacts, stores and tables as text for people: what `vista show PATH` prints.

Nothing here trusts what it reads: a damaged file is named as damaged and the rest is still shown,
sizes are bounded, and control characters never reach the terminal.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vista.engine.artifacts import CHECKSUMS, MANIFEST, MEMO
from vista.engine.lineage import lineage
from vista.errors import UserError
from vista.store.files import read_json

_META = "zarr.json"
_ROWS = 8
_CELL = 28
_LINES = 40
_NAMES = 12
_MOST_BYTES = 4_000_000


def describe(path: Path) -> str:
    """Return a readable account of an artifact folder, a Zarr store, a table or another file.

    Raises UserError where there is nothing at `path`; what is damaged is described as such.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} is not there; expected an artifact folder, a store or a file.")
    lines = _safely(_folder if path.is_dir() else _file, path)
    return "\n".join(_clean(line) for line in lines) + "\n"


def _safely(describer: Callable[[Path], Iterator[str]], path: Path) -> list[str]:
    """Return the lines of `describer`, ending in a note where the file turns out to be damaged."""
    lines: list[str] = []
    try:
        lines.extend(describer(path))
    except Exception as error:  # damage can surface anywhere in a foreign parser
        lines.append(f"! {path.name} cannot be read: {error}")
    return lines


def _folder(path: Path) -> Iterator[str]:
    if (path / _META).exists() or path.suffix == ".zarr":
        yield from _store(path)
        return
    if (path / MANIFEST).exists():
        yield from _safely(_manifest, path / MANIFEST)
        yield ""
    else:
        yield f"{path.name}: a folder without {MANIFEST}, so no finished artifact"
    entries = sorted(
        child for child in path.iterdir() if child.name not in (MANIFEST, MEMO, CHECKSUMS)
    )
    for entry in entries[:_NAMES]:
        if entry.is_dir() and entry.suffix != ".zarr":
            yield from _safely(_listing, entry)
        else:
            yield from _safely(_store if entry.is_dir() else _file, entry)
    if len(entries) > _NAMES:
        yield f"... and {len(entries) - _NAMES} more"


def _manifest(path: Path) -> Iterator[str]:
    manifest = read_json(path)
    yield f"artifact {path.parent.name}"
    yield f"stage    {manifest['stage']}"
    yield f"digest   {manifest['digest']}"
    yield "settings"
    yield from _json_lines(manifest["settings"], "  ")
    if manifest.get("inputs"):
        yield "inputs"
        yield from _json_lines(manifest["inputs"], "  ")
    yield from _made_from(path.parent)


def _made_from(artifact: Path) -> Iterator[str]:
    """The folders of an artifact's parents, then of theirs, with whose parent each is."""
    results = artifact.absolute().parents[1]
    itself = artifact.absolute().relative_to(results).as_posix()
    before = None
    parents = list(itertools.islice(lineage(artifact), _LINES + 1))
    width = max((len(parent.role) for parent in parents), default=0)
    for parent in parents[:_LINES]:
        title = "made from" if parent.child == itself else "which are made from"
        if title != before:
            yield title
            before = title
        child = "" if parent.child == itself else f"  (of {parent.child})"
        there = "" if (results / parent.path / MANIFEST).is_file() else "  NOT THERE"
        yield f"  {parent.role.ljust(width)}  {parent.path}{child}{there}"
    if len(parents) > _LINES:
        yield "  ... and more"


def _listing(path: Path) -> Iterator[str]:
    count, size = _weigh(path)
    yield f"{path.name}/  {count} files, {_size(size)}"
    names = sorted(child.name + ("/" if child.is_dir() else "") for child in path.iterdir())
    yield f"  {', '.join(names[:_NAMES])}{', ...' if len(names) > _NAMES else ''}"


def _file(path: Path) -> Iterator[str]:
    yield f"{path.name}  {_size(path.stat().st_size)}"
    describers = {
        ".parquet": _parquet,
        ".json": _json,
        ".safetensors": _safetensors,
        ".jsonl": _judgements,
        **dict.fromkeys((".csv", ".md", ".txt", ".yaml", ".log"), _text),
    }
    describer = describers.get(path.suffix.lower())
    if describer is not None:
        for line in _safely(describer, path):
            yield f"  {line}"


def _json(path: Path) -> Iterator[str]:
    if path.stat().st_size > _MOST_BYTES:
        yield from _text(path)
        return
    yield from _json_lines(read_json(path), "")


def _json_lines(value: Any, indent: str) -> Iterator[str]:
    lines = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False).splitlines()
    for line in lines[:_LINES]:
        yield indent + line[:200]
    if len(lines) > _LINES:
        yield f"{indent}... {len(lines) - _LINES} more lines"


def _judgements(path: Path) -> Iterator[str]:
    """A judge's questions and answers (vista.judges.backends.judgements); else lines of text."""
    with path.open("rb") as file:
        count = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        file.seek(0)
        head = [line for _ in range(_ROWS) if (line := file.readline(_MOST_BYTES))]
    try:
        first = json.loads(head[0])
        source = {key: first.pop(key) for key in ("judge", "model", "prompt")}
        rest = sorted(set(first) & {"base_url", "temperature"})
        source |= {key: first[key] for key in rest}
    except (IndexError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        yield from _text(path)
        return
    yield ", ".join(f"{key} {value}" for key, value in source.items())[:200]
    yield f"{count} answers to questions"
    for line in head:
        yield _judgement(line)[:200]


def _judgement(line: bytes) -> str:
    try:
        judgement = json.loads(line)
        what = "image" if judgement["seen"] else "text"
        subject = json.dumps(str(judgement["subject"])[:60], ensure_ascii=False)
        verdicts = f"unanswered ({judgement.get('reason')})"
        if judgement["verdicts"] is not None:
            pairs = zip(judgement["labels"], judgement["verdicts"], strict=True)
            verdicts = ", ".join(f"{label}: {'yes' if yes else 'no'}" for label, yes in pairs)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return "! a damaged line"
    return f"{what} {subject}  {verdicts}"


def _text(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        head = file.read(1 << 14).decode("utf-8", errors="replace")
    for line in head.splitlines()[:_ROWS]:
        yield line[:200]


def _safetensors(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(path.stat().st_size, _MOST_BYTES * 25):
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    for name, entry in itertools.islice(sorted(header.items()), _LINES):
        if name != "__metadata__":
            yield f"{name}  {entry['dtype']} {entry['shape']}"
    if len(header) > _LINES:
        yield f"... and {len(header) - _LINES} more tensors"


def _parquet(path: Path) -> Iterator[str]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        yield f"{file.metadata.num_rows} rows, {len(schema)} columns"
        head = next(file.iter_batches(batch_size=_ROWS), None)
        rows = head.to_pylist() if head is not None else []
    yield from _table(
        [[f"{field.name}:{field.type}" for field in schema]]
        + [[_cell(row[field.name]) for field in schema] for row in rows]
    )


def _table(rows: list[list[str]]) -> Iterator[str]:
    cut = [
        [_clean(cell if len(cell) <= _CELL else cell[: _CELL - 3] + "...") for cell in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    for row in cut:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "-" if value is None else str(value)


def _store(path: Path) -> Iterator[str]:
    root = read_json(path / _META)
    attributes = dict(root.get("attributes", {}))
    state = ""
    if "format" in attributes:
        state = "complete" if attributes.get("complete") else "UNFINISHED"
    yield f"{path.name}/  {attributes.pop('format', 'Zarr group')}  {state}".rstrip()
    for key in sorted(set(attributes) - {"complete", "identity", "metadata_sha256"}):
        yield f"  {key}: {json.dumps(attributes[key])[:200]}"
    nodes = sorted(_nodes(path, root).items())
    width = max((2 * name.count("/") + len(Path(name).name) for name, _ in nodes), default=0)
    for name, node in nodes:
        depth = name.count("/")
        title = "  " * depth + Path(name).name
        if node.get("node_type") == "array":
            for line in _safely(functools.partial(_array, node=node), path / name):
                yield f"  {title.ljust(width)}  {line}"
        else:
            yield f"  {title}/"


def _nodes(path: Path, root: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metadata of all groups and arrays by path, consolidated or else as they lie."""
    if "consolidated_metadata" in root:
        return dict(root["consolidated_metadata"]["metadata"])
    nodes = {}
    for file in sorted(path.rglob(_META)):
        if file.parent != path:
            try:
                nodes[file.parent.relative_to(path).as_posix()] = read_json(file)
            except UserError:
                nodes[file.parent.relative_to(path).as_posix()] = {"node_type": "array"}
    return nodes


def _array(folder: Path, node: dict[str, Any]) -> Iterator[str]:
    shape = node["shape"]
    dims = node.get("dimension_names") or ["?"] * len(shape)
    axes = ", ".join(f"{dim} {size}" for dim, size in zip(dims, shape, strict=True))
    outer = node["chunk_grid"]["configuration"]["chunk_shape"]
    inner, codecs = outer, node["codecs"]
    if codecs[0]["name"] == "sharding_indexed":
        sharding = codecs[0]["configuration"]
        inner, codecs = sharding["chunk_shape"], sharding["codecs"]
    pieces = f"chunk {_step(inner, shape)}, shard {_step(outer, shape)}"
    names = "+".join(codec["name"] for codec in codecs)
    units = node.get("attributes", {}).get("units")
    measured = f"units {units}" if units else "no units"
    count, size = _weigh(folder / "c")
    expected = _expected_shards(folder, shape, outer)
    missing = f", {expected - count} MISSING" if count < expected else ""
    yield (
        f"{node['data_type']} [{axes}]  {measured}; {pieces}; {names}; "
        f"{_size(size)}, {count} file{'' if count == 1 else 's'}{missing}"
    )


def _expected_shards(folder: Path, shape: list[int], outer: list[int]) -> int:
    """Return the number of shard files that an array should have.

    Of slots in blocks (vista.store.slots), those that are listed where its finished shards are
    recorded: blocks that no token uses are not written.
    """
    done = folder.parent / "index" / "done"
    if len(shape) == 3 and outer[2] < shape[2] and done.is_dir():
        records = [read_json(path) for path in done.glob("*.json")]
        names = [name for record in records for name in record["files"]]
        listed = sum(name.startswith(f"{folder.name}/c/") for name in names)
        return int(listed) + -(-shape[0] // outer[0]) - len(records)
    return math.prod(-(-n // step) for n, step in zip(shape, outer, strict=True))


def _step(step: list[int], shape: list[int]) -> str:
    """Return a chunk's shape, short: "all", or the first axis alone where the others are whole."""
    if step[1:] != shape[1:]:
        return str(step)
    return "all" if step[0] >= shape[0] else str(step[0])


def _weigh(folder: Path) -> tuple[int, int]:
    """Return the number of files below `folder` and their bytes."""
    count, size = 0, 0
    for parent, _, names in os.walk(folder):
        for name in names:
            count += 1
            size += os.lstat(os.path.join(parent, name)).st_size
    return count, size


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def _clean(text: str) -> str:
    """Return the text with every control character replaced: a file may hold escape sequences."""
    return "".join(character if character.isprintable() else "�" for character in text)
