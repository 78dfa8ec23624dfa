"""What a stage's code is: its own import closure inside this package.

Snakemake does not see an edit of an imported module. So every job carries a digest over the
syntax trees of the modules that its stage imports, directly or through others, also inside
functions. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.name
# What every stage imports and what cannot change a byte of its result: how it talks to people.
SILENT = frozenset({"vista.errors", "vista.progress"})


def is_fetch(stage: str) -> bool:
    """Whether a stage only brings what lies elsewhere: its revision and checksums say what that is,
    so neither an edit of our code nor a newer library is a reason to fetch it again."""
    return stage.startswith("fetch_")


def code_digest(modules: Iterable[str]) -> str:
    """Return the digest of the import closure of `modules` (dotted names) inside the package."""
    return _closure_digest(tuple(sorted(set(modules))))


def source_digests(modules: Iterable[str]) -> dict[str, str]:
    """Return the digest of each module in the import closure of `modules`, by dotted name."""
    return {name: _module(name)[0] for name in closure(tuple(sorted(set(modules))))}


def third_party(modules: Iterable[str]) -> frozenset[str]:
    """Return the top-level names of what the closure of `modules` imports from elsewhere."""
    names = {
        name.split(".")[0]
        for module in closure(tuple(sorted(set(modules))))
        for name in _module(module)[1]
    }
    return frozenset(names - {ROOT} - sys.stdlib_module_names)


@functools.cache
def closure(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Return the dotted names of all modules that `modules` import, themselves included."""
    todo, seen = list(modules), set[str]()
    while todo:
        name = todo.pop()
        if name in seen or name in SILENT:
            continue
        seen.add(name)
        # A package's __init__ runs before the module.
        if "." in name:
            todo.append(name.rsplit(".", 1)[0])
        for imported in _module(name)[1]:
            if imported == ROOT or imported.startswith(f"{ROOT}."):
                found = _locate(imported)
                if found is not None:
                    todo.append(found)
    return tuple(sorted(seen))


@functools.cache
def _closure_digest(modules: tuple[str, ...]) -> str:
    lines = [f"{name}={digest}\n" for name, digest in source_digests(modules).items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _path(name: str) -> Path | None:
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py") if base != PACKAGE else None, base / "__init__.py"):
        if path is not None and path.is_file():
            return path
    return None


def _locate(name: str) -> str | None:
    """Return the module that `name` means: itself, or its parent where it names an attribute."""
    while name and _path(name) is None:
        name = name.rpartition(".")[0]
    return name or None


@functools.cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of one module's syntax tree and the dotted names that it imports."""
    path = _path(name)
    if path is None:
        raise ValueError(f"no module {name} in the package")
    tree = ast.parse(path.read_bytes())
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: imports are absolute here"
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            # A docstring (or a bare string) says nothing to the interpreter.
            node.body = body[1:]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16], tuple(sorted(imported))


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
