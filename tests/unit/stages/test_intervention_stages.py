"""Removal and replacement as stages, from made-up captions, and their way into the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.long_table import read_rows
from vista.config.interventions import InterventionMetricSettings
from vista.config.report import ReportSettings
from vista.data.records import Box, Object, Record, Turn, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.metrics.intervention import stage as intervention
from vista.metrics.intervention.items import chosen_scores
from vista.metrics.results import read_result
from vista.stages import report

SCORES = InterventionMetricSettings.model_validate(
    {"attributes": ["red", "sand"], "bootstrap": {"resamples": 50}}
).model_dump(mode="json")
REMOVAL, REPLACEMENT = ({**SCORES, "task": task} for task in ("removal", "replacement"))
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("target", pa.string()),
        ("task", pa.string()),
        ("variant", pa.string()),
        ("coefficient", pa.float64()),
        ("blocks", pa.list_(pa.int32())),
        ("caption", pa.string()),
        ("found", pa.bool_()),
        ("n_tokens", pa.int32()),
        ("loss_sum", pa.float64()),
        ("loss_tokens", pa.int32()),
        ("damage_sum", pa.float64()),
        ("damage_tokens", pa.int32()),
    ]
)
# Captions of images i0 to i3 by (variant, coefficient); i3 has no direction.
REMOVED = {
    ("none", 0.0): ["a red cat", "a red cat", "a cat", "a cat"],
    ("object", 1.0): ["a red cat", "red", "a cat", "a cat"],
    ("object", 4.0): ["red", "red on sand", "a cat", "a cat"],
    ("outside", 1.0): ["a cat", "a cat", "a cat", "a cat"],
    ("outside", 4.0): ["red", "a cat", "a cat", "a cat"],
}


def publish(root: Path, stage: str, node: str, write: Callable[[Path], None]) -> Artifact:
    with publishing(root, stage, node, Provenance(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / node)


def run(root: Path, stage: Any, node: str, settings: dict[str, Any], **inputs: Any) -> Artifact:
    def write(work: Path) -> None:
        stage.run(Job(node, settings, inputs, work))

    return publish(root, stage.__name__.rsplit(".", 1)[1], node, write)


def rows(
    captions: dict[tuple[str, float], list[str]],
    target: str | None,
    blocks: tuple[int, ...] = (0, 1),
) -> list[dict[str, Any]]:
    found = []
    for (variant, coefficient), texts in captions.items():
        for i, text in enumerate(texts):
            found.append(
                {
                    "image_id": f"i{i}",
                    "split": "test",
                    "source": "cat",
                    "target": target,
                    "task": "replace" if target else "remove",
                    "variant": variant,
                    "coefficient": coefficient,
                    "blocks": None if variant == "none" else list(blocks),
                    "caption": text,
                    "found": i != 3,
                    "n_tokens": 0 if variant == "none" else 4,
                    "loss_sum": 2.0 + (coefficient if variant == "object" else 0.0),
                    "loss_tokens": 4,
                    "damage_sum": coefficient if variant == "object" else 0.0,
                    "damage_tokens": 2,
                }
            )
    return found


def captions_of(
    root: Path,
    node: str,
    content: list[dict[str, Any]],
    words: tuple[str, ...] = (),
    control: str | None = None,
) -> Artifact:
    def write(work: Path) -> None:
        table = pa.Table.from_pylist(content, schema=SCHEMA)
        pq.write_table(table, work / "captions.parquet")
        facts = {"method": "latent", "space": "stream", "how": "subtract", "words": words}
        facts |= {"control": control, "tokens": ["object"]}
        (work / "edits.json").write_text(json.dumps(facts))

    return publish(root, "edit_captions", node, write)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    root = tmp_path_factory.mktemp("results")
    box = Box(0.0, 0.0, 4.0, 4.0)
    made = [
        Record(
            f"i{i}",
            "test",
            f"i{i}.png",
            8,
            8,
            turns=(Turn("Describe.", "a red cat on grass"),),
            objects=(Object("cat", box),),
        )
        for i in range(4)
    ]
    made.append(Record("d", "test", "d.png", 8, 8, objects=(Object("dog", box),)))

    def write(work: Path) -> None:
        write_records(work / "records.parquet", made)

    return root, publish(root, "records", "r", write)


@pytest.fixture(scope="module")
def removed(records: tuple[Path, Artifact]) -> Artifact:
    root, table = records
    captions = captions_of(root, "remove", rows(REMOVED, None))
    return run(root, intervention, "m", REMOVAL, development=captions, test=captions, records=table)


def values(artifact: Artifact) -> dict[str, Any]:
    """Value, chance and n of each figure, by its name and place."""
    return {
        (row["metric"], row["set"]): (row["value"], row["chance"], row["n"])
        for row in read_rows(artifact)
    }


def test_removal_of_made_up_captions(removed: Artifact) -> None:
    found = values(removed)
    assert found["edit_coefficient", "object"] == (4.0, None, 4)
    assert found["edit_ms", "object"] == (0.75, 0.5, 4)  # clean, with sand, failed, not found
    assert found["edit_removed", "object"] == (0.5, 0.25, 4)
    assert found["edit_found", None] == (0.75, None, 4)
    # Four nats more over four tokens in three images of four.
    assert found["edit_nats", "object"] == (0.75, 0.0, 4)
    # Four nats over two tokens in three images of four.
    assert found["edit_damage", "object"] == (1.5, 0.0, 4)
    result = read_result(removed)
    assert (result["method"], result["n_edits_found"]) == ("latent", 1)
    assert [edit["blocks"] for edit in result["edits"]] == [[0, 1]] * 2
    items = pq.read_table(removed.file("items.parquet")).to_pylist()
    assert len(items) == 4 * 4
    sandy = [row for row in items if row["new_details"] == ["sand"]]
    assert [(row["image_id"], row["score"], row["chosen"]) for row in sandy] == [("i1", 1, True)]
    assert list(chosen_scores(removed)["object"].values()) == [2, 1, 0, 0]


def test_blocks_are_chosen_on_development(records: tuple[Path, Artifact]) -> None:
    root, table = records
    good, bad = ["red"] * 4, ["a cat"] * 4
    made = {}
    for role, first, second in (("dev", bad, good), ("test", good, bad)):
        content = rows({("none", 0.0): ["a cat"] * 4, ("object", 1.0): first}, None, (0,))
        content += rows({("object", 1.0): second}, None, (1, 2))
        made[role] = captions_of(root, f"swept_{role}", content)
    inputs = {"development": made["dev"], "test": made["test"], "records": table}
    result = run(root, intervention, "swept", REMOVAL, **inputs)
    (edit,) = read_result(result)["edits"]
    assert (edit["blocks"], edit["development_ms"], edit["ms"]["value"]) == ([1, 2], 1.5, 0.0)
    items = pq.read_table(result.file("items.parquet")).to_pylist()
    assert {(*row["blocks"], row["chosen"]) for row in items} == {(0, False), (1, 2, True)}
    # The items of the chosen blocks, not those of the other ones.
    assert list(chosen_scores(result)["object"].values()) == [0, 0, 0, 0]


def test_words_as_sources_are_judged_and_are_no_objects(records: tuple[Path, Artifact]) -> None:
    root, table = records
    texts = {
        ("none", 0.0): ["a red cat"] * 4,
        ("object", 1.0): ["a blue cat", "a cat", "a cat on grass", "a red cat"],
    }
    content = rows(texts, None)
    for row in content:
        row["source"] = "red"
    captions = captions_of(root, "words", content, ("red", "blue", "grass"))
    settings = {**REMOVAL, "attributes": []}
    inputs = {"development": captions, "test": captions, "records": table}
    made = run(root, intervention, "words", settings, **inputs)
    # Blue is not in the reference, grass is; the last item has no direction.
    assert list(chosen_scores(made)["object"].values()) == [1, 2, 2, 0]
    found = values(made)
    assert found["edit_new_objects", "object"][0] == 0.0
    assert found["edit_objects_kept", "object"] == (1.0, None, 4)
    assert read_result(made)["n_attributes"] == 3


def test_replacement_and_the_order_of_rows(records: tuple[Path, Artifact]) -> None:
    root, table = records
    texts = {
        ("none", 0.0): ["a cat"] * 4,
        ("object", 2.0): ["a dog", "a red dog", "a cat and a dog", "a cat"],
    }
    content = rows(texts, "dog")
    made = []
    for node, each in (("r", content), ("r2", content[::-1])):
        captions = captions_of(root, node, each)
        inputs = {"development": captions, "test": captions, "records": table}
        made.append(run(root, intervention, node, REPLACEMENT, **inputs))
    assert made[0].digest == made[1].digest
    found = values(made[0])
    assert found["edit_ms", "object"] == (1.0, None, 4)
    assert found["edit_replaced_of_all", "object"] == (0.5, None, 4)
    assert found["edit_both_named", "object"] == (0.25, None, 4)


def test_an_object_without_surroundings_has_no_control(
    records: tuple[Path, Artifact], removed: Artifact
) -> None:
    root, table = records
    content = rows(REMOVED, None)
    for row in content:
        if row["variant"] == "outside" and row["image_id"] == "i1":
            row["n_tokens"] = 0
    captions = captions_of(root, "covered", content)
    made = run(root, intervention, "c", REMOVAL, development=captions, test=captions, records=table)
    assert values(made)["edit_ms", "outside"] == (pytest.approx(2 / 3), None, 3)
    assert values(removed)["edit_ms", "outside"] == (0.5, None, 4)
    assert values(made)["edit_ms", "object"][2] == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no image that can be edited"),
        (rows({("none", 0.0): ["a cat"]}, None), "has no edited caption"),
        (rows(REMOVED, "dog"), "is of task 'replace', not 'remove'"),
    ],
)
def test_captions_that_cannot_be_scored(
    records: tuple[Path, Artifact], content: list[dict[str, Any]], message: str
) -> None:
    root, table = records
    bad = captions_of(root, f"bad{len(content)}{message[:3]}", content)
    with pytest.raises(UserError, match=message):
        run(root, intervention, "bad", REMOVAL, development=bad, test=bad, records=table)


def test_report_with_interventions(records: tuple[Path, Artifact], removed: Artifact) -> None:
    root, _ = records
    point = {"encoder": "clip", "llm": "gemma", "sae_weight": 1.0, "seed": 0}
    settings = {
        "report": ReportSettings(dpi=40).model_dump(mode="json"),
        "name": "planted",
        "points": [{**point, "metric": "intervention", "method": "latent"}],
    }
    made = run(root, report, "report", settings, metrics=[removed])
    assert "figures/interventions.png" in made.checksums
    text = made.file("summary.md").read_text()
    assert "## Interventions" in text
    assert "| 25 / 25 / 50 |" in text
    assert "4 test items of 4 images; 2 attribute words" in text
    table = pq.read_table(made.file("summary.parquet"))
    assert set(table.column("method").to_pylist()) == {"latent"}
    assert (
        "edit_ms,removal,object,,clip,gemma,1.0,0,,latent,," in made.file("summary.csv").read_text()
    )


# Captions of a control: best at 1 on these images, while the method's coefficient is 4.
RANDOM = {
    ("none", 0.0): ["a red cat", "a red cat", "a cat", "a cat"],
    ("object", 1.0): ["red", "red", "a cat", "a cat"],
    ("object", 4.0): ["red", "a cat", "a cat", "a cat"],
}


@pytest.fixture(scope="module")
def control(records: tuple[Path, Artifact], removed: Artifact) -> Artifact:
    root, table = records
    captions = captions_of(root, "random", rows(RANDOM, None), control="random_source")
    inputs = {"development": captions, "test": captions, "records": table, "method": removed}
    return run(root, intervention, "control", REMOVAL, **inputs)


def test_a_control_is_scored_at_the_coefficient_of_its_method(control: Artifact) -> None:
    result = read_result(control)
    assert result["control"] == "random_source"
    found = values(control)
    assert {name for _, name in found} == {"random_source"}
    assert found["edit_coefficient", "random_source"][0] == 4.0
    assert found["edit_ms", "random_source"] == (0.5, None, 4)
    assert found["edit_best_coefficient", "random_source"][0] == 1.0
    assert found["edit_best_ms", "random_source"] == (1.0, None, 4)
    assert found["edit_damage", "random_source"] == (1.5, None, 4)
    assert found["edit_best_damage", "random_source"] == (0.375, None, 4)
    assert list(chosen_scores(control)["object"].values()) == [2, 0, 0, 0]
    assert list(chosen_scores(control, "best")["object"].values()) == [2, 2, 0, 0]


def test_the_best_scores_of_a_method_are_the_chosen_ones(removed: Artifact) -> None:
    assert chosen_scores(removed, "best") == chosen_scores(removed)


def test_report_with_a_control(
    records: tuple[Path, Artifact], removed: Artifact, control: Artifact
) -> None:
    root, _ = records
    point = {"encoder": "clip", "llm": "gemma", "sae_weight": 1.0, "seed": 0}
    place = {**point, "metric": "intervention", "method": "latent"}
    settings = {
        "report": ReportSettings(dpi=40).model_dump(mode="json"),
        "name": "controlled",
        "points": [place, place],
    }
    made = run(root, report, "controlled", settings, metrics=[removed, control])
    text = made.file("summary.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| removal |")]
    method, controlled = (line.strip("| ").split(" | ") for line in lines[:2])
    assert method[:6] == ["removal", "clip", "gemma", "latent", "1", "–"]
    assert controlled[:6] == ["removal", "clip", "gemma", "latent", "1", "random\\_source"]
    # MS, damage and difference at the method's coefficient, then at the control's best.
    assert [method[i] for i in (6, 8, 10, 12, 14, 16, 18)] == [
        *("0.750", "1.500", "–", "0.750", "1.500", "–", "4")
    ]
    assert [controlled[i] for i in (6, 8, 10, 12, 14, 16, 18)] == [
        *("0.500", "1.500", "0.250", "1.000", "0.375", "-0.250", "4")
    ]
    # The scores of methods hold no control, and comparisons of methods neither.
    assert text.count("random\\_source") == 1
    assert text.count("4 test items of 4 images") == 1
    assert "edit_ms,removal,random_source,,clip,gemma,1.0,0,,latent,," in (
        made.file("summary.csv").read_text()
    )
