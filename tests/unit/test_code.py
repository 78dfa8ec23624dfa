"""The code digest: an edit that matters changes it, in imported modules too; a comment does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vista import code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "vista"
    files = {
        "__init__.py": "",
        "stages/__init__.py": "",
        "stages/one.py": "def run(job):\n    from vista.deep import helper\n    helper.work()\n",
        "stages/two.py": "import numpy\n",
        "deep/__init__.py": "",
        "deep/helper.py": (
            '"""Doc."""\nimport torch.nn\n\n\ndef work():\n    """Doc."""\n    return 1\n'
        ),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(code, "PACKAGE", root)
    return root


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget()


def forget() -> None:
    for cached in (code.closure, code._closure_digest, code._module):
        cached.cache_clear()


def digest(*modules: str) -> str:
    forget()
    return code.code_digest(modules)


def test_an_edit_of_a_module_imported_inside_a_function_counts(package: Path) -> None:
    before, other = digest("vista.stages.one"), digest("vista.stages.two")
    helper = package / "deep" / "helper.py"
    helper.write_text(helper.read_text().replace("return 1", "return 2"))
    assert digest("vista.stages.one") != before
    assert digest("vista.stages.two") == other


def test_comments_docstrings_and_layout_do_not_count(package: Path) -> None:
    before = digest("vista.stages.one")
    (package / "deep" / "helper.py").write_text(
        '"""Another."""\n# why\nimport torch.nn\ndef work():\n    # because\n    return (1)\n'
    )
    assert digest("vista.stages.one") == before


def test_a_module_loaded_by_name_counts_for_who_names_it(package: Path) -> None:
    alone = digest("vista.stages.two")
    both = digest("vista.stages.two", "vista.deep.helper")
    assert alone != both
    assert digest("vista.deep.helper", "vista.stages.two") == both


def test_the_packages_of_a_stage_are_those_its_closure_imports(package: Path) -> None:
    forget()
    assert code.third_party(["vista.stages.one"]) == {"torch"}
    assert code.third_party(["vista.stages.two"]) == {"numpy"}


def test_a_module_that_is_not_there_is_an_error(package: Path) -> None:
    with pytest.raises(ValueError, match=r"no module vista\.stages\.three"):
        digest("vista.stages.three")


def test_how_a_stage_talks_to_people_does_not_count(package: Path) -> None:
    (package / "progress.py").write_text("LINES = 1\n")
    one = package / "stages" / "one.py"
    one.write_text("from vista.progress import LINES\n" + one.read_text())
    before = digest("vista.stages.one")
    (package / "progress.py").write_text("LINES = 2\n")
    assert digest("vista.stages.one") == before
