"""The documents: what is written from code is up to date, and the site builds by itself."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import nbformat
import pytest
import yaml

from tests.docs.references import REFERENCES, different
from tests.docs.tutorials import FOLDER, NAMES, cells_of

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("config/*.yaml"))
SCHEMA = "vista.schema.json"
# What a browser fetches by itself when it shows a page.
FETCHED = (
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?(?:https?:)?//""",
    r"""<link\b[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon)[^>]*href=["']?(?:https?:)?//""",
    r"""<link\b[^>]*\bhref=["']?(?:https?:)?//[^>]*rel=["']?(?:stylesheet|preconnect|preload|icon)""",
    r"""url\(["']?(?:https?:)?//""",
    r"""@import\s+["']?(?:https?:)?//""",
)


def test_references_are_what_the_code_says() -> None:
    assert different() == [], "run: python -m tests.docs.references --fix"


def test_every_key_of_a_config_is_in_its_reference() -> None:
    """By another way than the page is written: the names of all fields of all settings."""
    page = REFERENCES["docs/config-reference.md"]()
    cells = {
        key for cell in re.findall(r"^\| `([^`]*)`", page, re.MULTILINE) for key in cell.split(".")
    }
    definitions = json.loads(REFERENCES["config/vista.schema.json"]())["$defs"].values()
    keys = {key for settings in definitions for key in settings.get("properties", {})}
    assert len(keys) > 200
    assert keys - cells <= {"kind"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_an_editor_finds_the_schema_and_it_accepts_the_config(config: Path) -> None:
    text = config.read_text(encoding="utf-8")
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA}"
    schema = json.loads((config.parent / SCHEMA).read_bytes())
    # YAML's keys may be numbers; JSON's are texts.
    content = json.loads(json.dumps(yaml.safe_load(text)))
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(content)
    assert not validator.is_valid({**content, "metricss": {}})


@pytest.mark.parametrize("name", NAMES)
def test_pages_and_notebooks_are_those_of_the_tutorials(name: str) -> None:
    cells = cells_of((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    how = f"run: python -m tests.docs.tutorials RESULTS {name}"
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == cells, how
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    for cell in cells:
        shown = cell.source if cell.kind == "markdown" else f"```python\n{cell.source}\n```"
        assert shown in page, how
    for picture in re.findall(rf"\(({name}-\d+\.png)\)", page):
        assert (FOLDER / picture).is_file()


def test_the_site_builds_and_asks_no_other_server(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip("mkdocs with material and mkdocstrings is not installed (extra docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 20
    for path in files:
        text = path.read_text(encoding="utf-8")
        for pattern in FETCHED:
            assert re.search(pattern, text) is None, (path.name, pattern)
    # The reference is written from docstrings, and each public name is there.
    reference = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("library.run.Run.table", "readout.models.Readout.caption", "errors.UserError"):
        assert f'id="vista.{name}"' in reference
    assert (tmp_path / "tutorials" / "steer-an-object.ipynb").is_file()
