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
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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


def _path(name: str) -> Path | None:
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py") if base != PACKAGE else None, base / "__init__.py"):
        if path is not None and path.is_file():
            return path
    return None


@dataclass
class _Module:
    """A module's top: the statements that bind each name, and what each imported name means."""

    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
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
    elif _is_text(statement):
        pass
    elif _is_type_checking(statement):
        # What is for types alone never runs; its `else:` always does.
        for other in getattr(statement, "orelse", ()):
            _read_statement(module, other)
    elif isinstance(statement, _Function | ast.ClassDef):
        module.bound.setdefault(statement.name, []).append(statement)
    elif isinstance(statement, _Compound):
        # Either branch may bind, and either may act.
        for name in _names_bound([statement]):
            module.bound.setdefault(name, []).append(statement)
        for inner in ast.walk(statement):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                module.imports |= _imported(inner)
        module.bound.setdefault(EFFECTS, []).append(statement)
    else:
        names = _names_bound([statement])
        if not names or isinstance(statement, ast.Expr):
            names.append(EFFECTS)
        for name in names:
            module.bound.setdefault(name, []).append(statement)


def _is_type_checking(statement: ast.stmt) -> bool:
    test = getattr(statement, "test", None)
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _is_text(statement: ast.AST) -> bool:
    """Whether a statement is a docstring, or another text that does nothing."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
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


def _names_bound(statements: Iterable[ast.AST]) -> list[str]:
    """Return the names that statements bind in their own scope, not in one inside them."""
    names: dict[str, None] = {}
    todo = list(statements)
    while todo:
        node = todo.pop()
        if isinstance(node, _Function | ast.ClassDef):
            names[node.name] = None
            continue
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp):
            continue
        if isinstance(node, ast.GeneratorExp):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names[node.id] = None
        if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names[node.name] = None
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= dict.fromkeys(_imported(node))
        todo += ast.iter_child_nodes(node)
    return list(names)


@dataclass(frozen=True)
class _Definition:
    """A definition's digest, the definitions that it uses, and the foreign packages."""

    digest: str
    uses: frozenset[Place]
    packages: frozenset[str]


@functools.cache
def _definition(module: str, name: str) -> _Definition:
    statements = _module(module).bound[name]
    reader = _Reader(module)
    for statement in statements:
        reader.visit(statement)
    uses, packages, meanings = set[Place](), set[str](), set[str]()
    for dotted in reader.used:
        place = _resolve(dotted)
        if place is not None:
            uses.add(place)
            meanings.add(f"{place[0]}:{place[1]}")
        elif dotted.split(".")[0] != ROOT:
            packages.add(dotted.split(".")[0])
            meanings.add(dotted)
    # What a name means belongs to what is done with it: another import may bind it to another.
    text = "\n".join([*map(_text, statements), *sorted(meanings)])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return _Definition(digest, frozenset(uses), frozenset(packages))


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
    found = _module(module)
    if rest[0] in found.bound:
        return module, rest[0]
    if rest[0] in found.imports:  # handed on by a package
        return _resolve(".".join([found.imports[rest[0]], *rest[1:]]))
    raise ValueError(f"{dotted}: no definition {rest[0]} in {module}")


class _Reader(ast.NodeVisitor):
    """Collects what a definition uses from outside of it, as dotted names in `used`."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.top = _module(module)
        self.used: set[str] = set()
        self.scopes: list[set[str]] = []
        self.inner: dict[str, str] = {}  # what imports inside the definition bind

    def visit_Import(self, node: ast.Import) -> None:
        self.inner |= _imported(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.inner |= _imported(node)

    def visit_Name(self, node: ast.Name) -> None:
        self._use(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._use(inner.id, parts)
        else:
            self.visit(inner)

    def _use(self, name: str, attributes: Iterable[str] = ()) -> None:
        if name in self.inner:
            meaning = self.inner[name]
        elif any(name in scope for scope in self.scopes):
            return
        elif name in self.top.bound:
            self.used.add(f"{self.module}.{name}")
            return
        elif name in self.top.imports:
            meaning = self.top.imports[name]
        else:
            return  # a builtin
        # Attributes lead on only as far as modules do.
        for attribute in attributes:
            if meaning.split(".")[0] != ROOT or _path(meaning) is None:
                break
            meaning = f"{meaning}.{attribute}"
        self.used.add(meaning)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: _Function) -> None:
        self._visit_all([*node.decorator_list, *_defaults(node.args)])
        outer = {n for each in ast.walk(node) if isinstance(each, ast.Global) for n in each.names}
        self._scoped({*_arguments(node.args), *_names_bound(node.body)} - outer, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_all(_defaults(node.args))
        self._scoped(set(_arguments(node.args)), [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        # A class's own names are not seen from its methods, so they make no scope.
        self._visit_all(
            [*node.decorator_list, *node.bases, *(each.value for each in node.keywords)]
        )
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign):
                # The type of a setting may be a class with code of its own.
                self.visit(statement.annotation)
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> None:
        values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        names = _names_bound([each.target for each in node.generators])
        self._scoped(set(names), [*node.generators, *values])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _scoped(self, names: set[str], nodes: Iterable[ast.AST]) -> None:
        self.scopes.append(names)
        self._visit_all(nodes)
        self.scopes.pop()

    def _visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    yield from (each.arg for each in (*every, arguments.vararg, arguments.kwarg) if each)


def _defaults(arguments: ast.arguments) -> list[ast.expr | None]:
    return [*arguments.defaults, *arguments.kw_defaults]


def _text(node: object) -> str:
    """Return one text of a syntax tree, the same in every Python, without what cannot matter."""
    if isinstance(node, list):
        return "[" + ",".join(_text(each) for each in node if not _is_text(each)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = [type(node).__name__]
    for name, value in ast.iter_fields(node):
        if name in _UNREAD or value is None or value == []:
            continue
        if name == "keywords" and isinstance(node, ast.Call):
            value = [each for each in value if not _is_help(node, each)]
        parts.append(f"{name}={_text(value)}")
    return f"({' '.join(parts)})"


def _is_help(call: ast.Call, keyword: ast.keyword) -> bool:
    return keyword.arg == "description" and getattr(call.func, "id", "") == "Field"
