"""The package as its users install it: an sdist of the checkout, the wheel of that sdist, and an
environment that has the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path

from workflow_run import ROOT

# What a checkout may hold beside the project.
UNTRACKED = shutil.ignore_patterns(
    *(".git", ".venv", ".snakemake", ".hypothesis", ".*_cache", "__pycache__", "*.egg-info"),
    *("node_modules", "results", "build", "dist"),
)


@dataclass(frozen=True)
class InstalledPackage:
    """The files of the sdist, unpacked; the wheel; the programs of the environment."""

    sources: Path
    wheel: Path
    programs: Path

    def run(self, folder: Path, *command: str, trace: Path | None = None) -> str:
        """Run a program of the environment in a folder; return what it prints.

        With `trace`, a folder, each stage notes there which functions of the package it called.
        """
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        environment.pop("PYTHONPATH", None)
        if trace is not None:
            environment["VISTA_TRACE"] = str(trace)
            environment["PYTHONPATH"] = str(ROOT / "tests" / "workflow" / "trace")
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            capture_output=True, text=True, env=environment, cwd=folder, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
        return done.stdout


def install_package(folder: Path) -> InstalledPackage:
    """Build the package and install it into an environment of its own below a folder.

    That has the dependencies of the present environment, in which the package itself is not seen:
    its editable install works by a .pth file, and such files count in an environment's own folders
    only.
    """
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=UNTRACKED)
    # A checkout may be read-only.
    checkout.chmod(0o755)
    _build("sdist", checkout, folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        # Python 3.11.4 and later ask for a filter, those before have none.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder, **safely)
    (sources,) = (path.parent for path in folder.glob("*/PKG-INFO"))
    _build("wheel", sources, folder)
    shutil.rmtree(checkout)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], check=True
    )
    (site,) = environment.glob("lib/python*/site-packages")
    # As a line of code in ASCII: under the locale C a path in a .pth file is read as ASCII.
    line = f"import sys; sys.path.append({sysconfig.get_path('purelib')!a})\n"
    (site / "dependencies.pth").write_text(line, encoding="ascii")
    return InstalledPackage(sources, wheel, python.parent)


def _build(kind: str, sources: Path, folder: Path) -> None:
    """Make the sdist or the wheel, as pip would, without another environment for the build."""
    call = f"from setuptools.build_meta import build_{kind} as build; build({str(folder)!r})"
    subprocess.run(
        [sys.executable, "-c", call], cwd=sources, capture_output=True, text=True, check=True
    )
