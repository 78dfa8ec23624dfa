"""Imports point one way, and what every job parses stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "vista"

# A room may import from rooms to its right only.
BASE = {"config", "artifacts", "job", "errors", "foreign", "progress", "device", "disk"}
TOOLS = {"data", "store", "encoders", "language", "sae", "fetch"}
# Where what is measured is planned: a metric's part `plan` uses it, and it loads that by name.
PLANNING = {"node", "nodes", "places", "control_nodes", "vision_sae_nodes"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "foreign": {"errors"},
    "progress": set(),
    "device": {"errors"},
    "disk": set(),
    "locks": {"errors"},
    "user_files": set(),
    "artifacts": {"disk", "errors", "locks", "user_files"},
    "job": {"artifacts"},
    "processes": {"artifacts", "errors", "job", "code"},
    "lineage": {"artifacts"},
    "syntax": set(),
    "code": {"config", "errors", "syntax"},
    "shipped": {"code"},
    "project": {"errors", "plan", "shipped"},
    "config": {"errors"},
    "node": {"config", "artifacts"},
    "package_nodes": {"config", "node", "user_files"},
    "model_settings": {"config", "node"},
    "nodes": {"config", "model_settings", "node", "package_nodes"},
    "vision_sae_nodes": {"config", "node", "nodes"},
    "control_nodes": {"config", "node", "nodes"},
    "places": {"config", "control_nodes", "errors", "node", "nodes", "vision_sae_nodes"},
    "intervention_nodes": {"config", "interventions", "node", "nodes", "vision_sae_nodes"},
    "diffusion_nodes": {"config", "node", "nodes", "vision_sae_nodes"},
    "graph": {"config", "diffusion_nodes", "intervention_nodes", *PLANNING},
    "plan": {"config", "artifacts", "code", "errors", "graph", "locks", "node", "shipped"},
    "gpus": {"errors"},
    "environment": set(),
    "stages": {"code", "config", "job", "stages"},
    "explain": {
        *("artifacts", "code", "errors", "locks", "node", "plan", "stages", "user_files"),
    },
    "make": {"errors", "plan", "shipped"},
    "accept": {
        *("artifacts", "code", "disk", "errors", "explain", "lineage", "locks", "node", "plan"),
        "shipped",
    },
    "gc": {"artifacts", "errors", "forecast", "locks", "plan", "stages"},
    "forecast": {*BASE, "code", "node", "plan", "sae"},
    "prompts": {"config", "data", "errors", "forecast", "foreign", "language", "node", "plan"},
    "cli": {
        *("artifacts", "code", "commands", "disk", "environment", "errors", "gpus", "job", "locks"),
        *("report", "stages"),
    },
    "commands": {
        *("accept", "artifacts", "config", "errors", "explain", "explore", "forecast", "gc"),
        *("library", "locks", "make", "plan", "project", "prompts", "report", "shipped", "stages"),
        "store",
    },
    "readout": {
        *(*BASE, *TOOLS, "inputs", "interventions", "judges", "lineage", "metrics", "projector"),
        "report",
    },
    "library": {
        *(*BASE, *TOOLS, "explore", "inputs", "lineage", "plan", "projector", "readout", "report"),
    },
    "explore": {*BASE, "data", "inputs", "lineage", "readout", "report", "sae", "store"},
    "fetch": BASE,
    "data": BASE,
    "store": {*BASE, "lineage"},
    "encoders": {*BASE, "data"},
    "language": {*BASE, "data"},
    "sae": {*BASE, "language", "data", "judges", "store"},
    "judges": {"config", "disk", "errors", "foreign"},
    "projector": {*BASE, "data", "language", "sae", "store"},
    "interventions": {*BASE, "data", "judges", "language", "projector", "sae", "store"},
    "standins": {*BASE, *TOOLS},
    "diffusion": {*BASE, "data", "sae", "metrics"},
    "controls": {*BASE, *TOOLS, "inputs", "metrics", "projector"},
    "inputs": {*BASE, *TOOLS, "diffusion", "interventions", "judges", "metrics", "projector"},
    "report": {*BASE, "lineage", "data", "sae", "store", "metrics", "judges", "inputs"},
    "metrics": {
        *(*BASE, *TOOLS, *PLANNING, "diffusion", "inputs", "interventions", "judges"),
        *("projector", "report", "forecast"),
    },
    "maker": {
        *(*BASE, *TOOLS, "processes", "diffusion", "inputs", "interventions", "projector"),
        *("controls", "standins", "judges", "metrics", "report", "forecast", "node", "user_files"),
    },
}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def rooms(path: Path) -> set[str]:
    """The parts of this package that a file imports."""
    known = {path.stem for path in (*PACKAGE.iterdir(), *ENGINE.iterdir())} - {"engine"}
    # Each file of the engine is a room of its own.
    names = (name.replace("vista.engine.", "vista.").split(".") for name in imports(path))
    return {part[1] for part in names if part[0] == "vista" and len(part) > 1 and part[1] in known}


ENGINE = PACKAGE / "engine"
INITS = (PACKAGE / "__init__.py", ENGINE / "__init__.py")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path not in INITS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    base = ENGINE if path.is_relative_to(ENGINE) else PACKAGE
    room = path.relative_to(base).parts[0].removesuffix(".py")
    allowed = ALLOWED["maker" if room == "stages" and base == PACKAGE else room]
    extra = rooms(path) - allowed - {room}
    assert not extra, f"{path.relative_to(PACKAGE)} may not import {sorted(extra)}"


def imported_modules(path: Path, modules: Collection[str]) -> set[str]:
    """The modules of `modules` that a file imports anywhere: inside functions and under
    TYPE_CHECKING, too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    # A name is a module, or a definition in the module before its last dot.
    return {n if n in modules else n.rpartition(".")[0] for n in names} & set(modules)


def import_circles(package: Path) -> list[list[str]]:
    """The sets of files that import each other, directly or through others, as sorted paths."""
    files = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in package.rglob("*.py")
    }
    graph = {name: imported_modules(path, files) - {name} for name, path in files.items()}
    reached = {name: reachable(graph, name) for name in graph}
    circles = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }
    return sorted(
        sorted(files[name].relative_to(package).as_posix() for name in circle) for circle in circles
    )


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """The modules that one imports, directly or through others; itself if that is a circle."""
    reached: set[str] = set()
    ahead = [*graph[start]]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += graph[name]
    return reached


def test_no_files_import_each_other_in_a_circle() -> None:
    circles = import_circles(PACKAGE)
    assert not circles, "import circles: " + "; ".join(map(", ".join, circles))


@pytest.mark.parametrize(
    "back",
    [
        "from package.a import A",
        "import package.a",
        "from package import a",
        "def late():\n    from package.a import A",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from package.a import A",
    ],
)
def test_a_circle_is_found_however_it_is_closed(tmp_path: Path, back: str) -> None:
    package = tmp_path / "package"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "a.py").write_text("from package.room import B\nA = B\n")
    (package / "room" / "__init__.py").write_text("from package.room.c import C\nB = C\n")
    (package / "room" / "c.py").write_text("C = 1\n")
    (package / "above.py").write_text("from package.a import A\n")
    assert import_circles(package) == []
    (package / "room" / "c.py").write_text(back + "\n")
    assert import_circles(package) == [["a.py", "room/__init__.py", "room/c.py"]]


def test_measures_and_judges_know_neither_files_nor_models() -> None:
    banned = {"torch", "transformers", "zarr", "pyarrow", "pathlib", "sae_lens"}
    pure = [
        *PACKAGE.glob("metrics/*/measure.py"),
        *(path for room in ("judges", "judges/kinds") for path in PACKAGE.glob(f"{room}/*.py")),
    ]
    for path in pure:
        extra = {name.split(".")[0] for name in imports(path)} & banned
        assert not extra, f"{path.relative_to(PACKAGE)} imports {sorted(extra)}"


def test_only_conversion_and_training_of_saes_import_sae_lens() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if any(name.split(".")[0] == "sae_lens" for name in imports(path))
    }
    assert found == {"sae/convert.py", "sae/guided.py", "sae/train.py", "sae/trainers/kmeans.py"}


def test_planning_loads_no_heavy_library() -> None:
    script = (
        "import sys, vista.engine.plan, vista.cli\n"
        "heavy = {'torch', 'transformers', 'sae_lens', 'sklearn', 'matplotlib', 'zarr'}\n"
        "heavy |= {'numpy', 'PIL', 'httpx2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_what_methods_of_directions_read_is_known_without_heavy_libraries() -> None:
    script = (
        "import sys\n"
        "from vista.config.edits import method_names\n"
        "from vista.interventions.method import load_method\n"
        "assert all(load_method(name).reads for name in method_names())\n"
        "heavy = {'numpy', 'torch', 'sklearn', 'scipy', 'pyarrow', 'PIL', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_file_grows_beyond_one_idea() -> None:
    long = {path.name: n for path in FILES if (n := path.read_text().count("\n")) > 420}
    assert not long
