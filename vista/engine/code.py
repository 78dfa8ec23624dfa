"""The code of a stage: the definitions that its `run` reaches, and their digest.

Snakemake does not see an edit of an imported module, so every job has the digest of its code as a
parameter. It is taken over definitions (functions, classes, constants), not over files: from the
stage's `run` on, each name that a definition uses is followed to its definition, through imports at
the top of modules and inside functions. Definitions of this package are followed, and from a
plug-in those of its own package; of other packages the version counts.

Left out is what cannot change a result: comments, docstrings, layout, the order of definitions,
type annotations, and `description=` of settings. Included whole is what cannot be followed: a
module that is used as a value, statements at a module's top that are no definitions, and modules
that are loaded by a computed name, which the node lists (`Node.modules`). Such a module of a
plug-in counts with all that it imports from its own package.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vista.config.plugins import METRICS, find_plugin, module_file
from vista.engine.syntax import Reader, Statement, imported, is_text
from vista.errors import UserError, reason_of

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.name
# Modules and definitions that every stage imports and that cannot change its result: messages,
# progress, the search for plug-ins (what is found counts), and the passing of settings and opened
# inputs.
SILENT = frozenset(
    {
        *("vista.errors", "vista.progress", "vista.config.plugins"),
        *("vista.engine.job", "vista.engine.artifacts:Artifact"),
    }
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
    """Return the module that holds a stage's `run`; that of a metric is in the metric's folder, or
    in that of a plug-in."""
    folder = PACKAGE / "metrics" / stage
    if not folder.is_dir():
        module = f"vista.stages.{stage}"
        plugin = find_plugin(METRICS, stage) if _path(module) is None else None
        return module if plugin is None else plugin.part("stage")
    name = f"vista.metrics.{stage}"
    return f"{name}.stage" if (folder / "stage.py").is_file() else name


def code_digest(starts: Iterable[str]) -> str:
    """Return the digest of all definitions that `starts` reach.

    `starts` are modules, "package.module", or definitions, "package.module:name". Raises ValueError
    if one is not in the package, UserError if it is of a plug-in whose source is not there.
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
            raise _missing(module, f"no module {module} in the package")
        if not definition or definition in _module(module).bound:
            todo.append((module, definition or None))
        elif (reference := _exported(module, definition)) is not None:
            todo.append(reference)
        else:
            raise _missing(module, f"no definition {definition} in {module}")
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
            if not _is_own(module):
                imports = _module(module).imports.values()
                todo += filter(None, (_resolve(dotted, module) for dotted in imports))
        # Importing a module runs the statements at its top and at that of its packages.
        parents = [module.rsplit(".", n)[0] for n in range(module.count(".") + 1)]
        todo += [
            (parent, EFFECTS)
            for parent in parents
            if _path(parent) is not None and EFFECTS in _module(parent).bound
        ]
        if name is not None:
            reached = _definition(module, name)
            todo += reached.uses
            packages |= reached.packages
    definitions = sorted((module, name) for module, name in seen if name is not None)
    return tuple(definitions), frozenset(packages - sys.stdlib_module_names)


def _is_own(dotted: str) -> bool:
    """Whether a dotted name is of this package."""
    return dotted.split(".")[0] == ROOT


def _is_followed(dotted: str, module: str) -> bool:
    """Whether a dotted name is of this package, or of the same one as the module that uses it."""
    return dotted.split(".")[0] in (ROOT, module.split(".")[0])


def _exported(module: str, name: str) -> Reference | None:
    """Return the definition that a plug-in's module imports by a name; None if it does not."""
    if _is_own(module) or name not in _module(module).imports:
        return None
    return _resolve(_module(module).imports[name], module)


def _missing(module: str, message: str) -> Exception:
    """Return the error for what is not in a module: a plug-in is the user's."""
    if _is_own(module):
        return ValueError(message)
    return UserError(
        f"{message}: a plug-in needs it in a source file, whose changes are noticed; correct or "
        "uninstall the plug-in"
    )


@functools.cache
def _path(name: str) -> Path | None:
    if not _is_own(name):
        return module_file(name)
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py") if base != PACKAGE else None, base / "__init__.py"):
        if path is not None and path.is_file():
            return path
    return None


@dataclass
class _Module:
    """A module: its package, for relative imports, the statements that bind each name, and the
    dotted name behind each import."""

    package: str = ""
    bound: dict[str, list[Statement]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


@functools.cache
def _module(name: str) -> _Module:
    path = _path(name)
    assert path is not None, name
    module = _Module(name if path.name == "__init__.py" else name.rpartition(".")[0])
    try:
        statements = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError) as error:
        if _is_own(name):
            raise
        raise UserError(
            f"{path} cannot be read as Python ({reason_of(error)}); correct or uninstall the "
            "plug-in"
        ) from error
    for statement in statements:
        _read_statement(module, statement)
    return module


def _read_statement(module: _Module, statement: ast.stmt) -> None:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        module.imports |= imported(statement, module.package)
        if everything := module.imports.pop("*", None):
            # What names it binds is not said here: the imported module counts whole.
            whole = frozenset({(everything.removesuffix(".*"),)})
            module.bound.setdefault(EFFECTS, []).append(Statement("", frozenset(), whole))
        return
    if is_text(statement):
        return
    if _is_type_checking(statement):
        # The block never runs; its `else:` always does.
        for other in getattr(statement, "orelse", ()):
            _read_statement(module, other)
        return
    reader = Reader(module.package)
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
        reference = _resolve(dotted, module)
        if reference is not None:
            uses.add(reference)
            meanings.add(f"{reference[0]}:{reference[1]}")
        elif not _is_followed(dotted, module):
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
            yield _followed(top.imports[name], attributes, module)
    for name, *attributes in statement.meanings:
        yield _followed(name, attributes, module)


def _followed(dotted: str, attributes: Iterable[str], module: str) -> str:
    """Return a dotted name extended by attributes for as long as it is a module."""
    for attribute in attributes:
        if not _is_followed(dotted, module) or _path(dotted) is None:
            break
        dotted = f"{dotted}.{attribute}"
    return dotted


def _resolve(dotted: str, user: str) -> Reference | None:
    """Return the definition that a dotted name means, used in the module `user`; None where it is
    not followed."""
    if not _is_followed(dotted, user):
        return None
    module, rest = dotted, list[str]()
    while _path(module) is None:
        module, _, last = module.rpartition(".")
        rest.insert(0, last)
        if not module:  # a namespace without a file
            return None
    if not rest:
        return module, None
    top = _module(module)
    if rest[0] in top.bound:
        return module, rest[0]
    if rest[0] in top.imports:  # exported by a package
        return _resolve(".".join([top.imports[rest[0]], *rest[1:]]), module)
    if not _is_own(module):  # made when it is imported, or in a compiled file
        return module, None
    raise _missing(user, f"{dotted}: no definition {rest[0]} in {module}")
