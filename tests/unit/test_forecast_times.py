"""The forecast's times: against measured runs, and scaled by the finished jobs of a results folder.

Measured figures: tests/unit/measured_smoke.json, and what README.md, docs and config headers state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from vista.engine.forecast.calibration import KEPT, calibrate, job_seconds
from vista.engine.forecast.need import START, TORCH_START
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.overview import Forecast, forecast, render
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.engine.stages import stages

CONFIGS = Path(__file__).parents[2] / "config"
MEASURED = json.loads((Path(__file__).parent / "measured_smoke.json").read_text())
HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def plan_of(config: str, folder: Path, **settings: Any) -> Plan:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())
    return load_plan(content | {"results": str(folder / "results")} | settings)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of("smoke", tmp_path)


def shapes_of(plan: Plan) -> Shapes:
    return Shapes(Path(plan.results), plan.nodes.values(), plan.config.threads)


def nodes_of(plan: Plan, stage: str) -> list[Node]:
    return [node for node in plan.nodes.values() if node.stage == stage]


def forecast_seconds(plan: Plan, node: Node) -> float:
    seconds = node_need(node, shapes_of(plan)).seconds
    assert seconds is not None
    return seconds


def benchmark(plan: Plan, node: Node, seconds: float, part: str = "") -> Path:
    path = Path(plan.results) / "benchmarks" / node.stage / f"{node.folder}{part}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:05" + "\t1.0" * 8 + "\n")
    return path


def stage_seconds(plan: Plan) -> dict[str, float]:
    return {row.stage: row.seconds.known for row in forecast(plan, stages()).stages}


def test_tokens_that_labels_are_scored_on_take_as_long_as_those_they_come_from(
    tmp_path: Path,
) -> None:
    def seconds(**labels: Any) -> float:
        plan = plan_of("smoke", tmp_path, label_latents={"tokens": 1_000_000, **labels})
        return forecast_seconds(plan, nodes_of(plan, "label_latents")[0]) - TORCH_START

    assert seconds(score_tokens=500_000) == pytest.approx(1.5 * seconds())


# Wall seconds on two cores: README.md (half of the CPU seconds), config/digits.yaml (6 minutes),
# docs/probing.md (25 min 4 s), tests/unit/measured_smoke.json.
@pytest.mark.parametrize(
    ("config", "wall"),
    [("default", 788), ("digits", 360), ("probing", 1504), ("smoke", MEASURED["wall"])],
)
def test_the_time_on_two_cores_is_within_a_factor_of_two(
    config: str, wall: float, tmp_path: Path
) -> None:
    figures = forecast(plan_of(config, tmp_path), stages(), cores=2)
    assert figures.slots == 2
    assert figures.total.seconds.unknown == 0
    assert wall / 2 < figures.wall < 2 * wall


def test_the_stages_of_the_smoke_run_take_what_was_measured(plan: Plan) -> None:
    measured = MEASURED["seconds"]
    total = {"forecast": 0.0, "measured": 0.0}
    for node in plan.nodes.values():
        seconds = forecast_seconds(plan, node)
        # A second more or less is no matter for the shortest jobs.
        factor = max(2.0, 1 + 1 / measured[node.stage])
        assert measured[node.stage] / factor < seconds < factor * measured[node.stage], node.path
        total["forecast"] += seconds
        total["measured"] += measured[node.stage]
    assert total["measured"] / 2 < total["forecast"] < 2 * total["measured"]


@pytest.mark.parametrize(
    ("threads", "cores", "slots"), [(1, 1, 1), (1, 8, 8), (4, 8, 2), (3, 8, 2), (16, 8, 1)]
)
def test_the_time_of_a_run_is_bounded_by_cores_and_by_the_longest_chain(
    tmp_path: Path, threads: int, cores: int, slots: int
) -> None:
    figures = forecast(plan_of("smoke", tmp_path, threads=threads), stages(), cores)
    assert figures.slots == slots
    if slots == 1:
        assert figures.wall == pytest.approx(figures.total.seconds.known)
        assert "jobs at a time" not in render(figures)
    else:
        assert f"On this machine, {slots} jobs at a time (one on a GPU): at least " in render(
            figures
        )
    # Drawing, then one model, its SAE, labels, latents, a metric and the report.
    chain = 5 * TORCH_START + 4 * START
    # Sums of the same times in another order.
    assert max(chain, figures.total.seconds.known / slots) <= figures.wall * (1 + 1e-9)


def test_jobs_on_a_gpu_run_one_after_the_other(tmp_path: Path) -> None:
    plan = plan_of("paper-llama8b", tmp_path)
    figures = forecast(plan, stages(), cores=10**6)
    shapes = shapes_of(plan)
    seconds = [node_need(node, shapes).seconds or 0 for node in plan.nodes.values() if node.gpus]
    assert figures.wall == pytest.approx(sum(seconds))


def test_finished_jobs_scale_the_times_of_their_stage_and_of_others(plan: Plan) -> None:
    before = stage_seconds(plan)
    captions, projectors = nodes_of(plan, "caption"), nodes_of(plan, "train_projector")
    # Medians: 2 of captions, 3 of projectors, 3 of all five.
    for node, ratio in zip((*captions[:3], *projectors[:2]), (1.5, 2, 4, 3, 3), strict=True):
        benchmark(plan, node, ratio * forecast_seconds(plan, node))
    after = stage_seconds(plan)
    for stage, seconds in before.items():
        ratio = 2 if stage == "caption" else 3
        assert after[stage] == pytest.approx(ratio * seconds), stage
    figures = forecast(plan, stages(), cores=2)
    assert figures.measured == 5
    assert "\nTimes are scaled by 5 finished jobs of this machine.\n" in render(figures)


def test_benchmarks_change_nothing_but_times(plan: Plan) -> None:
    before = forecast(plan, stages(), cores=2)
    benchmark(plan, nodes_of(plan, "caption")[0], 100)
    after = forecast(plan, stages(), cores=2)
    assert facts(before) == facts(after)
    assert "Times are scaled by 1 finished job of this machine." in render(after)
    assert "Times are scaled" not in render(before)


def facts(figures: Forecast) -> list[Any]:
    rows: Sequence[Any] = (*figures.stages, figures.total)
    return [(row.stage, row.todo, row.done, row.disk, row.held, row.memory) for row in rows]


def test_finished_artifacts_cost_nothing(plan: Plan) -> None:
    for node in plan.nodes.values():
        benchmark(plan, node, 50)
        folder = Path(plan.results) / node.path
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    figures = forecast(plan, stages(), cores=2)
    assert (figures.total.todo, figures.total.seconds.known, figures.wall) == (0, 0, 0)
    assert "Times are scaled" not in render(figures)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s\n",
        HEADER,
        HEADER + "fast\n",
        HEADER + "5.0\t0:00:05\n",
        HEADER.replace("s\t", "t\t", 1) + "\t".join("1" * 10) + "\n",
        *(
            HEADER + "\t".join([value] + ["1"] * 9) + "\n"
            for value in ("nan", "inf", "-1", "0", "-")
        ),
    ],
)
def test_a_damaged_benchmark_file_counts_as_absent(plan: Plan, text: str) -> None:
    path = benchmark(plan, nodes_of(plan, "caption")[0], 100)
    path.write_text(text)
    assert job_seconds(path) is None
    assert calibrate(shapes_of(plan)).jobs == 0
    path.write_bytes(b"\xff\xfe\n\x00")
    assert job_seconds(path) is None
    path.unlink()
    path.mkdir()
    assert job_seconds(path) is None
    assert calibrate(shapes_of(plan)).jobs == 0


def test_a_job_that_kept_its_artifact_tells_nothing(plan: Plan) -> None:
    benchmark(plan, nodes_of(plan, "caption")[0], KEPT - 0.1)
    assert calibrate(shapes_of(plan)).jobs == 0
    # A job without torch may be as short.
    benchmark(plan, nodes_of(plan, "records")[0], KEPT - 0.1)
    assert calibrate(shapes_of(plan)).jobs == 1


def test_downloads_tell_nothing_about_jobs(tmp_path: Path) -> None:
    plan = plan_of("paper-llama8b", tmp_path)
    fetched = [node for node in plan.nodes.values() if node.stage.startswith("fetch_")]
    for node in fetched:
        benchmark(plan, node, 5000)
    assert fetched
    assert calibrate(shapes_of(plan)).jobs == 0


def test_parts_of_an_artifact_are_measured_together(tmp_path: Path) -> None:
    encoders = yaml.safe_load((CONFIGS / "smoke.yaml").read_text())["encoders"]
    encoders["dinov2"]["jobs"] = 2
    plan = plan_of("smoke", tmp_path, encoders=encoders)
    node = next(node for node in nodes_of(plan, "features") if node.jobs == 2)
    seconds = forecast_seconds(plan, node)
    benchmark(plan, node, 0.5 * seconds)
    benchmark(plan, node, 0.75 * seconds, ".1of2")
    assert calibrate(shapes_of(plan)).jobs == 0
    benchmark(plan, node, 0.75 * seconds, ".2of2")
    assert calibrate(shapes_of(plan)).by_stage == pytest.approx({"features": 2.0})


def test_other_files_are_not_read(plan: Plan) -> None:
    path = benchmark(plan, nodes_of(plan, "caption")[0], 100)
    path.rename(path.with_name(re.sub("-[0-9a-f]{10}", "-0000000000", path.name)))
    assert calibrate(shapes_of(plan)).jobs == 0
