"""Where the workflow and the configs lie that belong to this package, and those of a project.

In a checkout they stand beside the package. A wheel brings copies inside of the package (setup.py).
"""

from __future__ import annotations

from pathlib import Path

from vista.engine.code import PACKAGE

_SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
_CONFIGS = (Path("config/config.yaml"), Path("config/default.yaml"))


def shipped() -> Path:
    """Return the folder that holds the package's workflow/ and config/."""
    inside = PACKAGE / "shipped"
    return inside if inside.is_dir() else PACKAGE.parent


def config_names() -> list[str]:
    """Return the names of the package's configs, e.g. "default" for config/default.yaml."""
    return sorted(path.stem for path in (shipped() / "config").glob("*.yaml"))


def snakefile_in(folder: Path) -> Path | None:
    """Return the Snakefile that Snakemake takes in a folder; None if there is none."""
    paths = (folder / name for name in _SNAKEFILES)
    return next((path for path in paths if path.is_file()), None)


def project_config() -> Path:
    """Return the config that the Snakefile of the present folder runs if none is named.

    It is the one that `vista init` writes, or in a checkout config/default.yaml.
    """
    return next((path for path in _CONFIGS if path.is_file()), _CONFIGS[-1])
