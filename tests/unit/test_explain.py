"""`vista explain`: the cause is named, in the artifact that it lies in, and nothing else is."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from finished_plan import FinishedRun, publish

import vista.engine.explain
from vista import cli
from vista.engine.code import source_digests, stage_code
from vista.engine.locks import lock_file, work_folder
from vista.engine.node import Node

POINT = "dinov2-gemma2-w1-s0"


class Run(FinishedRun):
    """A finished run, and the plan that it was made by."""

    def __init__(self, folder: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder, finished, capsys)
        self.finished = self.plan

    def explain(self, *paths: Node | str) -> tuple[int, list[str]]:
        folders = [str(self.results / (p.path if isinstance(p, Node) else p)) for p in paths]
        status = cli.main(["explain", *folders, "--config", str(self.config())])
        self.said = self.capsys.readouterr()
        return status, self.said.out.replace(f"{self.results}/", "").splitlines()

    def learn(self, lr: float) -> None:
        self.content["projector"]["stages"][0]["lr"] = lr


@pytest.fixture
def run(tmp_path: Path, finished_smoke: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tmp_path, finished_smoke, capsys)


def test_all_of_a_finished_run_is_up_to_date(run: Run) -> None:
    status, lines = run.explain("*/*")
    assert status == 0
    assert len(lines) == len(run.plan.nodes)
    assert {line.split(": ")[1] for line in lines} == {"up to date"}


def test_a_path_may_be_relative_and_name_the_manifest(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = run.node("features", "siglip")
    monkeypatch.chdir(run.results / "features")
    text, status = vista.engine.explain.explain([f"{node.folder}/manifest.json"], run.config())
    assert (text, status) == (f"{node.folder}: up to date", 0)


def test_a_setting_is_named_with_both_values_where_it_lies(run: Run) -> None:
    run.learn(0.002)
    new, latents = run.node("train_projector", POINT), run.node("latents", POINT)
    old = run.node("train_projector", POINT, run.finished)
    assert run.explain(new) == (1, [
        f"{new.path}: not made yet, unlike {old.folder}",
        "  training.lr: 0.001 -> 0.002",
    ])  # fmt: skip
    # Of what follows, the cause is said to lie in the projector.
    status, lines = run.explain(latents)
    assert status == 1
    assert lines[1:] == [f"  training.lr: 0.001 -> 0.002 ({new.path})"]
    # Asked by the old folder, it is the new one that is to be made.
    status, lines = run.explain(old)
    assert status == 1
    assert lines[0].endswith(f"in its place {new.path}: to be made")
    assert lines[1:] == ["  training.lr: 0.001 -> 0.002"]


def test_a_setting_is_found_behind_an_input_that_is_made_already(run: Run) -> None:
    run.learn(0.002)
    new = run.node("train_projector", POINT)
    publish(new, run.results)
    status, lines = run.explain(run.node("latents", POINT))
    assert (status, lines[1:]) == (1, [f"  training.lr: 0.001 -> 0.002 ({new.path})"])
    old = run.node("train_projector", POINT, run.finished)
    status, lines = run.explain(old)
    assert status == 0  # the new one is there, and nothing asks for the old one
    assert lines[0].endswith(f"in its place {new.path}: up to date")


def test_the_closest_of_several_earlier_artifacts_is_compared(run: Run) -> None:
    training = run.content["projector"]["stages"][0]
    before = training["steps"]
    run.learn(0.005)
    training["steps"] = 40
    publish(run.node("train_projector", POINT), run.results)
    run.learn(0.006)
    status, lines = run.explain(run.node("train_projector", POINT))
    assert (status, lines[1:]) == (1, ["  training.lr: 0.005 -> 0.006"])
    training["steps"] = before
    status, lines = run.explain(run.node("train_projector", POINT))
    assert (status, lines[1:]) == (1, ["  training.lr: 0.001 -> 0.006"])


def test_one_of_another_name_is_not_compared(run: Run) -> None:
    run.content["encoders"]["clip"] = {"source": {"kind": "standin", "family": "clip"}}
    node = run.node("train_encoder", "clip")
    assert run.explain(node) == (1, [f"{node.path}: not made yet"])
    lines = run.explain(run.node("features", "clip"))[1]
    assert lines[1:] == [f"  not made yet either ({node.path})"]


def test_another_number_of_inputs_is_told(run: Run) -> None:
    run.content["llms"]["gemma2"]["saes"]["layers"] = [1]
    status, lines = run.explain(run.node("latents", POINT))
    assert status == 1
    latents, projector = (run.node(stage, POINT).path for stage in ("latents", "train_projector"))
    assert [line for line in lines if "saes" in line] == [
        f"  inputs saes: 2 -> 1 (itself, {projector})"
    ]
    assert lines[0].startswith(latents)


def edit(monkeypatch: pytest.MonkeyPatch, definition: str) -> None:
    def edited(starts: Iterable[str]) -> dict[str, str]:
        digests = source_digests(starts)
        return {name: "edited" if name == definition else d for name, d in digests.items()}

    monkeypatch.setattr(vista.engine.explain, "source_digests", edited)


def test_an_edited_source_is_named_with_whom_it_concerns(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(monkeypatch, "vista.encoders.families.dinov2:FAMILY")
    features, encoder = run.node("features", "dinov2"), run.node("train_encoder", "dinov2")
    text = "source vista.encoders.families.dinov2:FAMILY changed"
    assert run.explain(features) == (1, [
        f"{features.path}: would be rebuilt",
        f"  {text} (itself, {encoder.path})",
    ])  # fmt: skip
    status, lines = run.explain(run.node("probe", "dinov2"))
    assert status == 1
    assert lines[0].endswith("would be rebuilt, unless its inputs come out the same")
    assert lines[1:] == [f"  {text} ({features.path}, {encoder.path})"]
    assert run.explain(run.node("features", "siglip"))[0] == 0
    # One that is not finished counts for the exit status of all.
    assert run.explain(run.node("features", "siglip"), features)[0] == 1


def rewrite(folder: Path, **changes: Any) -> None:
    text = json.dumps({**json.loads((folder / "manifest.json").read_text()), **changes})
    for name in ("manifest.json", "memo.json"):
        (folder / name).write_text(text)


def test_new_and_unused_sources_and_other_packages_are_told_apart(run: Run) -> None:
    node = run.node("probe", "dinov2")
    folder = run.results / node.path
    code = source_digests(stage_code("probe"))
    del code["vista.metrics.probe.stage:run"]
    rewrite(folder, code={**code, "vista.metrics.gone:gone": "00"}, packages={"numpy": "0.1"})
    status, lines = run.explain(node)
    assert status == 1
    assert lines[1:3] == [
        "  source vista.metrics.gone:gone is used no longer",
        "  source vista.metrics.probe.stage:run is new",
    ]
    assert lines[3].startswith("  note: numpy 0.1 -> ")
    rewrite(folder, code=source_digests(stage_code("probe")))
    status, lines = run.explain(node)
    assert (status, len(lines)) == (0, 2)  # a package alone is no reason


def test_an_input_that_came_out_otherwise_is_named_by_its_role(run: Run) -> None:
    features = run.node("features", "siglip")
    folder = run.results / features.path
    for path in folder.iterdir():
        path.unlink()
    publish(features, run.results, content="other")
    status, lines = run.explain(run.node("probe", "siglip"))
    assert (status, lines[1:]) == (1, ["  input features was made anew since, with other content"])


def test_damage_and_a_missing_manifest_are_told(run: Run) -> None:
    node = run.node("naming")
    folder = run.results / node.path
    (folder / "content.txt").write_text("of another size")
    status, lines = run.explain(node)
    assert status == 1
    assert "content.txt is damaged: it is missing or has another size" in lines[1]
    (folder / "manifest.json").write_text("{")
    status, lines = run.explain(node)
    assert status == 1
    assert lines[0].endswith(": would be rebuilt")
    assert "manifest.json is damaged" in lines[1]
    (folder / "manifest.json").unlink()
    assert run.explain(node) == (
        1,
        [f"{node.path}: not made yet", "  its last job did not end"],
    )
    (folder / "memo.json").unlink()
    assert run.explain(node) == (1, [f"{node.path}: not made yet"])


def test_unfinished_work_and_its_process_are_told(run: Run) -> None:
    node = run.node("features", "dinov2")
    work = work_folder(run.results, node.stage, node.folder)
    work.mkdir()
    assert "interrupted work is in .work/features/" in run.explain(node)[1][1]
    with lock_file(work).open("r+") as file:
        file.write(str(os.getpid()))
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run.explain(node)[1][1:] == [f"  process {os.getpid()} is making it now"]


def test_parts_that_are_done_and_logs_of_the_others_are_told(run: Run) -> None:
    run.content["encoders"]["dinov2"]["jobs"] = 3
    node = run.node("features", "dinov2")
    work = work_folder(run.results, node.stage, node.folder)
    logs = run.results / "logs" / node.stage
    logs.mkdir(parents=True)
    for part in ("1of3", "2of3", "1of2"):  # an earlier run was of two
        (logs / f"{node.folder}.{part}.log").touch()
    assert run.explain(node)[1] == [f"{node.path}: up to date"]
    work.mkdir()
    work.with_name(f"{node.folder}.1of3").touch()
    assert run.explain(node)[1][2:] == [
        "  1 of 3 parts are done",
        f"  log of a part that is not: logs/features/{node.folder}.2of3.log",
    ]
    with lock_file(work).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        lines = run.explain(node)[1]
    assert "is making it now" in lines[1]
    assert lines[2] == "  1 of 3 parts are done"


def test_a_users_file_that_changed_runs_the_job_again_and_is_named(
    run: Run, tmp_path: Path
) -> None:
    for name in ("train", "heldout"):
        (tmp_path / f"{name}.txt").write_text("a cat\na dog\n")
    files = {name: str(tmp_path / f"{name}.txt") for name in ("train", "heldout")}
    run.content["text"] = {"kind": "lines", **files}
    node = run.node("text")
    manifest = run.results / node.path / "manifest.json"
    call = ["text", "--spec", node.spec, "--manifest", str(manifest)]
    assert cli.main(call) == 0
    assert run.explain(node)[0] == 0
    (tmp_path / "train.txt").write_text("a cat\na cow\n")
    status, lines = run.explain(node)
    assert (status, lines[1:]) == (1, [f"  file {files['train']} changed"])
    assert cli.main(call) == 0
    assert ": done in" in run.capsys.readouterr().out
    assert run.explain(node)[0] == 0
    (tmp_path / "train.txt").unlink()
    assert run.explain(node)[1][1:] == [f"  file {files['train']} is not there"]


def test_what_is_no_artifact_or_asked_for_by_nobody_is_bad_input(run: Run) -> None:
    status, _ = run.explain("features/nothing-*")
    assert status == 2
    assert "is no artifact, finished or planned" in run.said.err
    assert run.explain("features")[0] == 2
    node = run.node("features", "dinov2")
    del run.content["encoders"]["dinov2"]
    status, lines = run.explain(node)
    assert status == 2
    assert "asks for no features dinov2; name its config by --config" in lines[0]


def test_a_long_list_of_settings_is_counted_and_causes_end_somewhere(run: Run) -> None:
    run.content["sweep"][0]["seeds"] = [0, 1]
    status, lines = run.explain(run.node("report"))
    assert status == 1
    points = len(run.finished.config.points())
    metrics = 3 * points
    before = metrics + 2 + 2
    assert (
        f"  points: {before} -> {before + metrics} entries, {metrics} of them new, 0 gone" in lines
    )
    assert len(lines) <= 22
