"""Settings of judges: names stay names, keys stay out, and each says what it needs."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

import vista
from vista.config.judge_base import JudgeSettings
from vista.config.judges import (
    JudgeChoice,
    fitted_on,
    judge_files,
    judge_module,
    judge_names,
    judge_source,
)
from vista.judges.kinds.api import Settings as ApiJudgeSettings

# A judge as CONTRIBUTING describes it, with a setting of its own.
NEW = """
from typing import ClassVar, Literal

from vista.config.judge_base import JudgeSettings


class Settings(JudgeSettings):
    looks: ClassVar[bool] = True
    names: ClassVar[bool] = True
    kind: Literal["new"] = "new"
    size: int = 3


def create(settings, resources):
    return ("judge", settings.size)


def create_namer(settings, resources):
    return ("namer", settings.size)
"""
USE = """
from pydantic import BaseModel, ValidationError
from vista.config.judges import JudgeChoice, NamingJudgeChoice, looking_judges
from vista.judges import Resources, load_judge
from vista.judges.naming import load_namer

class Metric(BaseModel):
    judge: JudgeChoice = "lexical"
    namer: NamingJudgeChoice | None = None

metric = Metric.model_validate({"judge": {"kind": "new", "size": 4}, "namer": {"kind": "new"}})
print(looking_judges(), load_judge(metric.judge), load_judge("new"))
print(load_namer(metric.namer, Resources()))
try:
    Metric.model_validate({"judge": {"kind": "new", "siz": 4}})
except ValidationError as error:
    print([(mistake["loc"], mistake["type"]) for mistake in error.errors()])
"""


class Metric(BaseModel):
    judge: JudgeChoice = "lexical"


def test_a_name_stays_a_name_and_an_entry_becomes_settings() -> None:
    assert Metric().model_dump(mode="json") == {"judge": "lexical"}
    assert Metric.model_validate({"judge": "whole_word"}).judge == "whole_word"
    given = {"kind": "api", "base_url": "http://localhost:8000/v1/", "model": "m"}
    judge = Metric.model_validate({"judge": given}).judge
    assert isinstance(judge, ApiJudgeSettings) and judge.base_url == "http://localhost:8000/v1"
    assert Metric.model_validate_json(Metric(judge=judge).model_dump_json()).judge == judge


@pytest.mark.parametrize(
    ("entry", "where", "kind"),
    [
        ({"kind": "lexical", "wordnett": "x"}, ("judge", "lexical", "wordnett"), "extra_forbidden"),
        ({"kind": "api", "model": "m"}, ("judge", "api", "base_url"), "missing"),
        ({"kind": "nobody"}, ("judge",), "judge_kind"),
        ({}, ("judge",), "judge_kind"),
        ("lexicl", ("judge", "name"), "value_error"),
        ("vlm", ("judge", "name"), "value_error"),
        (3, ("judge",), "judge_kind"),
    ],
)
def test_a_mistake_is_told_once_and_under_its_own_key(
    entry: object, where: tuple[str, ...], kind: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        Metric.model_validate({"judge": entry})
    assert [(each["loc"], each["type"]) for each in raised.value.errors()] == [(where, kind)]


def test_what_the_plan_asks_of_a_judge() -> None:
    repo = {"kind": "checkpoint", "repo": "a/b", "revision": "c"}
    entry = {"kind": "embedding", "source": repo}
    judge = Metric.model_validate({"judge": entry}).judge
    source = judge_source(judge)
    assert source is not None and (source.repo, source.revision) == ("a/b", "c")
    assert judge_source("lexical") is None
    assert judge_module("lexical") == "vista.judges.kinds.lexical"
    assert judge_module(Metric.model_validate({"judge": entry}).model_dump()["judge"]) == (
        "vista.judges.kinds.embedding"
    )
    nouns = Metric.model_validate({"judge": {"kind": "lexical", "wordnet": "/w"}}).judge
    assert judge_files(nouns) == ("/w/index.noun", "/w/data.noun")
    assert judge_files("lexical") == judge_files(judge) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "https://me:sk-secret@host/v1"},
        {"base_url": "https://host/v1?key=sk-secret"},
        {"key_env": "sk-secret"},
    ],
)
def test_a_key_has_no_place_in_settings(change: dict[str, str]) -> None:
    given = {"base_url": "https://host/v1", "model": "m", **change}
    with pytest.raises(ValidationError) as raised:
        ApiJudgeSettings.model_validate(given)
    assert "sk-secret" not in str(raised.value)


def test_names_in_a_config_are_those_that_can_be_loaded() -> None:
    with pytest.raises(ValidationError, match=f"choose one of {', '.join(judge_names())}"):
        Metric.model_validate({"judge": "lexicl"})
    with pytest.raises(ValidationError, match=r"'api' needs settings \(base_url, model\)"):
        Metric.model_validate({"judge": "api"})


def test_a_new_judge_is_one_file(tmp_path: Path) -> None:
    package = tmp_path / "vista"
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    shutil.copytree(Path(vista.__file__).parent, package, ignore=ignored)
    (package / "judges" / "kinds" / "new.py").write_text(NEW)
    run = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == [
        "['api', 'new', 'vlm'] ('judge', 4) ('judge', 3)",
        "('namer', 3)",
        "[(('judge', 'new', 'siz'), 'extra_forbidden')]",
    ], run.stderr


@pytest.mark.parametrize("name", judge_names())
def test_the_file_of_a_judge_has_what_its_settings_promise(name: str) -> None:
    module = importlib.import_module(judge_module(name))
    assert issubclass(module.Settings, JudgeSettings)
    assert module.Settings.model_fields["kind"].default == name
    assert callable(module.create)
    assert hasattr(module, "create_namer") == module.Settings.names


def test_the_split_of_a_threshold_is_that_of_a_judge_that_fits_one() -> None:
    source = {"kind": "checkpoint", "path": "/model"}
    entry = {"kind": "embedding", "source": source, "fit_split": "train"}
    assert fitted_on(Metric.model_validate({"judge": entry}).judge) == "train"
    assert fitted_on(Metric.model_validate({"judge": entry | {"threshold": 0.5}}).judge) is None
    assert fitted_on("lexical") is None
