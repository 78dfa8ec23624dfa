"""Results in S3: stored by the workflow on a real server, brought back into an empty folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from workflow_run import ROOT, SMOKE, snakemake

from vista.engine.artifacts import open_artifact
from vista.engine.plan import Plan, load_plan

pytest.importorskip("snakemake_storage_plugin_s3")
boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")

PROFILE = ROOT / "workflow" / "profiles" / "s3"
OPTIONS = (f"--workflow-profile={PROFILE}", f"--snakefile={PROFILE / 'Snakefile'}")
# The stages that need no model: seconds instead of minutes.
STAGES = ("draw_world", "records", "text")
REST = ("--omit-from", "train_encoder", "train_llm")


@dataclass(frozen=True)
class Run:
    folder: Path
    bucket: Any
    plan: Plan

    @property
    def artifacts(self) -> list[str]:
        return [node.path for node in self.plan.nodes.values() if node.stage in STAGES]

    def stored(self) -> set[str]:
        return {each.key for each in self.bucket.objects.all()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        settings = {"endpoint_url": f"http://{host}:{port}", "access_key": "a", "secret_key": "b"}
        for name, value in settings.items():
            patch.setenv(f"SNAKEMAKE_STORAGE_S3_{name.upper()}", value)
        patch.setenv("VISTA_STORE", "s3://results-of-tests/smoke")
        bucket = boto3.resource(
            "s3",
            endpoint_url=settings["endpoint_url"],
            aws_access_key_id="a",
            aws_secret_access_key="b",
            region_name="us-east-1",
        ).Bucket("results-of-tests")
        folder = tmp_path_factory.mktemp("s3")
        snakemake(folder, *OPTIONS, *REST)
        yield Run(folder, bucket, load_plan(SMOKE))
    server.stop()


def files(folder: Path, path: str) -> set[str]:
    root = folder / "results"
    found = (each for each in (root / path).rglob("*") if each.is_file())
    return {f"smoke/{each.relative_to(root).as_posix()}" for each in found}


def test_whole_artifacts_are_stored_all_but_their_manifests(run: Run) -> None:
    local = {name for path in run.artifacts for name in files(run.folder, path)}
    manifests = {name for name in local if name.endswith("/manifest.json")}
    assert len(manifests) == len(run.artifacts) == 3
    assert run.stored() == local - manifests


def test_an_empty_folder_gets_results_back_and_makes_only_what_was_cut_off(
    run: Run, tmp_path: Path
) -> None:
    cut = next(path for path in run.artifacts if path.startswith("records/"))
    name = next(key for key in run.stored() if key.endswith("records.parquet") and cut in key)
    whole = run.bucket.Object(name).get()["Body"].read()
    run.bucket.Object(name).delete()
    snakemake(tmp_path, *OPTIONS, "restore")
    assert not list((tmp_path / "results").glob("*/*/manifest.json"))
    snakemake(tmp_path, *OPTIONS, *REST)
    for path in run.artifacts:
        open_artifact(tmp_path / "results" / path).verify()
        here, there = (each / "results" / path / "manifest.json" for each in (tmp_path, run.folder))
        assert here.read_bytes() == there.read_bytes()
        log = (tmp_path / "results" / "logs" / f"{path}.log").read_text()
        assert ("kept" in log) == (path != cut), log
    assert run.bucket.Object(name).get()["Body"].read() == whole


def test_a_run_without_a_store_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISTA_STORE", raising=False)
    done = snakemake(tmp_path, *OPTIONS, "--dry-run", ok=False)
    assert "set VISTA_STORE" in done.stdout + done.stderr
