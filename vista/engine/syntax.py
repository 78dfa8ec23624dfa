"""What one statement means: its canonical text, and the names that it binds and uses."""

from __future__ import annotations

import ast
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

# Fields of a syntax tree that cannot change a result. Empty ones differ between Pythons.
_UNREAD = frozenset({"annotation", "returns", "type_comment", "type_params", "ctx", "kind"})
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Statement:
    """A statement at a module's top.

    Attributes:
        digest: Digest of its canonical text.
        uses: Names that it uses from outside, each followed by the attributes that are read of it.
        meanings: The same for names that imports inside it bind, with the imported dotted name.
    """

    digest: str
    uses: frozenset[tuple[str, ...]]
    meanings: frozenset[tuple[str, ...]]


def is_text(node: object) -> bool:
    """Whether a statement is a docstring or another bare string."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def imported(statement: ast.Import | ast.ImportFrom, package: str = "") -> dict[str, str]:
    """Return the dotted name behind each name that an import statement binds.

    `package` is that of the module, for relative imports.
    """
    if isinstance(statement, ast.ImportFrom):
        above = package.split(".")[: package.count(".") + 2 - statement.level]
        origin = ".".join([*(above if statement.level else ()), *filter(None, [statement.module])])
        return {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in statement.names}
    return {
        alias.asname or alias.name.split(".")[0]: alias.name
        if alias.asname
        else alias.name.split(".")[0]
        for alias in statement.names
    }


@dataclass
class _Scope:
    """The names that a scope binds, what its imports mean, and the names that it uses."""

    bound: set[str] = field(default_factory=set)
    imports: dict[str, str] = field(default_factory=dict)
    uses: set[tuple[str, ...]] = field(default_factory=set)


class Reader:
    """Reads a statement in one walk: its canonical text, and the names that it binds and uses.

    The text is equal in all versions of Python and leaves out what cannot change a result. `scope`
    is the outermost one; names that are bound in an inner scope and used there alone stay inside.
    `package` is that of the module, for relative imports.
    """

    def __init__(self, package: str = "") -> None:
        self.package = package
        self.text: list[str] = []
        self.scope = _Scope()
        self.meanings: set[tuple[str, ...]] = set()
        self.globals: set[str] = set()

    def statement(self) -> Statement:
        """Return what was read."""
        digest = hashlib.sha256("".join(self.text).encode()).hexdigest()
        return Statement(digest, frozenset(self.scope.uses), frozenset(self.meanings))

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
                if not is_text(item):
                    self.read(item)
            self.text.append("]")
        else:
            self.text.append(repr(node))

    def _read(self, node: ast.AST, *names: str) -> None:
        """Read the named fields of a node, or all."""
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
        # Methods do not see the names of the class body, so these are bound nowhere.
        self.scope.bound = bound
        # The type of a setting can be a class with code: it is used, but is no part of the text.
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
        self.scope.imports |= imported(node, self.package)
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
