"""`vista accept`: what differs in code alone is kept, all else is left, and no kill leaves half."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from finished_plan import FinishedRun, publish_all

import vista.engine.accept
import vista.engine.explain
from vista import cli
from vista.engine.artifacts import Provenance, open_artifact, publishing, remembered
from vista.engine.code import joint_digest, source_digests
from vista.engine.locks import lock_file, work_folder
from vista.engine.node import Node
from vista.errors import UserError

FAMILY = "vista.encoders.families.dinov2:FAMILY"
USERS = ("train_encoder", "features")


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def rewrite(folder: Path, **changes: Any) -> None:
    text = json.dumps({**json.loads((folder / "manifest.json").read_text()), **changes})
    for name in ("manifest.json", "memo.json"):
        (folder / name).write_text(text)


class Run(FinishedRun):
    """A finished run, and what Snakemake was asked to record as done."""

    recorded: list[tuple[str, list[str]]]
    printed: Any

    def users(self) -> list[Node]:
        """The nodes that run the edited definition, parents first."""
        return [n for n in self.plan.nodes.values() if n.stage in USERS and n.name == "dinov2"]

    def accept(self, *options: str) -> tuple[int, list[str]]:
        status = cli.main(["accept", str(self.config()), *options])
        self.printed = self.capsys.readouterr()
        return status, self.printed.out.replace(f"{self.results}", "results").splitlines()

    def code(self, node: Node) -> dict[str, str]:
        return dict(open_artifact(self.results / node.path).manifest["code"])


@pytest.fixture
def run(
    tmp_path: Path,
    finished_smoke: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    run = Run(tmp_path, finished_smoke, capsys)
    run.recorded = []

    def record(snakefile: Path, config: Path, targets: Sequence[str]) -> None:
        assert snakefile.is_file()
        run.recorded.append((config.name, list(targets)))

    monkeypatch.setattr(vista.engine.accept, "record_as_done", record)
    return run


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives one definition another digest."""

    def edit(digest: str) -> None:
        def digests(starts: Iterable[str]) -> dict[str, str]:
            return {n: digest if n == FAMILY else d for n, d in source_digests(starts).items()}

        monkeypatch.setattr(vista.engine.explain, "source_digests", digests)

    edit("edited")
    return edit


def test_of_a_finished_run_there_is_nothing_to_accept(run: Run) -> None:
    before = files(run.results)
    assert run.accept() == (0, ["nothing to accept in results."])
    assert run.recorded == []
    assert files(run.results) == before


@pytest.mark.usefixtures("edited")
def test_what_differs_in_code_alone_is_listed_and_nothing_is_written(run: Run) -> None:
    before = files(run.results)
    encoder, features = run.users()
    assert run.accept() == (0, [
        f"{encoder.path}: source {FAMILY} changed",
        f"{features.path}: source {FAMILY} changed",
        "2 artifacts in results whose code alone has changed, listed only: --yes accepts them as"
        " they are.",
    ])  # fmt: skip
    assert (files(run.results), run.recorded) == (before, [])


def test_an_accepted_artifact_has_the_new_code_and_keeps_the_old(
    run: Run, edited: Callable[[str], None]
) -> None:
    before = files(run.results)
    old = {node.path: run.code(node) for node in run.users()}
    status, lines = run.accept("--yes")
    assert (status, lines[-1]) == (
        0,
        "2 artifacts in results whose code alone has changed, accepted.",
    )
    changed = {f"{n.path}/{name}" for n in run.users() for name in ("manifest.json", "memo.json")}
    after = files(run.results)
    assert {name for name in after if after[name] != before.get(name)} == changed
    for node in run.users():
        artifact = open_artifact(run.results / node.path)
        now = {**old[node.path], FAMILY: "edited"}
        assert artifact.manifest["code"] == now
        first = {"from": joint_digest(old[node.path]), "to": joint_digest(now)}
        first["changed"] = {FAMILY: old[node.path][FAMILY]}  # type: ignore[assignment]
        assert artifact.manifest["accepted"] == [first]
    # The report has all that is up to date behind it; its tables are not published here.
    assert run.recorded == [("config.yaml", [run.plan.report])]
    assert run.accept() == (0, ["nothing to accept in results."])
    text, status = vista.engine.explain.explain([str(run.results / "*" / "*")], run.config())
    assert status == 0, text
    # A second time both former codes are kept.
    edited("edited again")
    run.accept("--yes")
    second = open_artifact(run.results / node.path).manifest["accepted"]
    assert [entry["changed"] for entry in second] == [first["changed"], {FAMILY: "edited"}]
    assert second[0]["to"] == second[1]["from"]


@pytest.mark.usefixtures("edited")
def test_a_job_that_is_planned_all_the_same_changes_nothing(run: Run) -> None:
    run.accept("--yes")
    for node in run.users():
        assert restored(run.results, node), node.path


def restored(results: Path, node: Node, **changes: Any) -> bool:
    """Whether a job of the record that the memo has, with changes, leaves the artifact as it is."""
    manifest = remembered(results / node.path).manifest
    keys = ("stage", "settings", "inputs", "code", "packages")
    record = Provenance(**{**{key: manifest[key] for key in keys}, **changes})
    with publishing(results, node.stage, node.folder, record) as work:
        return work is None


def test_code_that_uses_another_package_keeps_the_versions_that_made_the_artifact(
    run: Run, edited: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = run.users()[1]
    rewrite(run.results / features.path, packages={"python": "3.1", "gone": "1"})
    now = {"python": "3.2", "numpy": "9"}
    monkeypatch.setattr(vista.engine.accept, "packages_now", lambda _: now)
    run.accept("--yes")
    packages = open_artifact(run.results / features.path).manifest["packages"]
    assert packages == {"python": "3.1", "numpy": "9"}


@pytest.mark.usefixtures("edited")
def test_a_manifest_without_parents_gets_them(run: Run) -> None:
    features = run.users()[1]
    folder = run.results / features.path
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["parents"]
    for name in ("manifest.json", "memo.json"):
        (folder / name).write_text(json.dumps(manifest))
    run.accept("--yes")
    assert open_artifact(folder).manifest["parents"] == features.input_paths


def other_settings(run: Run, folder: Path) -> None:
    settings = json.loads((folder / "manifest.json").read_text())["settings"]
    rewrite(folder, settings={**settings, "seed": 99})


def other_inputs(run: Run, folder: Path) -> None:
    inputs = json.loads((folder / "manifest.json").read_text())["inputs"]
    rewrite(folder, inputs={**inputs, "records": "0" * 64})


def fewer_inputs(run: Run, folder: Path) -> None:
    inputs = json.loads((folder / "manifest.json").read_text())["inputs"]
    del inputs["records"]
    rewrite(folder, inputs=inputs)


def other_size(run: Run, folder: Path) -> None:
    (folder / "content.txt").write_text("longer than it was when it was written, by far, by far")


def other_manifest(run: Run, folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def other_list(run: Run, folder: Path) -> None:
    (folder / "checksums.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (other_settings, "its settings are others"),
        (other_inputs, "its inputs or the user's files have changed since it was made"),
        (fewer_inputs, "its inputs or the user's files have changed since it was made"),
        (other_size, "content.txt is damaged: it is missing or has another size"),
        (other_manifest, "manifest.json is damaged"),
        (other_list, "checksums.json is damaged: its content differs from the manifest"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.usefixtures("edited")
def test_what_differs_in_more_than_code_is_never_accepted(
    run: Run, damage: Callable[[Run, Path], None], reason: str
) -> None:
    encoder, features = run.users()
    damage(run, run.results / features.path)
    before = files(run.results / features.path)
    for options in ((), ("--yes",)):
        status, lines = run.accept(*options)
        assert status == 0
        assert lines[0].startswith(encoder.path)
        assert lines[1].startswith(f"{features.path}: not accepted, ")
        assert reason in lines[1]
        behind = sum(features.path in ancestors(node) for node in run.plan.nodes.values())
        assert lines[2] == f"not accepted, {behind} that are made from what is not up to date."
        assert lines[3].startswith("1 artifact in results")
    assert files(run.results / features.path) == before
    (_, targets), *_ = run.recorded
    # Snakemake is told of nothing that is made from it.
    done = {Path(target).parent.name for target in targets}
    assert not done & {n.folder for n in run.plan.nodes.values() if features.path in ancestors(n)}
    assert features.folder not in done
    # What else is up to date is still recorded: the encoder, whose manifest is another.
    assert encoder.folder in done


def ancestors(node: Node) -> set[str]:
    above = {parent.path for parent in node.parents()}
    for parent in node.parents():
        above |= ancestors(parent)
    return above


@pytest.mark.usefixtures("edited")
def test_damage_that_only_the_checksums_show_is_noticed_before_anything_is_written(
    run: Run,
) -> None:
    encoder, features = run.users()
    path = run.results / encoder.path / "content.txt"
    path.write_text(path.read_text()[::-1])
    before = files(run.results)
    status, lines = run.accept("--yes")
    assert status == 0
    assert lines[0].startswith(f"{encoder.path}: not accepted, ")
    assert "its content differs from the manifest" in lines[0]
    assert lines[-1] == "nothing to accept in results."
    assert files(run.results) == before
    assert features.path not in "".join(lines)


@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH])
@pytest.mark.usefixtures("edited")
def test_what_is_being_made_is_never_accepted(run: Run, kind: int) -> None:
    encoder, features = run.users()
    before = files(run.results / features.path)
    lock = lock_file(work_folder(run.results, features.stage, features.folder))
    with lock.open("r+") as file:
        file.write(str(os.getpid()))
        file.flush()
        fcntl.flock(file, kind)
        lines = run.accept("--yes")[1]
    assert f"{features.path}: not accepted, process {os.getpid()} is making it" in lines
    assert files(run.results / features.path) == before
    assert run.code(encoder)[FAMILY] == "edited"
    # One that began between the look and the acceptance.
    review = vista.engine.accept.Review(run.results)
    for node in run.plan.nodes.values():
        review.look(node)
    with lock.open("r+") as file:
        fcntl.flock(file, kind)
        finding = review.adopt(review.findings[features.path])
    assert finding.reason == "another process is making it"
    assert files(run.results / features.path) == before


@pytest.mark.usefixtures("edited")
def test_a_users_file_that_changed_is_not_accepted(run: Run, tmp_path: Path) -> None:
    for name in ("train", "heldout"):
        (tmp_path / f"{name}.txt").write_text("a cat\n")
    run.content["text"] = {
        "kind": "lines",
        **{name: str(tmp_path / f"{name}.txt") for name in ("train", "heldout")},
    }
    node = run.node("text")
    manifest = run.results / node.path / "manifest.json"
    assert cli.main(["text", "--spec", node.spec, "--manifest", str(manifest)]) == 0
    rewrite(manifest.parent, code={})
    run.capsys.readouterr()
    assert [line for line in run.accept()[1] if line.startswith(f"{node.path}: source")]
    (tmp_path / "train.txt").write_text("a cow\n")
    lines = run.accept("--yes")[1]
    assert [line for line in lines if line.startswith(f"{node.path}: not accepted")]
    assert run.code(node) == {}


class Killed(BaseException):
    """Ends a program at once."""


def killed_at(n: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Accept, but die right before the n-th change of the disk; False: there are fewer."""
    count = 0

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            if count == n:
                raise Killed
            count += 1
            return change(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        try:
            cli.main(["accept", str(run.config()), "--yes"])
        except Killed:
            return True
    return False


@pytest.mark.usefixtures("edited")
def test_killed_before_any_change_nothing_is_half_accepted(
    run: Run, finished_smoke: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {node.path: run.code(node) for node in run.users()}
    new = {path: {**code, FAMILY: "edited"} for path, code in old.items()}
    seen: set[tuple[Any, ...]] = set()
    moment = 0
    while killed_at(moment, run, monkeypatch):
        state: list[Any] = []
        for node in run.users():
            folder = run.results / node.path
            memo = remembered(folder).manifest["code"]
            is_new = memo == new[node.path]
            assert is_new or memo == old[node.path]
            there = (folder / "manifest.json").exists()
            state.append((is_new, there))
            if there:
                open_artifact(folder).verify()
        seen.add(tuple(state))
        # Parents before children.
        assert [is_new for is_new, _ in state] in ([False, False], [True, False], [True, True])
        # Either a job of the code that the memo names restores it without a rebuild,
        again = run.folder / "again"
        shutil.copytree(run.results, again)
        assert all(restored(again, node) for node in run.users())
        assert all(open_artifact(again / node.path) for node in run.users())
        shutil.rmtree(again)
        # or another acceptance ends what this one began.
        run.accept("--yes")
        assert {node.path: run.code(node) for node in run.users()} == new
        for node in run.users():
            accepted = open_artifact(run.results / node.path).manifest["accepted"]
            assert len(accepted) == 1
            assert files(run.results / node.path).keys() == files(finished_smoke / node.path).keys()
        shutil.rmtree(run.results)
        shutil.copytree(finished_smoke, run.results)
        moment += 1
    old_, new_ = (False, True), (True, True)
    no_old, no_new = (False, False), (True, False)
    first = {(state, old_) for state in (old_, no_old, no_new, new_)}
    assert seen == first | {(new_, state) for state in (no_old, no_new, new_)}


@pytest.mark.usefixtures("edited")
def test_while_a_workflow_runs_nothing_is_accepted(run: Run) -> None:
    locks = run.folder / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").touch()
    before = files(run.results)
    status, _ = run.accept("--yes")
    assert status == 2
    assert "a workflow runs in" in run.printed.err
    assert "nothing was accepted" in run.printed.err
    assert files(run.results) == before
    assert run.accept()[0] == 0


@pytest.mark.usefixtures("edited")
def test_the_summary_is_recorded_where_it_is_that_of_the_report(run: Run) -> None:
    for kind in ("csv", "parquet", "md"):
        (run.results / f"summary.{kind}").touch()
    tables = [str(run.results / f"summary.{kind}") for kind in ("csv", "parquet", "md")]
    run.accept("--yes")
    assert run.recorded.pop()[1] == [run.plan.report, *tables]
    (run.results / "summary.csv").write_text("of another report")
    run.accept("--yes")
    assert run.recorded.pop()[1] == [run.plan.report]


@pytest.mark.usefixtures("edited")
def test_several_configs_of_one_results_folder_are_accepted_together(run: Run) -> None:
    one = run.config("one")
    run.content["name"] = "other"
    publish_all(run.plan, run.results)
    assert cli.main(["accept", str(one), str(run.config("two")), "--yes"]) == 0
    assert run.capsys.readouterr().out.count("changed\n") == 2
    assert [config for config, _ in run.recorded] == ["one.yaml", "two.yaml"]


def test_what_snakemake_refuses_is_one_sentence(tmp_path: Path) -> None:
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text("raise SystemExit('no such thing')\n")
    config = tmp_path / "config.yaml"
    config.write_text("{}")
    with pytest.raises(UserError, match=r"are accepted, but Snakemake did not record it: .*thing"):
        vista.engine.accept.record_as_done(snakefile, config, ["target"])


def test_a_wrong_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["accept", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
