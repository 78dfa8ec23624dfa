"""The code digest: an edit that matters changes it, wherever it is; another does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from code_caches import forget

from vista.engine import code

ONE = code.stage_code("one")
HELPER = '''"""Doc."""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn
from vista.deep.names import LIMIT, Settings

if TYPE_CHECKING:
    from vista.deep.other import Other


def work(size: int, other: Other | None = None) -> int:
    """Doc."""
    return _half(size) + LIMIT + torch.nn.functional.relu(size)


def _half(size):
    return size // 2


def unused():
    return sorted([])
'''
NAMES = """from pydantic import BaseModel, Field

LIMIT = 3
OTHER = 4


class Mask:
    def bound(self):
        return 1


class Settings(BaseModel):
    rate: float = Field(0.5, gt=0, description="a rate")
    mask: Mask = Mask()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "vista"
    files = {
        "__init__.py": "",
        "stages/__init__.py": "STAGES = {}\n",
        "stages/one.py": "def run(job):\n    from vista.deep import helper\n    helper.work(1)\n",
        "stages/two.py": "import numpy\n\n\ndef run(job):\n    return numpy.ones(1)\n",
        "deep/__init__.py": "from vista.deep.names import Settings\n",
        "deep/helper.py": HELPER,
        "deep/names.py": NAMES,
        "deep/other.py": "class Other: ...\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(code, "PACKAGE", root)
    return root


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget()


def digest(*starts: str) -> str:
    forget()
    return code.code_digest(starts)


@pytest.fixture
def edited(package: Path) -> Callable[..., bool]:
    """Makes an edit; says whether it changed the digest of stage `one`."""

    def edit(name: str, old: str, new: str, start: tuple[str, ...] = ONE) -> bool:
        before, path = digest(*start), package / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return digest(*start) != before

    return edit


def test_an_edit_of_a_function_that_an_inner_import_reaches_counts(
    edited: Callable[..., bool],
) -> None:
    two = digest(*code.stage_code("two"))
    assert edited("deep/helper.py", "size // 2", "size // 3")
    assert edited("deep/names.py", "LIMIT = 3", "LIMIT = 5")
    assert digest(*code.stage_code("two")) == two


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("deep/helper.py", '    """Doc."""\n', '    """Another."""\n    # why\n'),
        ("deep/helper.py", "size: int,", "size: float,"),
        ("deep/helper.py", "-> int", "-> float"),
        ("deep/helper.py", "deep.other import Other", "deep.names import Mask as Other"),
        ("deep/helper.py", "sorted([])", "sorted([1])"),
        ("deep/helper.py", "def unused():", "def new():\n    pass\n\n\ndef unused():"),
        ("deep/names.py", "OTHER = 4", "OTHER = 5"),
        ("deep/other.py", "...", "pass"),
        ("stages/__init__.py", "{}", "{'three': 3}"),
    ],
)
def test_what_cannot_change_a_result_does_not_count(
    edited: Callable[..., bool], name: str, old: str, new: str
) -> None:
    assert not edited(name, old, new)


def test_the_order_of_definitions_does_not_count(package: Path) -> None:
    before = digest(*ONE)
    path = package / "deep" / "helper.py"
    head, work, half, unused = path.read_text().split("\n\n\n")
    path.write_text("\n\n\n".join([head, half, unused, work]))
    assert digest(*ONE) == before


def test_settings_count_but_for_their_descriptions_and_with_the_types_of_their_fields(
    package: Path, edited: Callable[..., bool]
) -> None:
    settings = ("vista.deep:Settings",)
    with pytest.raises(ValueError, match="no definition"):
        digest(*settings)  # handed on by the package, defined elsewhere
    settings = ("vista.deep.names:Settings",)
    assert not edited("deep/names.py", "a rate", "the rate", settings)
    assert edited("deep/names.py", "gt=0", "gt=1", settings)
    assert edited("deep/names.py", "return 1", "return 2", settings)


def test_a_name_that_comes_from_elsewhere_counts_as_another(edited: Callable[..., bool]) -> None:
    assert edited("deep/helper.py", "import torch.nn", "import numpy as torch")


def test_a_local_name_is_not_taken_for_one_of_the_module(
    package: Path, edited: Callable[..., bool]
) -> None:
    path = package / "deep" / "helper.py"
    path.write_text(path.read_text().replace("_half(size) +", "[unused for unused in [1]][0] +"))
    assert not edited("deep/helper.py", "sorted([])", "sorted([1])")
    path.write_text(
        path.read_text().replace(
            "[unused for unused in [1]]", "[unused, *[unused for unused in [1]]]"
        )
    )
    assert edited("deep/helper.py", "sorted([1])", "sorted([2])")


def test_statements_at_the_top_and_modules_used_as_values_count_whole(
    package: Path, edited: Callable[..., bool]
) -> None:
    path = package / "deep" / "helper.py"
    path.write_text(path.read_text() + "\nprint(OPTIONS := 1)\n")
    assert edited("deep/helper.py", "OPTIONS := 1", "OPTIONS := 2")
    one = package / "stages" / "one.py"
    one.write_text(one.read_text().replace("helper.work(1)", "getattr(helper, 'work')(1)"))
    assert edited("deep/helper.py", "sorted([])", "sorted([1])")


def test_what_is_bound_where_types_are_not_checked_counts(
    package: Path, edited: Callable[..., bool]
) -> None:
    helper = package / "deep" / "helper.py"
    text = helper.read_text().replace("+ LIMIT", "+ SIZE")
    text = text.replace("deep.other import Other\n", "deep.other import Other\n\n    SIZE = 1\n")
    text = text.replace("\n\n\ndef work", "\nelse:\n    SIZE = LIMIT + 7\n\n\ndef work", 1)
    helper.write_text(text)
    assert not edited("deep/helper.py", "SIZE = 1", "SIZE = 2")
    assert edited("deep/helper.py", "LIMIT + 7", "LIMIT + 8")
    assert edited("deep/names.py", "LIMIT = 3", "LIMIT = 5")


def test_a_module_loaded_by_name_counts_whole_for_who_names_it(
    package: Path, edited: Callable[..., bool]
) -> None:
    two = code.stage_code("two", ["vista.deep.helper"])
    assert digest(*two) != digest(*code.stage_code("two"))
    assert edited("deep/helper.py", "sorted([])", "sorted([1])", two)


def test_the_packages_of_a_stage_are_those_its_definitions_use(package: Path) -> None:
    forget()
    assert code.third_party(ONE) == {"torch"}
    assert code.third_party(code.stage_code("two")) == {"numpy"}
    assert code.third_party(["vista.deep.names:Settings"]) == {"pydantic"}


def test_a_start_that_is_not_there_is_an_error(package: Path) -> None:
    with pytest.raises(ValueError, match=r"no module vista\.stages\.three"):
        digest(*code.stage_code("three"))
    with pytest.raises(ValueError, match=r"no definition walk in vista\.stages\.one"):
        digest("vista.stages.one:walk")


def test_how_a_stage_talks_to_people_does_not_count(
    package: Path, edited: Callable[..., bool]
) -> None:
    (package / "progress.py").write_text("LINES = 1\n")
    one = package / "stages" / "one.py"
    one.write_text(one.read_text().replace("(1)", "(LINES)"))
    one.write_text("from vista.progress import LINES\n" + one.read_text())
    assert not edited("progress.py", "1", "2")


def test_every_definition_is_named(package: Path) -> None:
    forget()
    assert set(code.source_digests(ONE)) == {
        "vista.stages.one:run",
        "vista.deep.helper:work",
        "vista.deep.helper:_half",
        "vista.deep.names:LIMIT",
    }
