"""`vista gc`: what no config needs is listed and deleted, and nothing else is ever touched."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_plan import publish_all

from vista import cli
from vista.engine.artifacts import open_artifact
from vista.engine.gc import discard, unneeded
from vista.engine.locks import lock_file, work_folder
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan

SMOKE = Path(__file__).parents[2] / "config" / "smoke.yaml"


def configs(folder: Path) -> dict[str, Path]:
    """Write two configs, `one` and `two` of other probes, whose results are in a folder."""
    content: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    content["results"] = str(folder / "results")
    paths = {"one": folder / "one.yaml", "two": folder / "two.yaml"}
    paths["one"].write_text(yaml.safe_dump(content))
    content["metrics"]["probe"] = {"max_patches": 300}
    paths["two"].write_text(yaml.safe_dump(content))
    return paths


class Runs:
    """The finished runs of two configs in one results folder."""

    def __init__(self, folder: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.results = folder / "results"
        self.configs = configs(folder)
        shutil.copytree(finished, self.results)

    def plan(self, name: str) -> Plan:
        return load_plan(self.configs[name])

    @property
    def only_two(self) -> list[Node]:
        one = self.plan("one").nodes
        return [node for key, node in self.plan("two").nodes.items() if key not in one]

    def gc(self, *names: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        status = cli.main(["gc", *(str(self.configs[name]) for name in names), *options])
        said = self.capsys.readouterr()
        return status, said.out + said.err

    def files(self) -> set[Path]:
        return {path for path in self.results.rglob("*") if path.suffix != ".lock"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    for path in configs(folder).values():
        publish_all(load_plan(path), folder / "results")
    return folder / "results"


@pytest.fixture
def runs(
    tmp_path: Path,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Runs:
    monkeypatch.chdir(tmp_path)
    return Runs(tmp_path, finished, capsys)


def test_nothing_is_unneeded_where_every_config_is_given(runs: Runs) -> None:
    status, said = runs.gc("one", "two", options=("--delete",))
    assert (status, said) == (0, f"nothing to delete in {runs.results}.\n")


def test_a_list_has_sizes_and_deletes_nothing(runs: Runs) -> None:
    before = runs.files()
    status, said = runs.gc("one")
    *lines, total = said.splitlines()
    assert status == 0
    wanted = sorted(node.path for node in runs.only_two)
    assert [node.split("/")[0] for node in wanted] == ["probe", "probe", "report"]
    assert sorted(line.split()[2] for line in lines) == wanted
    sizes = [
        sum(file.stat().st_size for file in (runs.results / path).iterdir()) for path in wanted
    ]
    assert total.startswith(f"{sum(sizes) / 1000:.3g} kB of 3 artifacts")
    assert "--delete" in total
    assert runs.files() == before


def test_artifacts_of_former_stages_are_unneeded(runs: Runs) -> None:
    (probe, _, _) = runs.only_two
    former = runs.results / "removal" / probe.folder
    former.parent.mkdir()
    shutil.move(runs.results / probe.path, former)
    log = runs.results / "logs" / "removal" / f"{probe.folder}.log"
    log.parent.mkdir(parents=True)
    log.touch()
    status, said = runs.gc("one", "two", options=("--delete",))
    assert (status, f"removal/{probe.folder} (artifact, log)" in said) == (0, True)
    assert not former.exists()
    assert not log.exists()


def test_deleting_leaves_exactly_what_the_configs_need(runs: Runs) -> None:
    gone = [runs.results / node.path for node in runs.only_two]
    before = runs.files()
    status, said = runs.gc("one", options=("--delete",))
    assert status == 0
    assert said.rstrip().endswith("deleted.")
    assert before - runs.files() == {
        path for path in before if any(path.is_relative_to(each) for each in gone)
    }
    for node in runs.plan("one").nodes.values():
        open_artifact(runs.results / node.path).verify()


def left(runs: Runs) -> Path:
    """Leave what a killed job, logs, benchmarks and people leave; return an unneeded node."""
    node = runs.results / "features" / "clip-0123456789"
    work = work_folder(runs.results, "features", node.name)
    beside = [
        work.with_name(f"{node.name}.record.json"),
        work.with_name(f"{node.name}.record.json.unfinished"),
        runs.results / "logs" / "features" / f"{node.name}.log",
        runs.results / "benchmarks" / "features" / f"{node.name}.tsv",
        work.with_name(f"{node.name}.2of12"),
        runs.results / "logs" / "features" / f"{node.name}.11of12.log",
        runs.results / "benchmarks" / "features" / f"{node.name}.2of12.tsv",
    ]
    for path in (work / "shards" / "0", *beside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    node.mkdir()  # as Snakemake does before a job
    return node


def test_work_logs_and_benchmarks_of_unneeded_jobs_go_and_those_of_needed_ones_stay(
    runs: Runs,
) -> None:
    before = runs.files() | set(runs.results.glob(".work/features"))
    left(runs)
    needed = runs.plan("one").nodes
    stage, folder = next(key for key in needed if key[0] == "features")
    kept = [
        work_folder(runs.results, stage, folder) / "shard",
        work_folder(runs.results, stage, folder).with_name(f"{folder}.record.json"),
        work_folder(runs.results, stage, folder).with_name(f"{folder}.1of2"),
        runs.results / "logs" / stage / f"{folder}.log",
        runs.results / "logs" / stage / f"{folder}.1of2.log",
    ]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    status, said = runs.gc("one", "two", options=("--delete",))
    assert status == 0
    assert "features/clip-0123456789 (artifact, unfinished work, log)" in said
    assert all(path.is_file() for path in kept)
    assert before <= runs.files()
    assert not [path for path in runs.files() if "0123456789" in path.name]


@pytest.mark.parametrize("place", ["logs", "benchmarks", ".work"])
def test_what_one_part_alone_has_left_goes(runs: Runs, place: str) -> None:
    ending = {"logs": ".log", "benchmarks": ".tsv", ".work": ""}[place]
    path = runs.results / place / "features" / f"clip-0123456789.1of3{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    before = runs.files()
    assert runs.gc("one", "two", options=("--delete",))[0] == 0
    assert before - runs.files() == {path}


def test_long_orders_that_no_config_needs_go(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vista.engine.plan.LONGEST_ORDER", 1000)
    long = {
        name: {Path(spec[1:]) for _, key in plan.nodes if (spec := plan.spec(key)).startswith("@")}
        for name, plan in (("one", runs.plan("one")), ("two", runs.plan("two")))
    }
    only_two = long["two"] - long["one"]
    assert only_two
    assert long["one"]
    begun = min(only_two).with_suffix(".4711")
    notes = begun.with_name("notes.json")
    for path in (begun, notes):
        path.write_text("{")
    said = runs.gc("one")[1]
    assert f" and {len(only_two) + 1} orders in " in said
    for path in (*only_two, begun):
        assert f"orders/{path.name}" in said
    assert "nothing to delete" in runs.gc("one", "two")[1]
    assert runs.gc("one", options=("--delete",))[0] == 0
    assert set(begun.parent.iterdir()) == {*long["one"], notes}


def test_what_is_no_artifact_of_a_stage_is_never_touched(runs: Runs, tmp_path: Path) -> None:
    node = "clip-0123456789"
    outside = tmp_path / "outside"
    (outside / node).mkdir(parents=True)
    (outside / node / "manifest.json").write_text("{}")
    (outside / f"{node}.log").write_text("x")
    others = [
        *(runs.results / name for name in ("summary.csv", "README.md", "figures/a.png")),
        runs.results / "judgements" / node / "manifest.json",
        runs.results / "my_stage" / node / "manifest.json",
        runs.results / "features" / "notes" / "manifest.json",
        runs.results / "features" / "mine-0123456789" / "notes.txt",
        runs.results / "features" / node,  # a file
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (runs.results / "features" / "link-0123456789").symlink_to(outside / node)
    (runs.results / "import_projector").symlink_to(outside)
    (runs.results / "logs").mkdir()
    (runs.results / "logs" / "features").symlink_to(outside)
    before, beyond = runs.files(), set(outside.rglob("*"))
    status, said = runs.gc("one", "two", options=("--delete",))
    assert (status, "nothing to delete" in said) == (0, True)
    assert (runs.files(), set(outside.rglob("*"))) == (before, beyond)


def test_a_link_inside_an_artifact_is_removed_and_not_followed(runs: Runs, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("x")
    folder = runs.results / runs.only_two[0].path
    (folder / "link").symlink_to(precious)
    assert runs.gc("one", options=("--delete",))[0] == 0
    assert not folder.exists()
    assert (precious / "data").is_file()


@pytest.mark.parametrize("place", ["here", "beside the results"])
def test_deleting_is_refused_while_a_workflow_runs(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    lock = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    if place != "here":
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
    before = runs.files()
    status, said = runs.gc("one", options=("--delete",))
    assert status == cli.USER_ERROR
    assert "a workflow runs in" in said
    assert "snakemake --unlock" in said
    assert runs.files() == before
    assert runs.gc("one")[0] == 0  # a list is harmless
    lock.unlink()
    assert runs.gc("one", options=("--delete",))[0] == 0


@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH], ids=["alone", "in parts"])
def test_deleting_is_refused_while_any_stage_is_being_written(runs: Runs, kind: int) -> None:
    node = runs.plan("one").nodes
    stage, folder = next(key for key in node if key[0] == "features")
    before = runs.files()
    with lock_file(work_folder(runs.results, stage, folder)).open("r+") as file:
        file.write(str(os.getpid()))
        file.flush()
        fcntl.flock(file, kind)
        status, said = runs.gc("one", options=("--delete",))
    assert status == cli.USER_ERROR
    assert f"process {os.getpid()} is making {stage}/{folder}" in said
    assert runs.files() == before


def test_a_kill_at_any_removal_leaves_no_half_artifact_and_the_rest_for_the_next_time(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_folder(runs.results, "features", left(runs).name)
    record = work.with_name(f"{work.name}.record.json")
    needed = set(runs.plan("one").nodes)
    removals = 0

    class Killed(BaseException):
        pass

    def killed(real: Any, after: int) -> Any:
        def remove(*args: Any, **options: Any) -> Any:
            nonlocal removals
            removals += 1
            if removals > after:
                raise Killed
            return real(*args, **options)

        return remove

    for _ in range(40):
        removals = 0
        with monkeypatch.context() as patch:
            for name in ("unlink", "rmdir", "replace"):
                patch.setattr(os, name, killed(getattr(os, name), 1))
            try:
                discard(runs.results, unneeded(runs.results, needed), [])
                break
            except Killed:
                pass
        for manifest in runs.results.glob("*/*/manifest.json"):
            open_artifact(manifest.parent).verify()
        # Where a record is left, a job would go on with the work beside it.
        assert (work / "shards" / "0").exists() or not record.exists()
    else:
        pytest.fail("the remains of a killed deletion are not taken up")
    assert not unneeded(runs.results, needed)
    assert not list((runs.results / ".work").glob("*/*[!k]"))


def test_configs_of_several_results_folders_need_one_named(runs: Runs, tmp_path: Path) -> None:
    path = runs.configs["two"]
    path.write_text(path.read_text().replace(str(runs.results), str(tmp_path / "others")))
    status, said = runs.gc("one", "two")
    assert status == cli.USER_ERROR
    assert "several results folders" in said
    status, said = runs.gc("one", "two", options=("--results", str(runs.results)))
    assert (status, "nothing to delete" in said) == (0, True)
    status, said = runs.gc("two")
    assert status == cli.USER_ERROR
    assert "others is not there" in said
