"""A copy of the plug-in package of tests/plugin_package, installed as pip would, for one test."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from code_caches import forget

from vista.config import metric, plugins

SOURCE = Path(__file__).parent / "plugin_package"


def install(
    folder: Path,
    name: str = "tiny-plugin",
    points: Mapping[str, Mapping[str, str]] | None = None,
) -> Path:
    """Write the metadata of an installed package with these entry points; by default, copy the
    package of the tests. Return the folder for sys.path."""
    if points is None:
        shutil.copytree(SOURCE / "tiny_plugin", folder / "tiny_plugin")
        project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
        points = project["entry-points"]
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, entries in points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def forget_plugins() -> None:
    """Have the next search find what is installed now."""
    forget()
    for function in (plugins._installed, plugins._top_module, metric.plugin_metric):
        function.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "tiny_plugin"]:
        del sys.modules[name]


@contextmanager
def plugged(*folders: Path) -> Iterator[None]:
    """Have the plug-ins of installed packages for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            patch.syspath_prepend(folder)
        forget_plugins()
        try:
            yield
        finally:
            patch.undo()
            forget_plugins()
