"""The planted run, its server, a browser, and Node with the page's data layer."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.explore.browser import CHROMIUM, Browser
from tests.explore.planted import planted_run
from tests.explore.range_server import ExportedSite, Site, serving
from vista.explore.export import export
from vista.explore.finished import Finished

SOURCE = Path(__file__).parents[2] / "vista" / "explore" / "page_src"
NODE = shutil.which("node")
Read = Callable[..., list[Any]]
Show = Callable[[str, str], None]
ANSWER = "document.querySelector('.notice, .empty') !== null"


def why_no_node() -> str | None:
    """Return why the page cannot be built here; None where it can."""
    if NODE is None:
        return "Node is not installed"
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True).stdout
    if int(version.lstrip("v").partition(".")[0] or 0) < 20:
        return f"Node {version.strip()} is older than 20"
    if not (SOURCE / "node_modules" / "esbuild").is_dir():
        return "the page's packages are not installed: npm ci in vista/explore/page_src"
    return None


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with which the page can be built."""
    reason = why_no_node()
    if reason is not None:
        pytest.skip(reason)
    assert NODE is not None
    return NODE


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the planted run; to be copied before they are changed."""
    return planted_run(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def results(planted: Path, tmp_path: Path) -> Path:
    """A copy of the planted results, to be damaged."""
    return Path(shutil.copytree(planted, tmp_path / "results"))


@pytest.fixture(scope="session")
def data_layer(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data layer as a module for Node."""
    path = tmp_path_factory.mktemp("data") / "data.mjs"
    subprocess.run([node, "build.mjs", "--node", str(path)], cwd=SOURCE, check=True)
    return path


@pytest.fixture
def read(node: str, data_layer: Path) -> Read:
    """Do tasks of reads.mjs at a server, and return what came of each."""

    def do(address: str, *tasks: dict[str, Any]) -> list[Any]:
        script = Path(__file__).with_name("reads.mjs")
        done = subprocess.run(
            [node, str(script), str(data_layer), address],
            input=json.dumps(tasks),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout)
        return answers

    return do


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that all tests share."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """The browser, with nothing on its page and nothing noted."""
    chromium.resize(1400, 900)
    chromium.open("about:blank")
    chromium.requests.clear()
    chromium.errors.clear()
    return chromium


@pytest.fixture(scope="session")
def site(planted: Path) -> Site:
    """The site of the planted run, which no test changes."""
    return Site(planted)


@pytest.fixture(scope="session")
def exported(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `vista explore --export` writes of the planted run, which no test changes."""
    folder = tmp_path_factory.mktemp("exported") / "site"
    export(Finished(planted), folder, link=True)
    return folder


@pytest.fixture(scope="session", params=["results"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the planted run, or of its export (`ON_BOTH`)."""
    if request.param == "export":
        site: Site = ExportedSite(request.getfixturevalue("exported"))
    else:
        site = request.getfixturevalue("site")
    with serving(site) as url:
        yield url


def still(browser: Browser) -> None:
    """Wait until nothing more is asked for."""
    while True:
        before = len(browser.requests)
        browser.run("new Promise(done => setTimeout(done, 500))")
        if len(browser.requests) == before:
            return


@pytest.fixture
def show(browser: Browser, address: str) -> Iterator[Show]:
    """Open the page at a hash; in the end, nothing failed and nobody else was asked."""

    def do(hash_: str, ready: str) -> None:
        browser.open(f"{address}{hash_}")
        browser.wait(ready)

    yield do
    still(browser)
    assert browser.errors == []
    assert browser.requests and all(url.startswith(address) for url in browser.requests)
    assert browser.run("document.title") != "hacked"


def sentence(browser: Browser, site: Site, hash_: str = "", ready: str = ANSWER) -> str:
    """Return what the page says of a broken site, which it survives without an exception."""
    with serving(site) as url:
        browser.open(f"{url}{hash_}")
        browser.wait(ready)
        # Chromium itself notes answers of 404 and the like.
        assert [text for text in browser.errors if "Failed to load resource" not in text] == []
        return browser.text()


# Tests of what a static host shows, too.
ON_BOTH = pytest.mark.parametrize("address", ["results", "export"], indirect=True)
