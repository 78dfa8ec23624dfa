"""Keys are written nowhere; text of strangers acts nowhere that it is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_endpoint import KEY, Endpoint
from pydantic import ValidationError

from vista.config.data import FetchFile
from vista.data.records import Box, Object, Record, write_records
from vista.engine.artifacts import Provenance, publishing
from vista.errors import UserError
from vista.metrics.judge_agreement import JudgeAgreementSettings
from vista.report.escape import clean, html, markdown
from vista.store.show import describe


def test_a_judges_key_is_in_no_file_no_output_and_no_command(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    results, log = tmp_path / "results", tmp_path / "log.txt"
    with publishing(results, "records", "node", Provenance("records", {}, {}, {}, {})) as work:
        assert work is not None
        cat = (Object("cat", Box(0.0, 0.0, 8.0, 8.0)),)
        rows = [Record(f"{i}", "test", f"{i}.png", 8, 8, (f"cat {i}",), (), cat) for i in range(3)]
        write_records(work / "records.parquet", rows)
    judge = {"kind": "api", "base_url": endpoint.url, "model": "small", "key_env": "JUDGE_KEY",
             "concurrency": 1, "retries": 1, "first_pause_s": 0.01}  # fmt: skip
    settings = JudgeAgreementSettings.model_validate(
        {"judges": {"theirs": judge, "words": "lexical"}, "bootstrap": {"resamples": 20}}
    )
    inputs = {"records": "records/node"}
    order = {"settings": settings.model_dump(mode="json"), "inputs": inputs, "modules": []}
    manifest = results / "judge_agreement" / "node" / "manifest.json"
    command = [sys.executable, "-m", "vista.cli", "judge_agreement", "--spec", json.dumps(order)]
    command += ["--manifest", str(manifest), "--log", str(log)]
    environment = {**os.environ, "JUDGE_KEY": KEY, "HF_HOME": str(tmp_path / "home")}
    said = []
    # Refused, with the key told back; then busy once, and answered.
    for script, status in (([401], 2), ([500], 0)):
        endpoint.script, endpoint.pause_s = list(script), 0.2
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        asked = len(endpoint.requests)
        while process.poll() is None and len(endpoint.requests) == asked:
            time.sleep(0.02)
        said.append(Path(f"/proc/{process.pid}/cmdline").read_text())
        said.append(process.communicate()[0])
        assert process.returncode == status, said[-1]
        said.append(log.read_text())
    assert "JUDGE_KEY" in said[1] and "Traceback" not in said[1]
    assert set(endpoint.keys) == {f"Bearer {KEY}"}
    assert manifest.is_file() and list((results / "judgements").iterdir())
    said += [path.read_bytes().decode(errors="replace")
             for path in tmp_path.rglob("*") if path.is_file()]  # fmt: skip
    assert not [text for text in said if KEY in text]


@pytest.mark.parametrize(
    "url", ["https://me:sk-secret@host/a.zip", "ftp://sk-secret@host/a.zip", "https://sk-secret@h"]
)
def test_a_password_has_no_place_in_an_address(url: str) -> None:
    with pytest.raises(ValidationError) as raised:
        FetchFile(url=url)
    said = [each["msg"] for each in raised.value.errors()]
    assert any("password" in text for text in said) and not any("secret" in text for text in said)


SLY = [
    "<script>alert(1)</script>", "a | b", "`code`", "two\nlines", "\x1b[2J\x1b]0;title\x07",
    "\u202eevil", "\u2066x\u2069", "\x9b31m", "\x00", "\ud800", "x" * 10_000, "\x7f\x08\x08",
    "\u2028", "\U000e0041",
]  # fmt: skip


@pytest.mark.parametrize("text", SLY)
def test_what_is_shown_never_acts(text: str, tmp_path: Path) -> None:
    for shown in (clean(text), html(text), markdown(text), str(UserError(f"{text} is wrong"))):
        assert all(each.isprintable() or each == "\n" for each in shown)
        shown.encode()
    for shown in (clean(text), html(text), markdown(text)):
        assert "\n" not in shown
        assert len(shown) < 1000
    assert "<" not in html(text) and "<" not in markdown(text) and "|" not in markdown(text)
    whole = text.encode("utf-8", "replace").decode()
    columns: dict[str, Any] = {"label": [whole], whole or "empty": [1]}
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    (tmp_path / "result.json").write_text(json.dumps({"label": text, text: 1}))
    (tmp_path / "notes.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
    shown = describe(tmp_path)
    assert all(each.isprintable() or each == "\n" for each in shown)
    assert max(map(len, shown.splitlines())) < 500


def test_an_error_that_quotes_a_file_reaches_terminal_and_log_as_text(tmp_path: Path) -> None:
    from vista.cli import main

    name = "\x1b[2J\ud800"
    manifest = tmp_path / "results" / "judge_agreement" / "node" / "manifest.json"
    order = {"settings": {}, "inputs": {"records": f"records/{name}"}, "modules": []}
    log = tmp_path / "log.txt"
    argv = ["judge_agreement", "--spec", json.dumps(order), "--manifest", str(manifest)]
    assert main([*argv, "--log", str(log)]) == 2
    assert "is no finished artifact" in log.read_text() and "\x1b" not in log.read_text()
