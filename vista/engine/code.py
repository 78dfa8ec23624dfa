"""What code a stage runs: the definitions that its `run` reaches inside this package.

Snakemake does not see an edit of an imported module, so every job carries a digest of its code. It
is taken over definitions (functions, classes, constants), not over files: starting at the stage's
`run`, each name that a definition uses is followed to the definition that it means, through
imports, also those inside functions. What another stage alone uses does not count.

What cannot change a result does not count either: comments, docstrings, layout, the order of
definitions, type annotations, and `description=` of settings. What cannot be followed counts whole:
a module that is used as a value, and statements at a module's top that are no definitions. A module
that is loaded by a computed name counts for the node that names it (`Node.modules`), whole.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.name
# What every stage imports and what cannot change a byte of its result, modules or definitions: how
# it reports to people, and how it is handed its settings and its opened inputs.
SILENT = frozenset(
    {"vista.errors", "vista.progress", "vista.engine.job", "vista.engine.artifacts:Artifact"}
)
# Statements at a module's top that run when it is imported and define nothing.
EFFECTS = "(top)"

# A definition: its module, and its name there; None for all of the module.
Place = tuple[str, str | None]
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Compound = (
    ast.If, ast.Try, ast.TryStar, ast.With, ast.For, ast.While, ast.Match,
)  # fmt: skip
# Fields of a syntax tree that cannot change a result. Empty ones differ between Pythons.
_UNREAD = frozenset({"annotation", "returns", "type_comment", "type_params", "ctx", "kind"})


def is_fetch(stage: str) -> bool:
    """Whether a stage only brings what lies elsewhere: its revision and checksums say what that is,
    so neither an edit of our code nor a newer library is a reason to fetch it again."""
    return stage.startswith("fetch_")


def stage_code(stage: str, modules: Iterable[str] = ()) -> tuple[str, ...]:
    """Return where the code of a stage starts: its `run`, and modules that are loaded by name."""
    return (f"{stage_module(stage)}:run", *sorted(set(modules)))


@functools.cache
def stage_module(stage: str) -> str:
    """Return the module that holds a stage's `run`: of a metric, in the metric's folder."""
    folder = PACKAGE / "metrics" / stage
    if not folder.is_dir():
        return f"vista.stages.{stage}"
    name = f"vista.metrics.{stage}"
    return f"{name}.stage" if (folder / "stage.py").is_file() else name


def code_digest(starts: Iterable[str]) -> str:
    """Return the digest of all definitions that `starts` reach.

    `starts` are dotted names of modules, whole, or of definitions, "module:name". Raises ValueError
    where there is none such in the package.
    """
    return _closure_digest(tuple(sorted(set(starts))))


def source_digests(starts: Iterable[str]) -> dict[str, str]:
    """Return the digest of each definition that `starts` reach, by "module:name"."""
    places, _ = _closure(tuple(sorted(set(starts))))
    return {f"{module}:{name}": _definition(module, name).digest for module, name in places}


def joint_digest(definitions: Mapping[str, str]) -> str:
    """Return one digest of the digests of definitions by "module:name"."""
    # By module first: as strings, those of a package's modules would come before its own.
    names = sorted(definitions, key=lambda name: name.split(":"))
    lines = [f"{name}={definitions[name]}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def third_party(starts: Iterable[str]) -> frozenset[str]:
    """Return the top-level names of what the definitions that `starts` reach use from elsewhere."""
    _, packages = _closure(tuple(sorted(set(starts))))
    return packages


@functools.cache
def _closure_digest(starts: tuple[str, ...]) -> str:
    return joint_digest(source_digests(starts))


@functools.cache
def _closure(starts: tuple[str, ...]) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    """Return the definitions that are reached, sorted, and the foreign packages that they use."""
    todo: list[Place] = []
    for start in starts:
        module, _, definition = start.partition(":")
        if _path(module) is None:
            raise ValueError(f"no module {module} in the package")
        if definition and definition not in _module(module).bound:
            raise ValueError(f"no definition {definition} in {module}")
        todo.append((module, definition or None))
    seen: set[Place] = set()
    packages: set[str] = set()
    while todo:
        place = todo.pop()
        module, name = place
        if place in seen or module in SILENT or f"{module}:{name}" in SILENT:
            continue
        seen.add(place)
        if name is None:
            todo += [(module, each) for each in _module(module).bound]
        # Importing a module runs what stands at its top, and its packages' before it.
        parents = [module.rsplit(".", n)[0] for n in range(module.count(".") + 1)]
        todo += [(parent, EFFECTS) for parent in parents if EFFECTS in _module(parent).bound]
        if name is not None:
            found = _definition(module, name)
            todo += found.uses
            packages |= found.packages
    definitions = sorted((module, name) for module, name in seen if name is not None)
    return tuple(definitions), frozenset(packages - sys.stdlib_module_names)


@functools.cache
def _path(name: str) -> Path | None:
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py") if base != PACKAGE else None, base / "__init__.py"):
        if path is not None and path.is_file():
            return path
    return None


@dataclass(frozen=True)
class _Statement:
    """What counts of a statement: the digest of its text, the names that it uses, each with the
    attributes behind it, and the meanings of those that its own imports bind."""

    digest: str
    uses: frozenset[tuple[str, ...]]
    meanings: frozenset[tuple[str, ...]]


@dataclass
class _Module:
    """A module's top: the statements that bind each name, and what each imported name means."""

    bound: dict[str, list[_Statement]] = field(default_factory=dict)
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
        module.imports |= _imported(statement)
        return
    if _is_text(statement):
        return
    if _is_type_checking(statement):
        # What is for types alone never runs; its `else:` always does.
        for other in getattr(statement, "orelse", ()):
            _read_statement(module, other)
        return
    reader = _Reader()
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


def _is_text(node: object) -> bool:
    """Whether a statement is a docstring, or another text that does nothing."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _imported(statement: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Return what each name means that an import statement binds, as a dotted name."""
    if isinstance(statement, ast.ImportFrom):
        assert statement.level == 0 and statement.module, "imports are absolute here"
        return {
            alias.asname or alias.name: f"{statement.module}.{alias.name}"
            for alias in statement.names
        }
    return {
        alias.asname or alias.name.split(".")[0]: alias.name
        if alias.asname
        else alias.name.split(".")[0]
        for alias in statement.names
    }


@dataclass(frozen=True)
class _Definition:
    """A definition's digest, the definitions that it uses, and the foreign packages."""

    digest: str
    uses: frozenset[Place]
    packages: frozenset[str]


@functools.cache
def _definition(module: str, name: str) -> _Definition:
    statements = _module(module).bound[name]
    uses, packages, meanings = set[Place](), set[str](), set[str]()
    for dotted in {dotted for statement in statements for dotted in _used(module, statement)}:
        place = _resolve(dotted)
        if place is not None:
            uses.add(place)
            meanings.add(f"{place[0]}:{place[1]}")
        elif dotted.split(".")[0] != ROOT:
            packages.add(dotted.split(".")[0])
            meanings.add(dotted)
    # What a name means belongs to what is done with it: another import may bind it to another.
    text = "\n".join([*(statement.digest for statement in statements), *sorted(meanings)])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return _Definition(digest, frozenset(uses), frozenset(packages))


def _used(module: str, statement: _Statement) -> Iterator[str]:
    """Yield the dotted names of what a statement at a module's top uses; builtins are left out."""
    top = _module(module)
    for name, *attributes in statement.uses:
        if name in top.bound:
            yield f"{module}.{name}"
        elif name in top.imports:
            yield _followed(top.imports[name], attributes)
    for name, *attributes in statement.meanings:
        yield _followed(name, attributes)


def _followed(dotted: str, attributes: Iterable[str]) -> str:
    """Return a dotted name with those of its attributes that lead to modules, and the next one."""
    for attribute in attributes:
        if dotted.split(".")[0] != ROOT or _path(dotted) is None:
            break
        dotted = f"{dotted}.{attribute}"
    return dotted


def _resolve(dotted: str) -> Place | None:
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
    if rest[0] in top.imports:  # handed on by a package
        return _resolve(".".join([top.imports[rest[0]], *rest[1:]]))
    raise ValueError(f"{dotted}: no definition {rest[0]} in {module}")


@dataclass
class _Scope:
    """The names that a scope binds, what its imports mean, and the names that it uses."""

    bound: set[str] = field(default_factory=set)
    imports: dict[str, str] = field(default_factory=dict)
    uses: set[tuple[str, ...]] = field(default_factory=set)


class _Reader:
    """Reads a syntax tree once: its canonical text, and the names that it binds and uses.

    The text is the same in every Python, without what cannot change a result. `scope` is that of
    the module's top: names that are bound in scopes inside it are no part of it.
    """

    def __init__(self) -> None:
        self.text: list[str] = []
        self.scope = _Scope()
        self.meanings: set[tuple[str, ...]] = set()
        self.globals: set[str] = set()

    def statement(self) -> _Statement:
        """Return what counts of all that was read."""
        digest = hashlib.sha256("".join(self.text).encode()).hexdigest()
        return _Statement(digest, frozenset(self.scope.uses), frozenset(self.meanings))

    def read(self, node: object) -> None:
        """Read a node, a list of nodes, or a value."""
        if isinstance(node, ast.AST):
            self.text.append(f"({type(node).__name__}")
            read: Callable[[Any], None] = getattr(self, f"_read_{type(node).__name__}", self._read)
            read(node)
            self.text.append(")")
        elif isinstance(node, list):
            self.text.append("[")
            for item in node:
                if not _is_text(item):
                    self.read(item)
            self.text.append("]")
        else:
            self.text.append(repr(node))

    def _read(self, node: ast.AST, *names: str) -> None:
        """Read fields of a node; all of them if none is named."""
        for name in names or node._fields:
            value = getattr(node, name, None)
            if value is not None and value != [] and name not in _UNREAD:
                self.text.append(f" {name}=")
                self.read(value)

    @contextlib.contextmanager
    def _inner_scope(self) -> Iterator[None]:
        outer, self.scope = self.scope, _Scope()
        yield
        inner, self.scope = self.scope, outer
        for name, *attributes in inner.uses:
            if name in inner.imports:
                self.meanings.add((inner.imports[name], *attributes))
            elif name not in inner.bound or name in self.globals:
                outer.uses.add((name, *attributes))

    def _read_Name(self, node: ast.Name) -> None:
        self.text.append(f" {node.id}")
        if isinstance(node.ctx, ast.Load):
            self.scope.uses.add((node.id,))
        else:
            self.scope.bound.add(node.id)

    def _read_Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.insert(0, inner.attr)
            inner = inner.value
        self.text.append(f" .{'.'.join(attributes)} ")
        if isinstance(inner, ast.Name):
            self.text.append(inner.id)
            self.scope.uses.add((inner.id, *attributes))
        else:
            self.read(inner)

    def _read_FunctionDef(self, node: _Function) -> None:
        self.scope.bound.add(node.name)
        self._read(node, "name", "decorator_list")
        self._read_Lambda(node)

    _read_AsyncFunctionDef = _read_FunctionDef

    def _read_Lambda(self, node: ast.Lambda | _Function) -> None:
        self._read(node.args, "defaults", "kw_defaults")
        with self._inner_scope():
            self._read(node.args, "posonlyargs", "args", "vararg", "kwonlyargs", "kwarg")
            self._read(node, "body")

    def _read_arg(self, node: ast.arg) -> None:
        self.scope.bound.add(node.arg)
        self.text.append(f" {node.arg}")

    def _read_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope.bound.add(node.name)
        self._read(node, "name", "decorator_list", "bases", "keywords")
        bound, self.scope.bound = self.scope.bound, set()
        self._read(node, "body")
        # A class's own names are not seen from its methods, so they make no scope.
        self.scope.bound = bound
        # The type of a setting may be a class with code of its own.
        text, self.text = self.text, []
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign):
                self.read(statement.annotation)
        self.text = text

    def _comprehension(self, node: ast.AST) -> None:
        with self._inner_scope():
            self._read(node)

    _read_ListComp = _read_SetComp = _read_DictComp = _read_GeneratorExp = _comprehension

    def _read_Call(self, node: ast.Call) -> None:
        self._read(node, "func", "args")
        is_field = isinstance(node.func, ast.Name) and node.func.id == "Field"
        self.read([k for k in node.keywords if not (is_field and k.arg == "description")])

    def _read_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.scope.imports |= _imported(node)
        self._read(node)

    _read_ImportFrom = _read_Import

    def _read_Global(self, node: ast.Global) -> None:
        self.globals.update(node.names)
        self.scope.uses.update((name,) for name in node.names)
        self._read(node)

    def _binding(self, node: ast.ExceptHandler | ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self.scope.bound.add(node.name)
        self._read(node)

    _read_ExceptHandler = _read_MatchAs = _read_MatchStar = _binding
