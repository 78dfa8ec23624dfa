"""The benchmarks of stores and starts: both sides run, and must give the same."""

from __future__ import annotations

import subprocess
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks import growth
from benchmarks.cases import feature_reads, latent_store, starts
from benchmarks.usual import dense_latents

BARS = {
    "feature_reads": [0.7, 20],
    "latent_store": [200, 50, 50],
    "starts": [1.5],
}


@pytest.mark.parametrize("part", BARS)
def test_both_sides_do_the_work(part: str, tmp_path: Path) -> None:
    bars = []
    for case in import_module(f"benchmarks.cases.{part}").cases("tiny", tmp_path):
        assert case.ours() > 0
        assert case.usual is None or case.usual() > 0
        assert case.limit is not None and case.limit.cost > 0
        bars.append(case.bar)
    assert bars == BARS[part]


def test_another_order_of_images_is_noticed() -> None:
    images = [np.array([2, 0])]
    rows = np.arange(3)
    with pytest.raises(ValueError, match="differ"):
        feature_reads.require_same(rows.__getitem__, lambda i: rows[np.sort(i)], images)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("top_latents", lambda path, n_top: [(0, 0, 1.0)]),
        ("top_images", lambda files, latent, n_top: []),
    ],
)
def test_another_answer_of_dense_latents_is_noticed(
    name: str, broken: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_latents, name, broken)
    with pytest.raises(ValueError, match="differ"):
        next(latent_store.cases("tiny", tmp_path))


def test_a_job_with_another_figure_is_noticed(tmp_path: Path) -> None:
    level = '{"k": 1, "matching": {"value": 0.5}}'
    (tmp_path / "result.json").write_text(f'{{"layers": [{{"top": [{level}]}}]}}')
    starts.require_share(tmp_path, 0.5)
    with pytest.raises(ValueError, match="the dense latents give"):
        starts.require_share(tmp_path, 0.4)


def test_work_of_a_finished_workflow_is_noticed() -> None:
    def done(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, "", text)

    starts.require_nothing_to_do(done("Nothing to be done (all requested files are present)."))
    table = "Job stats:\njob      count\n-------  -----\nrecords      1\ntotal        1\n"
    with pytest.raises(ValueError, match="records"):
        starts.require_nothing_to_do(done(table))


def test_growth_is_carried_on_along_the_line() -> None:
    images = [1000, 2000, 4000]
    figures = {
        name: {"values": values, "line": growth.line(images, values)}
        for name, values in {
            "time": [7.0, 9.0, 13.0],
            "memory": [5e8, 5e8, 5e8],
            "disk": [1e6, 3e6, 7e6],
        }.items()
    }
    published = {"2B": {"latents": dict.fromkeys(growth.FORMS, 1e9)}}
    published["9B"] = {"latents": dict.fromkeys(growth.FORMS, 3e9)}
    section = growth.growth_section(
        {
            "images": images,
            "stages": {"latents": {"model": 1e6, **figures}},
            "published": published,
        }
    )
    time = "| time | 7.0 s | 9.0 s | 13.0 s | 5.0 s + 2.0 s | 1.000 | 25.0 s | 3 min |"
    disk = "| disk | 1 MB | 3 MB | 7 MB | -1 MB + 2 MB | 1.000 | 19 MB | 199 MB |"
    assert f"| latents | 1 MB {time}" in section and f"| latents | 1 MB {disk}" in section
    assert "| latents | memory | 1 GB | 3 GB | 3 |" in section
    assert growth.line(images, [1.0, 9.0, 1.0])["r2"] < 0.5
