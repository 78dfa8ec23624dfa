"""Object names in a text, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from vista.data.records import Box, Object, Record, write_records, write_text
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.engine.plan import load_plan
from vista.errors import UserError
from vista.metrics.text_coverage.measure import text_coverage
from vista.metrics.text_coverage.report import coverage_section
from vista.metrics.text_coverage.stage import run

CONFIGS = Path(__file__).parents[3] / "config"
TEXT = ["A cat sees two cats, the category.", "Hot dogs! A hot-dog; dogs.", "Men and a dog"]


def test_names_are_counted_word_by_word_in_any_number() -> None:
    found = text_coverage(["cat", "dog", "hot dog", "man", "zebra"], TEXT, 2)
    assert found.occurrences == {"cat": 2, "dog": 2, "hot dog": 2, "man": 1, "zebra": 0}
    assert (found.documents, found.words) == (3, 17)
    assert found.rare == {"zebra": 0, "man": 1}
    assert (found.covered.value, found.covered.n) == (0.6, 5)


def test_names_that_are_spelt_alike_all_count() -> None:
    assert text_coverage(["die", "dice"], ["a die"], 1).occurrences == {"dice": 1, "die": 1}
    assert text_coverage(["hot dog", "Hot-Dog"], ["hot dog"], 1).rare == {}
    assert text_coverage([], ["a"], 1).covered.value is None


def published(results: Path, stage: str, name: str, content: Any) -> Artifact:
    with publishing(results, stage, "it", Provenance(stage, {}, {}, {}, {})) as work:
        assert work is not None
        (write_records if stage == "records" else write_text)(work / name, content)
    return open_artifact(results / stage / "it", stage)


def measured(tmp_path: Path, *names: str) -> Path:
    objects = tuple(Object(name, Box(0, 0, 1, 1)) for name in names)
    record = Record("a", "a.png", "train", 2, 2, objects=objects)
    records = published(tmp_path, "records", "records.parquet", [record])
    text = published(tmp_path, "text", "text.parquet", {"train": TEXT, "heldout": ["zebra"]})
    work = tmp_path / "work"
    work.mkdir()
    run(Job("text_coverage", {"min_occurrences": 2}, {"records": records, "text": text}, work))
    return work


def test_the_stage_lists_rare_names_and_the_report_shows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = measured(tmp_path, "cat", "zebra")
    printed = capsys.readouterr().out
    # The held-out text does not count: no SAE learns from it.
    assert "1 of 2 object names occur fewer than 2 times" in printed and "zebra (0)" in printed
    section = coverage_section(json.loads((work / "result.json").read_text())).markdown()
    assert "1 of 2 object names occur fewer than 2 times" in section and "| zebra | 0 |" in section
    (row,) = pq.read_table(work / "rows.parquet").to_pylist()
    assert (row["metric"], row["value"], row["n"]) == ("text_coverage", 0.5, 2)


def test_images_without_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no object whose name could be counted"):
        measured(tmp_path)


def test_the_plan_counts_once_a_run_and_only_where_there_is_a_text() -> None:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / "smoke.yaml").read_text())
    before = {node.path for node in load_plan(content).nodes.values()}
    content["metrics"]["text_coverage"] = {"min_occurrences": 5}
    added = [node for node in load_plan(content).nodes.values() if node.path not in before]
    (node,) = [node for node in added if node.stage == "text_coverage"]
    assert set(node.inputs) == {"records", "text"} and node.settings == {"min_occurrences": 5}
    assert {node.stage for node in added} == {"text_coverage", "report"}
