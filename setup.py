"""The build: workflow/ and config/, which stand beside the package, go into the wheel."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


def shipped_files() -> list[Path]:
    """Return the files of the workflow and the configs, without caches and hidden files."""
    files = [path for top in ("workflow", "config") for path in Path(top).rglob("*")]
    return sorted(
        path
        for path in files
        if path.is_file() and not any(part.startswith((".", "__")) for part in path.parts)
    )


class BuildWithWorkflow(build_py):
    """Copies the files into vista/shipped; an editable install reads them in the checkout."""

    def run(self) -> None:
        super().run()
        for path in [] if self.editable_mode else shipped_files():
            target = Path(self.build_lib, "vista", "shipped", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target))


setup(cmdclass={"build_py": BuildWithWorkflow})
