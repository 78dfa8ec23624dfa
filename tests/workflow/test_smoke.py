"""The real workflow on a small config, run once: every claim about a run is checked on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vista.artifacts import open_artifact
from vista.plan import Plan, load_plan

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "smoke.yaml"
COLUMNS = [
    *("metric", "encoder", "llm", "sae_weight", "seed", "layer", "token_kind"),
    *("value", "ci_low", "ci_high", "chance", "n"),
]


def snakemake(
    folder: Path, *options: str, config: Path = CONFIG, ok: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the project's Snakefile with `folder` as working directory."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2",
        "--directory", str(folder), "--configfile", str(config), *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode == 0) == ok, done.stdout[-2000:] + done.stderr[-8000:]
    return done


def jobs(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return the number of jobs of each rule out of Snakemake's table; {} for nothing to do."""
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return {}
    lines = text.split("Job stats:")[1].split("total")[0].splitlines()[3:]
    found = {line.split()[0]: int(line.split()[1]) for line in lines if line.strip()}
    return {rule: n for rule, n in found.items() if rule not in ("default", "all", "summary")}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    snakemake(folder)
    return folder


@pytest.fixture(scope="session")
def plan() -> Plan:
    return load_plan(CONFIG)


def changed(folder: Path, old: str, new: str) -> Path:
    """Return a copy of the smoke config with one text replaced."""
    text = CONFIG.read_text()
    assert text.count(old) == 1, f"{old!r} must stand once in {CONFIG.name}"
    path = folder / "changed.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_every_artifact_is_there_and_whole(run: Path, plan: Plan) -> None:
    for manifest in plan.manifests():
        open_artifact((run / manifest).parent).verify()


def test_the_table_has_its_columns_and_a_row_a_figure(run: Path, plan: Plan) -> None:
    table = pq.read_table(run / "results" / "summary.parquet")
    assert table.column_names == COLUMNS
    header = (run / "results" / "summary.csv").read_text().splitlines()[0]
    assert header.split(",") == COLUMNS
    rows = table.to_pylist()
    key = ("metric", "encoder", "llm", "sae_weight", "seed", "layer", "token_kind")
    keys = [tuple(row[name] for name in key) for row in rows]
    assert len(set(keys)) == len(keys)
    points = {(r["encoder"], r["llm"], r["sae_weight"], r["seed"]) for r in rows if r["encoder"]}
    assert {tuple(point) for point in plan.config.points()} <= points
    assert all(row["n"] > 0 for row in rows if row["value"] is not None)


def test_figures_are_drawn(run: Path) -> None:
    names = {path.name for path in (run / "results" / "figures").iterdir()}
    for name in ("matching_rate", "reconstruction_fvu", "localization", "training"):
        assert {f"{name}.png", f"{name}.svg"} <= names


def test_a_second_run_has_nothing_to_do(run: Path) -> None:
    assert jobs(snakemake(run, "--dry-run")) == {}


def test_touched_files_and_reordered_keys_run_nothing(run: Path, tmp_path: Path) -> None:
    for manifest in (run / "results").glob("*/*/manifest.json"):
        manifest.touch()
    lines = CONFIG.read_text().splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith("metrics:"))
    # The whole block of metrics moves to the front.
    end = next(
        (i for i in range(start + 1, len(lines)) if lines[i][:1] not in (" ", "#", "\n")),
        len(lines),
    )
    moved = tmp_path / "moved.yaml"
    moved.write_text("".join(lines[start:end] + lines[:start] + lines[end:]))
    assert jobs(snakemake(run, "--dry-run", config=moved)) == {}


def test_a_new_sae_weight_runs_its_projector_latents_and_metrics_only(
    run: Path, tmp_path: Path, plan: Plan
) -> None:
    config = changed(tmp_path, "sae_weights: [0, 1]", "sae_weights: [0, 1, 3]")
    per_weight = len(plan.config.points()) // 2
    stages = ("train_projector", "latents", "reconstruction", "matching_rate", "localization")
    expected = {**dict.fromkeys((*stages, "caption"), per_weight), "report": 1}
    assert jobs(snakemake(run, "--dry-run", config=config)) == expected


def test_a_metrics_setting_runs_that_metric_only(run: Path, tmp_path: Path, plan: Plan) -> None:
    config = changed(tmp_path, "top_k: 3", "top_k: 2")
    expected = {"matching_rate": len(plan.config.points()), "report": 1}
    assert jobs(snakemake(run, "--dry-run", config=config)) == expected


def test_a_damaged_input_stops_the_stage_with_its_name(run: Path, plan: Plan) -> None:
    node = next(node for node in plan.nodes.values() if node.stage == "naming")
    labels = run / "results" / node.parents()[0].path / "labels.parquet"
    whole = labels.read_bytes()
    try:
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 4
        labels.write_bytes(bytes(damaged))
        (run / "results" / node.path / "manifest.json").unlink()
        memo = run / "results" / node.path / "memo.json"
        memo.unlink()
        done = snakemake(run, f"results/{node.path}/manifest.json", ok=False)
        said = done.stdout + done.stderr
        assert "labels.parquet is damaged" in said
        assert "Traceback" not in said
    finally:
        labels.write_bytes(whole)
    snakemake(run, f"results/{node.path}/manifest.json")
    open_artifact(run / "results" / node.path).verify()


def test_a_deleted_artifact_is_made_again_with_the_same_bytes(run: Path, plan: Plan) -> None:
    import shutil

    node = next(node for node in plan.nodes.values() if node.stage == "reconstruction")
    folder = run / "results" / node.path
    before = (folder / "manifest.json").read_bytes()
    shutil.rmtree(folder)
    done = snakemake(run, f"results/{node.path}/manifest.json")
    assert jobs(done) == {"reconstruction": 1}
    assert (folder / "manifest.json").read_bytes() == before


def test_a_mistyped_key_is_named_without_a_traceback(tmp_path: Path) -> None:
    config = changed(tmp_path, "matching_rate:", "matching_rates:")
    done = snakemake(tmp_path, "--dry-run", config=config, ok=False)
    said = done.stdout + done.stderr
    assert "unknown key metrics.matching_rates; did you mean 'matching_rate'?" in said
    assert "Traceback" not in said


def test_manifests_say_what_made_them(run: Path, plan: Plan) -> None:
    for node in plan.nodes.values():
        manifest = json.loads((run / "results" / node.path / "manifest.json").read_text())
        assert manifest["settings"] == json.loads(node.spec)["settings"]
        assert set(manifest["inputs"]) == set(node.inputs)
        assert str(run) not in json.dumps(manifest)
