"""`vista explore`: what it is given, what it says, how it starts and stops."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
import yaml
from finished_plan import SMOKE

pytest.importorskip("uvicorn", reason="needs the extra `explore`")

from explored_run import LATENTS, run_to_explore

from vista.cli import main
from vista.explore.serve_command import EXTRA, results_of
from vista.explore.server import listen

PROGRAM = (sys.executable, "-m", "vista.cli", "explore")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_explore(tmp_path_factory.mktemp("run"))


def error(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["explore", *options]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    return said.err


def test_it_shows_a_run_until_ctrl_c(results: Path, tmp_path: Path) -> None:
    """The whole way of a person: the command, the printed address, the page, Ctrl-C."""
    config = tmp_path / "config.yaml"
    content = {**yaml.safe_load(SMOKE.read_text()), "results": str(results)}
    config.write_text(yaml.safe_dump(content))
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    process = subprocess.Popen(
        [*PROGRAM, str(config), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        line, hint = process.stdout.readline(), process.stdout.readline()
        match = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
        assert match is not None, line + (process.communicate()[1] if process.poll() else "")
        jar = urllib.request.HTTPCookieProcessor(CookieJar())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)
        page = opener.open(match[0], timeout=30)
        assert page.status == 200 and "token" not in page.url and b"<html" in page.read()
        listed = json.loads(opener.open(f"{page.url}catalogue.json", timeout=30).read())
        assert LATENTS in [entry["folder"] for entry in listed["artifacts"]]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(page.url, timeout=30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert err == ""
    assert "Ctrl-C" in hint and out.splitlines() == ["The explorer has stopped."]


def test_a_config_stands_for_its_results(results: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    content = {**yaml.safe_load(SMOKE.read_text()), "results": str(results)}
    config.write_text(yaml.safe_dump(content))
    assert results_of(config) == results_of(results) == results


def test_what_cannot_be_shown_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "results is no folder; name a results folder, or a config" in error(capsys)
    (tmp_path / "results" / "logs" / "latents").mkdir(parents=True)
    (tmp_path / "results" / "latents" / "half-0123456789").mkdir(parents=True)
    assert "has no finished artifact yet: run snakemake" in error(capsys)
    (tmp_path / "results" / "file.txt").touch()
    assert "is no folder" in error(capsys, "results/file.txt")
    assert "does not exist" in error(capsys, "none.yaml")
    assert "--link and --force are of an export" in error(capsys, "--force")


def test_a_port_in_use_is_said(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        said = error(capsys, str(results), "--no-browser", "--port", str(port))
    assert f"port {port} is in use; give another --port, or none" in said


@pytest.mark.parametrize("port", ["-1", "65536", "x", "1e3", "٣"])
def test_a_wrong_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explore", "--port", port])
    assert "is no port" in capsys.readouterr().err or port == "-1"


def test_the_missing_extra_is_named(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "uvicorn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "vista.explore.serve", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert EXTRA in error(capsys, str(results))


def test_a_browser_is_opened_with_an_address_that_works_once(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import webbrowser

    import uvicorn

    from vista.explore.finished import Finished
    from vista.explore.serve import serve

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)

    def run(*_: object, **__: object) -> None:
        until = time.monotonic() + 30
        while not opened and time.monotonic() < until:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setenv("DISPLAY", ":0")
    serve(Finished(results), 0, browser=True)
    printed = re.search(r"http\S+", capsys.readouterr().out)
    assert printed is not None and opened and opened[0] != printed[0]
    assert opened[0].partition("?")[0] == printed[0].partition("?")[0]
    opened.clear()
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(time, "sleep", lambda _: opened.append("nothing was opened"))
    serve(Finished(results), 0, browser=True)
    assert opened == ["nothing was opened"]
