"""Encoder families, judges and metrics of another package: found, checked, planned, run, shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from explored_run import write_store
from finished_plan import SMOKE
from plugged import forget_plugins, install, plugged
from pydantic import BaseModel, ValidationError

from tests.published import publish
from vista.cli import main
from vista.config.judges import JudgeChoice, NamingJudgeChoice
from vista.config.metric import ChosenMetrics, metrics_with, with_metrics
from vista.config.plugins import FAMILIES, METRICS, find_plugin
from vista.config.report import ReportSettings
from vista.encoders.registry import load_family
from vista.engine.artifacts import open_artifact
from vista.engine.code import code_digest, source_digests, stage_code, third_party
from vista.engine.model_settings import family_module
from vista.engine.node import with_judge
from vista.engine.stages import is_stage, stages
from vista.errors import UserError
from vista.judges import load_judge
from vista.report.contents import all_sections
from vista.report.inputs import Inputs, ReportOrder, read_measured
from vista.report.shown import MetricPlace

POINT = "dinov2-gemma2-w1-s0-0123456789"
PLAN = """
import json, sys
from vista.config.run import RunConfig
from vista.engine.plan import load_plan
from vista.config.reading import parse_config
config = json.load(sys.stdin)
early = [name for name in sys.modules if name.startswith("tiny_plugin")]
plan = load_plan(config)
nodes = [[n.stage, n.name, list(n.modules), n.settings, plan.code(f)]
         for (_, f), n in plan.nodes.items()]
wrong = []
for metrics in ({"active_patches": {"bund": 1}}, {"active_patchez": {}}):
    try:
        parse_config({**config, "metrics": metrics})
    except Exception as error:
        wrong.append(str(error))
print(json.dumps({"early": early, "nodes": nodes, "wrong": wrong,
                  "schema": RunConfig.model_json_schema()}))
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    folder = install(tmp_path / "site")
    with plugged(folder):
        yield folder / "tiny_plugin"


def config() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    source = {"kind": "checkpoint", "path": "/models/tiny", "family": "tiny_vit"}
    content["encoders"]["mine"] = {"source": source}
    judge = {"kind": "first_letter", "letters": 2}
    content["metrics"]["active_patches"] = {"bound": 0.5}
    content["metrics"]["localization"]["judge"] = judge
    return content


def run(script: str, folder: Path, standard_input: str = "") -> str:
    path = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=standard_input,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_config_names_plugins_and_its_plan_has_their_nodes(tmp_path: Path) -> None:
    planned = json.loads(run(PLAN, install(tmp_path), json.dumps(config())))
    assert planned["early"] == []
    modules = {(stage, name): modules for stage, name, modules, _, _ in planned["nodes"]}
    assert modules["features", "mine"] == ["tiny_plugin.family"]
    assert modules["localization", "mine-gemma2-w1-s0"] == ["tiny_plugin.judge"]
    measured = [node for node in planned["nodes"] if node[0] == "active_patches"]
    points = [node for node in planned["nodes"] if node[0] == "reconstruction"]
    assert len(measured) == len(points) > 3
    assert all(node[3] == {"bound": 0.5} for node in measured)
    (report,) = (node for node in planned["nodes"] if node[0] == "report")
    assert "tiny_plugin.active_patches.report" in report[2]
    assert all(digest for stage, *_, digest in planned["nodes"] if not stage.startswith("fetch"))
    wrong_setting, wrong_name = planned["wrong"]
    assert "unknown key metrics.active_patches.bund" in wrong_setting
    assert "did you mean 'active_patches'?" in wrong_name
    schema = planned["schema"]["$defs"]
    settings, null = schema["RunMetrics"]["properties"]["active_patches"]["anyOf"]
    assert null == {"type": "null"} and set(settings["properties"]) == {"bound"}
    assert "active_patches" not in schema["Probing"]["properties"]
    *_, judge = schema["LocalizationSettings"]["properties"]["judge"]["oneOf"]
    assert set(judge["properties"]) == {"kind", "letters"}


def starts() -> dict[str, tuple[str, ...]]:
    return {
        "features of the plug-in": stage_code("features", family_module("tiny_vit")),
        "features": stage_code("features", family_module("dinov2")),
        "judged by the plug-in": stage_code("matching_rate", ("tiny_plugin.judge",)),
        "judged": stage_code("matching_rate", ("vista.judges.kinds.lexical",)),
        "metric": stage_code("active_patches"),
        "report with it": stage_code("report", ("tiny_plugin.active_patches.report",)),
        "report": stage_code("report", ("vista.metrics.reconstruction.report",)),
    }


# Edits of one round concern different nodes.
ROUNDS = (
    (
        ("family.py", "resample=3", "resample=2", "features of the plug-in"),
        ("letters.py", "text.strip()", "text", "judged by the plug-in"),
        ("active_patches/report.py", '"share")', '"part")', "report with it"),
    ),
    (
        ("judge.py", "bool(start) and start", "start", "judged by the plug-in"),
        ("active_patches/stage.py", "> job.settings.bound", ">= job.settings.bound", "metric"),
    ),
    (
        ("active_patches/__init__.py", "Field(0.0", "Field(0.1", "metric"),
        ("letters.py", '"""What', '"""Whatever', None),
        ("judge.py", "\n\n\ndef create", "\n\n\n# A comment.\ndef create", None),
    ),
)


def test_an_edit_of_a_plugin_concerns_what_uses_it(package: Path) -> None:
    before = {name: code_digest(code) for name, code in starts().items()}
    for edits in ROUNDS:
        for file, old, new, _ in edits:
            text = (package / file).read_text()
            assert text.count(old) == 1
            (package / file).write_text(text.replace(old, new))
        forget_plugins()
        after = {name: code_digest(code) for name, code in starts().items()}
        changed = {name for name in before if before[name] != after[name]}
        assert changed == {name for *_, name in edits if name}
        before = after


def test_the_code_of_a_plugin_is_followed_however_it_is_imported(package: Path) -> None:
    (package / "inner").mkdir()
    (package / "inner" / "__init__.py").write_text("from .. import letters\nfrom .deep import *\n")
    (package / "inner" / "deep.py").write_text("import numpy as np\nSIZE = np.float32(1)\n")
    (package / "judge.py").write_text("from tiny_plugin.inner import letters, SIZE as create\n")
    code = source_digests(["tiny_plugin.judge"])
    assert {"tiny_plugin.letters:beginning", "tiny_plugin.inner.deep:SIZE"} <= set(code)
    assert third_party(["tiny_plugin.judge"]) == {"numpy"}


def test_a_family_and_a_judge_of_a_plugin_are_loaded_by_name(package: Path) -> None:
    assert load_family("tiny_vit").model_types == ("tiny_vit",)
    with pytest.raises(UserError, match=r"known families: clip, .*vlm, tiny_vit"):
        load_family("tiny_vlt")
    with pytest.raises(ValueError, match=r"choose one of clip, .*vlm, tiny_vit"):
        FAMILIES.known("tiny_vlt")

    class Judged(BaseModel):
        judge: JudgeChoice = "first_letter"
        namer: NamingJudgeChoice | None = None

    named = Judged.model_validate({"judge": "first_letter"})
    assert load_judge(named.judge).judge(["Cat", None], ["cow", "dog"]).tolist() == [
        [True, False],
        [False, False],
    ]
    given = {"judge": {"kind": "first_letter", "letters": 2}, "namer": None}
    judged = Judged.model_validate(given)
    assert judged.model_dump(mode="json") == given
    assert Judged.model_validate_json(judged.model_dump_json()) == judged
    assert with_judge("naming", "n", {}, {}, judged.judge).modules == ("tiny_plugin.judge",)
    for wrong, where in (
        ({"judge": {"kind": "first_letter", "letters": 0}}, ("judge", "plug-in", "letters")),
        ({"judge": {"kind": "first_lettr"}}, ("judge",)),
        ({"namer": {"kind": "first_letter"}}, ("namer", "plug-in")),
    ):
        with pytest.raises(ValidationError) as raised:
            Judged.model_validate(wrong)
        assert [fault["loc"] for fault in raised.value.errors()] == [where]
    with pytest.raises(ValidationError, match="whole_word, first_letter"):
        Judged.model_validate({"judge": "first_lettr"})


def test_a_metric_of_a_plugin_runs_and_is_shown(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_stage("active_patches") and stages()["active_patches"] == "metric of tiny-plugin"
    results = tmp_path / "results"
    latents = publish(results, f"latents/{POINT}", write_store)
    spec = {
        "settings": {"bound": 1.0},
        "inputs": {"latents": f"latents/{POINT}"},
        "modules": [],
    }
    manifest = results / f"active_patches/{POINT}/manifest.json"
    command = ["active_patches", "--spec", json.dumps(spec), "--manifest", str(manifest)]
    assert main(command) == 0, capsys.readouterr().err
    made = open_artifact(manifest.parent, "active_patches")
    assert "tiny_plugin.active_patches.stage:run" in made.manifest["code"]
    assert made.manifest["inputs"]["latents"] == latents.digest
    # Again: kept, since nothing changed.
    assert main(command) == 0
    assert "nothing that it depends on changed" in capsys.readouterr().out

    place = MetricPlace(
        metric="active_patches", encoder="dinov2", llm="gemma2", sae_weight=1, seed=0
    )
    order = ReportOrder(name="n", report=ReportSettings(), points=(place,))
    measured = read_measured(order, Inputs(metrics=[made]))
    (figure,) = measured.table.figures
    # Above 1: both patches of the first image, none of the second, both of the third.
    assert (figure.stage, figure.layer, figure.n) == ("active_patches", 4, 3)
    assert figure.value == pytest.approx(2 / 3)
    titles = [section.title for section in all_sections(measured, [])]
    assert "Active patches" in titles


def test_the_settings_of_a_metric_stand_in_its_section(package: Path) -> None:
    class Base(ChosenMetrics):
        pass

    section = with_metrics(Base, "probing")
    with pytest.raises(ValidationError, match="it belongs under `metrics`"):
        section.model_validate({"active_patches": {}})
    chosen = with_metrics(Base, "metrics").model_validate({"active_patches": {}})
    assert [metric.name for metric, _ in chosen.chosen()] == ["active_patches"]
    assert chosen.model_dump()["active_patches"] == {"bound": 0.0}
    assert list(metrics_with(["active_patches"]))[-1] == "active_patches"
    assert "active_patches" not in metrics_with(["latents"])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("family.py", "import nothing_like_it", "cannot import tiny_plugin.family (No module na"),
        ("family.py", "FAMILIES = 1", "has no FAMILY, which its module must define"),
        ("family.py", "FAMILY = 1", "has a FAMILY that is no vista.encoders.registry.EncoderFam"),
        ("judge.py", "class Settings: pass", "has Settings that are no"),
        ("active_patches/__init__.py", "METRIC = 1", "has a METRIC that is no"),
    ],
)
def test_a_broken_plugin_is_refused_where_it_is_used(
    package: Path, file: str, text: str, said: str
) -> None:
    (package / file).write_text(text + "\n")
    forget_plugins()
    # Not used: nothing is refused.
    assert load_family("clip") and stages() and load_judge("lexical")
    uses = {
        "family.py": lambda: load_family("tiny_vit"),
        "judge.py": lambda: load_judge("first_letter"),
        "active_patches/__init__.py": lambda: metrics_with(["active_patches"]),
    }
    with pytest.raises(UserError) as raised:
        uses[file]()
    sentence = str(raised.value)
    assert said in sentence and "\n" not in sentence
    assert "of package tiny-plugin" in sentence and "correct or uninstall tiny-plugin" in sentence


def test_a_name_that_is_taken_is_refused_with_both(tmp_path: Path) -> None:
    points = {"vista.encoders": {"clip": "x.y"}, "vista.judges": {"lexical": "x.y"}}
    twice = install(tmp_path / "twice", "other", {"vista.metrics": {"active_patches": "x.z"}})
    clash = install(tmp_path / "clash", "third", points | {"vista.metrics": {"probe": "x.y:z"}})
    with plugged(install(tmp_path / "site"), twice, clash):
        assert load_family("clip").model_types != ()
        with pytest.raises(UserError, match=r"clip = 'x.y' .* of package third has .* of VISTA"):
            family_module("clip")
        with pytest.raises(UserError, match=r"lexical = 'x.y' .*package third has the name of 'le"):
            with_judge("naming", "n", {}, {}, "lexical")
        with pytest.raises(UserError, match=r"of package (other|tiny-plugin) has the name of"):
            find_plugin(METRICS, "active_patches")
        assert family_module("dinov2") == ("vista.encoders.families.dinov2",)
        chosen = with_metrics(ChosenMetrics, "metrics").model_validate({"probe": {}})
        with pytest.raises(UserError, match=r"package third has the name of 'probe' of VISTA"):
            list(chosen.chosen())
        with pytest.raises(UserError, match=r"does not name a module; correct or uninstall third"):
            find_plugin(METRICS, "probe")


def test_the_example_of_the_documentation_is_a_judge(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text()
    project, module = re.findall(r"`(?:pyproject.toml|my_vista.py)`:\n\n((?:    .*\n|\n)+)", text)
    (tmp_path / "my_vista.py").write_text(textwrap.dedent(module))
    entry_points = tomllib.loads(textwrap.dedent(project))["project"]["entry-points"]
    with plugged(install(tmp_path, "my-vista", entry_points)):
        judge = load_judge("same_text")
        assert judge.judge(["cat", None], ["cat", "dog"]).tolist() == [[True, False], [False] * 2]
        assert "my_vista:create" in source_digests(
            with_judge("naming", "n", {}, {}, "same_text").modules
        )


def test_jobs_of_this_package_search_for_no_plugins() -> None:
    script = """
import sys
from vista.cli import _parser
from vista.config import plugins
from vista.config.judges import judge_named
from vista.engine.code import code_digest, stage_code
from vista.encoders.registry import load_family
_parser(["localization", "--spec", "{}", "--manifest", "m"])
code_digest(stage_code("localization", ["vista.judges.kinds.lexical"]))
import vista.metrics.localization.stage
judge_named("lexical"), load_family("clip")
print(plugins._installed.cache_info().misses)
"""
    assert run(script, Path()).strip() == "0"
