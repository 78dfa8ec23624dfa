"""The code of a stage: the definitions in this package that its `run` reaches, and their digest.

Snakemake does not see an edit of an imported module, so every job has the digest of its code as a
parameter. It is taken over definitions (functions, classes, constants), not over files: from the
stage's `run` on, each name that a definition uses is followed to its definition, through imports at
the top of modules and inside functions.

Left out is what cannot change a result: comments, docstrings, layout, the order of definitions,
type annotations, and `description=` of settings. Included whole is what cannot be followed: a
module that is used as a value, statements at a module's top that are no definitions, and modules
that are loaded by a computed name, which the node lists (`Node.modules`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vista.engine.syntax import Reader, Statement, imported, is_text

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.name
# Modules and definitions that every stage imports and that cannot change its result: messages,
# progress, and the passing of settings and opened inputs.
SILENT = frozenset(
    {"vista.errors", "vista.progress", "vista.engine.job", "vista.engine.artifacts:Artifact"}
)
# Name of the statements at a module's top that run on import and define nothing.
EFFECTS = "(top)"

# A definition: its module, and its name there; None for the whole module.
Reference = tuple[str, str | None]
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Compound = (
    ast.If, ast.Try, ast.TryStar, ast.With, ast.For, ast.While, ast.Match,
)  # fmt: skip


def is_fetch(stage: str) -> bool:
    """Whether a stage only downloads. Revision and checksums identify what it downloads, so neither
    an edit of the code nor another library version is a reason to fetch it again."""
    return stage.startswith("fetch_")


def stage_code(stage: str, modules: Iterable[str] = ()) -> tuple[str, ...]:
    """Return where a stage's code starts: at its `run`, and at the modules loaded by name."""
    return (f"{stage_module(stage)}:run", *sorted(set(modules)))


@functools.cache
def stage_module(stage: str) -> str:
    """Return the module that holds a stage's `run`; that of a metric is in the metric's folder."""
    folder = PACKAGE / "metrics" / stage
    if not folder.is_dir():
        return f"vista.stages.{stage}"
    name = f"vista.metrics.{stage}"
    return f"{name}.stage" if (folder / "stage.py").is_file() else name


def code_digest(starts: Iterable[str]) -> str:
    """Return the digest of all definitions that `starts` reach.

    `starts` are modules, "package.module", or definitions, "package.module:name". Raises ValueError
    if one is not in the package.
    """
    return _closure_digest(tuple(sorted(set(starts))))


def source_digests(starts: Iterable[str]) -> dict[str, str]:
    """Return the digest of each definition that `starts` reach, by "module:name"."""
    references, _ = _closure(tuple(sorted(set(starts))))
    return {f"{module}:{name}": _definition(module, name).digest for module, name in references}


def joint_digest(definitions: Mapping[str, str]) -> str:
    """Return the digest over the digests of definitions, by "module:name"."""
    # By module first: as strings, those of a package's modules would come before its own.
    names = sorted(definitions, key=lambda name: name.split(":"))
    lines = [f"{name}={definitions[name]}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def third_party(starts: Iterable[str]) -> frozenset[str]:
    """Return the foreign packages that the definitions reached from `starts` use."""
    _, packages = _closure(tuple(sorted(set(starts))))
    return packages


@functools.cache
def _closure_digest(starts: tuple[str, ...]) -> str:
    return joint_digest(source_digests(starts))


@functools.cache
def _closure(starts: tuple[str, ...]) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    """Return the reached definitions, sorted, and the foreign packages that they use."""
    todo: list[Reference] = []
    for start in starts:
        module, _, definition = start.partition(":")
        if _path(module) is None:
            raise ValueError(f"no module {module} in the package")
        if definition and definition not in _module(module).bound:
            raise ValueError(f"no definition {definition} in {module}")
        todo.append((module, definition or None))
    seen: set[Reference] = set()
    packages: set[str] = set()
    while todo:
        reference = todo.pop()
        module, name = reference
        if reference in seen or module in SILENT or f"{module}:{name}" in SILENT:
            continue
        seen.add(reference)
        if name is None:
            todo += [(module, definition) for definition in _module(module).bound]
        # Importing a module runs the statements at its top and at that of its packages.
        parents = [module.rsplit(".", n)[0] for n in range(module.count(".") + 1)]
        todo += [(parent, EFFECTS) for parent in parents if EFFECTS in _module(parent).bound]
        if name is not None:
            reached = _definition(module, name)
            todo += reached.uses
            packages |= reached.packages
    definitions = sorted((module, name) for module, name in seen if name is not None)
    return tuple(definitions), frozenset(packages - sys.stdlib_module_names)


@functools.cache
def _path(name: str) -> Path | None:
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py") if base != PACKAGE else None, base / "__init__.py"):
        if path is not None and path.is_file():
            return path
    return None


@dataclass
class _Module:
    """A module: the statements that bind each name, and the dotted name behind each import."""

    bound: dict[str, list[Statement]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


@functools.cache
def _module(name: str) -> _Module:
    path = _path(name)
    assert path is not None, name
    module = _Module()
    for statement in ast.parse(path.read_bytes()).body:
        _read_statement(module, statement)
    return module


def _read_statement(module: _Module, statement: ast.stmt) -> None:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        module.imports |= imported(statement)
        return
    if is_text(statement):
        return
    if _is_type_checking(statement):
        # The block never runs; its `else:` always does.
        for other in getattr(statement, "orelse", ()):
            _read_statement(module, other)
        return
    reader = Reader()
    reader.read(statement)
    names = [*reader.scope.bound, *reader.scope.imports]
    if isinstance(statement, _Compound):
        # Either branch may bind, and either may act.
        module.imports |= reader.scope.imports
        names.append(EFFECTS)
    elif not names or isinstance(statement, ast.Expr):
        names.append(EFFECTS)
    for name in names:
        module.bound.setdefault(name, []).append(reader.statement())


def _is_type_checking(statement: ast.stmt) -> bool:
    test = getattr(statement, "test", None)
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


@dataclass(frozen=True)
class _Definition:
    """A definition's digest, the definitions that it uses, and the foreign packages."""

    digest: str
    uses: frozenset[Reference]
    packages: frozenset[str]


@functools.cache
def _definition(module: str, name: str) -> _Definition:
    statements = _module(module).bound[name]
    uses, packages, meanings = set[Reference](), set[str](), set[str]()
    for dotted in {dotted for statement in statements for dotted in _used(module, statement)}:
        reference = _resolve(dotted)
        if reference is not None:
            uses.add(reference)
            meanings.add(f"{reference[0]}:{reference[1]}")
        elif dotted.split(".")[0] != ROOT:
            packages.add(dotted.split(".")[0])
            meanings.add(dotted)
    # The text alone does not say which definition a name means: imports do.
    text = "\n".join([*(statement.digest for statement in statements), *sorted(meanings)])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return _Definition(digest, frozenset(uses), frozenset(packages))


def _used(module: str, statement: Statement) -> Iterator[str]:
    """Yield the dotted names of what a statement uses; builtins are left out."""
    top = _module(module)
    for name, *attributes in statement.uses:
        if name in top.bound:
            yield f"{module}.{name}"
        elif name in top.imports:
            yield _followed(top.imports[name], attributes)
    for name, *attributes in statement.meanings:
        yield _followed(name, attributes)


def _followed(dotted: str, attributes: Iterable[str]) -> str:
    """Return a dotted name extended by attributes for as long as it is a module."""
    for attribute in attributes:
        if dotted.split(".")[0] != ROOT or _path(dotted) is None:
            break
        dotted = f"{dotted}.{attribute}"
    return dotted


def _resolve(dotted: str) -> Reference | None:
    """Return the definition inside the package that a dotted name means, or None."""
    if dotted.split(".")[0] != ROOT:
        return None
    module, rest = dotted, list[str]()
    while _path(module) is None:
        module, _, last = module.rpartition(".")
        rest.insert(0, last)
    if not rest:
        return module, None
    top = _module(module)
    if rest[0] in top.bound:
        return module, rest[0]
    if rest[0] in top.imports:  # exported by a package
        return _resolve(".".join([top.imports[rest[0]], *rest[1:]]))
    raise ValueError(f"{dotted}: no definition {rest[0]} in {module}")
