"""The package as a wheel, installed once for all tests of a process."""

from __future__ import annotations

import pytest
from installed_package import InstalledPackage, install_package


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> InstalledPackage:
    return install_package(tmp_path_factory.mktemp("package"))
