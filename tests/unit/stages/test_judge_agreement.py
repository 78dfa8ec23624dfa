"""Judges measured through artifacts: in the drawn world, and on planted captions and images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_endpoint import Endpoint, labels_of
from PIL import Image

from tests.long_table import figures_of, read_rows
from vista.config.reading import load_config
from vista.data.records import Box, Object, Record, Turn, read_records, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.metrics.judge_agreement import JudgeAgreementSettings
from vista.metrics.judge_agreement import stage as judge_agreement
from vista.metrics.judge_agreement.report import judge_section
from vista.metrics.rates import rate_interval
from vista.metrics.results import read_result
from vista.report.table import LongTable
from vista.sae.label_table import LatentLabels, write_labels
from vista.stages import draw_world, records

SMOKE = Path(__file__).parents[3] / "config" / "smoke.yaml"
BOX = Box(0.0, 0.0, 8.0, 8.0)


def publish(
    root: Path,
    stage: str,
    write: Callable[[Path], None],
    settings: dict[str, Any] | None = None,
) -> Artifact:
    record = Provenance(stage, settings or {}, {}, "code", {})
    with publishing(root, stage, "node", record) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "node")


def run(root: Path, stage: Any, settings: dict[str, Any], **inputs: Any) -> Artifact:
    name = stage.__name__.removesuffix(".stage").rsplit(".", 1)[1]

    def write(work: Path) -> None:
        stage.run(Job(name, settings, inputs, work))

    return publish(root, name, write, settings)


def dumped(**settings: Any) -> dict[str, Any]:
    settings.setdefault("bootstrap", {"resamples": 50})
    return JudgeAgreementSettings.model_validate(settings).model_dump(mode="json")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """The records of config/smoke.yaml's world."""
    root = tmp_path_factory.mktemp("results")
    data = load_config(SMOKE).data.model_dump(mode="json")
    world = run(root, draw_world, data)
    return root, run(root, records, data, world=world)


def test_word_judges_are_never_wrong_about_captions_of_the_drawn_world(
    drawn: tuple[Path, Artifact],
) -> None:
    root, found = drawn
    made = run(root, judge_agreement, dumped(), records=found)
    result = read_result(made)
    test = [r for r in read_records(found.file("records.parquet")) if r.split == "test"]
    named = sum(len(record.categories) for record in test)
    assert result["n_captions"] == len(test) > 20
    assert result["n_categories"] == len({name for r in test for name in r.categories}) > 20
    assert result["judges"] == {"lexical": "lexical", "whole_word": "whole_word"}
    for entry in result["against_truth"]:
        assert (entry["n"], entry["n_true"]) == (len(test) * result["n_categories"], named)
        for name in ("accuracy", "balanced_accuracy", "precision", "recall"):
            assert entry[name]["value"] == entry[name]["ci_high"] == 1
            assert entry[name]["ci_low"] > 0.9 or name == "balanced_accuracy"
        assert 0.5 < entry["accuracy"]["chance"] < 1
        assert entry["precision"]["chance"] < 0.2
    (kappa,) = result["between_judges"]
    assert kappa["judges"] == ["lexical", "whole_word"]
    assert kappa["kappa"]["value"] == kappa["kappa"]["ci_low"] == 1
    assert not (made.path / "judge_lexical.json").exists()


# What is in each image of the test split, and what its captions say: the second leaves the dog
# out, the third is told by a synonym.
PLANTED = [
    (("cat",), ("a cat", "a cat on grass")),
    (("cat", "dog"), ("a cat",)),
    (("dog",), ("the puppy",)),
]
LABELS = {1: ["cat", "puppy", None, "grass"], 2: ["cat", "Dog", " ", "kitten"]}


def planted(root: Path, copies: int = 1) -> dict[str, Any]:
    def write_data(work: Path) -> None:
        rows = []
        for i, (names, captions) in enumerate(PLANTED * copies):
            things = tuple(Object(name, BOX) for name in names)
            rows.append(Record(f"{i}", "test", f"{i}.png", 8, 8, captions, objects=things))
        # Another split's objects and captions count for nothing.
        train = (Turn("What?", "a dog"),)
        rows.append(Record("9", "train", "9.png", 8, 8, turns=train, objects=(Object("bus", BOX),)))
        write_records(work / "records.parquet", rows)

    def write_world(work: Path) -> None:
        (work / "images").mkdir()
        for i in range(len(PLANTED) * copies):
            pixels = np.full((8, 8, 3), 80 * i % 256, dtype=np.uint8)
            Image.fromarray(pixels).save(work / "images" / f"{i}.png")

    def write_layer(layer: int) -> Callable[[Path], None]:
        n = len(LABELS[layer])
        columns = np.zeros(n, dtype=np.float32)

        def write(work: Path) -> None:
            labels = LatentLabels(
                layer, "sae", 9, tuple(LABELS[layer]), columns, columns, ((),) * n
            )
            write_labels(work / "labels.parquet", labels)

        return write

    return {
        "records": publish(root, "records", write_data, {"kind": "drawn"}),
        "world": publish(root, "draw_world", write_world),
        "labels": [publish(root, f"label_latents_{i}", write_layer(i)) for i in LABELS],
    }


def by_what(result: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {(entry["items"], entry["judge"]): entry for entry in result["against_truth"]}


def test_captions_and_labels_of_which_it_is_known_what_they_name(tmp_path: Path) -> None:
    inputs = planted(tmp_path)
    del inputs["world"]
    result = read_result(run(tmp_path, judge_agreement, dumped(), **inputs))
    assert (result["n_captions"], result["n_images"], result["n_categories"]) == (4, 0, 2)
    # cat, puppy, grass, Dog, kitten: "cat" once, though two layers have it.
    assert (result["n_labels"], result["n_named_labels"]) == (5, 2)
    found = by_what(result)
    lexical, strict = (found["captions", name] for name in ("lexical", "whole_word"))
    assert lexical["n_true"] == strict["n_true"] == 5
    assert lexical["precision"]["value"] == strict["precision"]["value"] == 1
    assert lexical["recall"]["value"] == pytest.approx(4 / 5)
    assert strict["recall"]["value"] == pytest.approx(3 / 5)
    assert found["labels", "whole_word"]["accuracy"]["value"] == 1
    assert found["labels", "whole_word"]["n"] == 4
    captions, labels = result["between_judges"]
    # Of 10 pairs of a label and a category both accept 2, and only lexical puppy and kitten.
    assert (labels["items"], labels["n"]) == ("labels", 10)
    assert labels["agreement"]["value"] == pytest.approx(8 / 10)
    assert labels["kappa"]["value"] == pytest.approx((0.8 - 0.56) / (1 - 0.56))
    assert captions["agreement"]["value"] == pytest.approx(7 / 8)


def test_both_captions_of_an_image_are_one_cluster(tmp_path: Path) -> None:
    result = read_result(run(tmp_path, judge_agreement, dumped(), **planted(tmp_path, copies=2)))
    recall = by_what(result)["captions", "lexical"]["recall"]
    # Of three images twice, the second's caption tells one object of two.
    expected = rate_interval([2, 1, 1] * 2, [2, 2, 1] * 2, 0.95)
    assert (recall["value"], recall["ci_low"], recall["ci_high"]) == pytest.approx(expected)


def test_fewer_labels_are_drawn_but_those_with_a_truth_are_judged(tmp_path: Path) -> None:
    inputs = planted(tmp_path)
    settings = dumped(max_labels=1, max_images=1, seed=1)
    result = read_result(run(tmp_path, judge_agreement, settings, **inputs))
    assert (result["n_labels"], result["n_named_labels"]) == (1, 2)
    assert by_what(result)["labels", "lexical"]["n"] == 4
    labels = [each for each in result["between_judges"] if each["items"] == "labels"]
    assert [each["n"] for each in labels] == [2]
    assert 1 <= result["n_captions"] <= 2


def test_judges_that_look_are_shown_the_images(tmp_path: Path, endpoint: Endpoint) -> None:
    root = tmp_path / "results"
    inputs = planted(root)

    def broken_or_cat(labels: list[str]) -> str:
        return json.dumps({"answers": [label == "cat" for label in labels]})

    # Asked one at a time: two images, then one that is answered twice by nonsense.
    settings = dumped(
        judges={
            "lexical": "lexical",
            "seer": {
                "kind": "api",
                "base_url": endpoint.url,
                "model": "small",
                "concurrency": 1,
                "first_pause_s": 0.01,
            },
        },
        show_images=True,
    )
    texts = len({text for _, captions in PLANTED for text in captions}) + 5
    endpoint.script = [broken_or_cat] * (texts + 2) + ["nonsense"] * 2
    made = run(root, judge_agreement, settings, **inputs)
    shown = [body for body in endpoint.requests if "image_url" in json.dumps(body)]
    assert len(shown) == 4 and {tuple(labels_of(body)) for body in shown} == {("cat", "dog")}
    result = read_result(made)
    assert (result["n_images"], result["judges"]["seer"]) == (3, "api:small")
    found = by_what(result)
    assert ("images", "lexical") not in found
    seer = found["images", "seer"]
    # Yes to the cat of the first two images; the dog of the second is missed, the third is open.
    assert (seer["n"], seer["unanswered"], seer["n_true"]) == (4, 2, 3)
    assert seer["precision"]["value"] == 1
    assert seer["recall"]["value"] == pytest.approx(2 / 3)
    told = json.loads(made.file("judge_seer.json").read_text())
    assert told == {"judge": "api:small", "unanswered": 2, "verdicts": 2 * (texts + 3)}
    rows = {(row["metric"], row["set"], row["of"]): row for row in read_rows(made)}
    assert rows["judge_unanswered", "images", "seer"]["value"] == pytest.approx(2 / 6)


def test_the_summary_tells_each_judge_and_each_two(tmp_path: Path) -> None:
    made = run(tmp_path, judge_agreement, dumped(), **planted(tmp_path))
    point = {"metric": "judge_agreement"}
    section = judge_section(LongTable(figures_of(point, read_rows(made))))
    truth, kappas = section.grids
    assert [row[:2] for row in truth.rows] == [
        ["captions", "lexical"],
        ["captions", "whole_word"],
        ["labels", "lexical"],
        ["labels", "whole_word"],
    ]
    strict = dict(zip(truth.header, truth.rows[1], strict=False))
    assert strict["accuracy"] == "0.750" and strict["recall"] == "0.600"
    assert truth.rows[1][-2:] == ["8", "0.000"]
    assert kappas.rows[1][:4] == ["labels", "lexical", "whole_word", "0.545"]
    assert kappas.rows[1][5:] == ["0.800", "0.560", "10"]
    assert "whole\\_word" in section.markdown()
    assert not any(each.rows for each in judge_section(LongTable([])).grids)


def test_nothing_to_judge_is_told(tmp_path: Path) -> None:
    inputs = planted(tmp_path)
    with pytest.raises(UserError, match=r"no object in split 'validation'"):
        run(tmp_path, judge_agreement, dumped(split="validation"), records=inputs["records"])

    def write(work: Path) -> None:
        silent = Record("0", "test", "0.png", 8, 8, objects=(Object("cat", BOX),))
        write_records(work / "records.parquet", [silent])

    silent = publish(tmp_path / "silent", "records", write)
    with pytest.raises(UserError, match="no caption in split 'test'"):
        run(tmp_path / "silent", judge_agreement, dumped(), records=silent)
    made = run(tmp_path, judge_agreement, dumped(), records=silent, labels=inputs["labels"])
    assert read_result(made)["n_captions"] == 0
    assert {row["set"] for row in read_rows(made)} == {"labels"}


def test_settings_refuse_names_that_figures_cannot_have_and_nobody_who_looks() -> None:
    for name in ("a:b", "a-b", "", "_a"):
        with pytest.raises(ValueError, match="judges"):
            dumped(judges={name: "lexical"})
    with pytest.raises(ValueError, match="judges"):
        dumped(judges={})
    with pytest.raises(ValueError, match="show_images needs a judge that looks"):
        dumped(show_images=True)


def test_what_a_judge_leaves_open_about_a_text_is_no_no(tmp_path: Path, endpoint: Endpoint) -> None:
    seer = {"kind": "api", "base_url": endpoint.url, "model": "small", "concurrency": 1}
    settings = dumped(judges={"seer": {**seer, "first_pause_s": 0.01, "max_unanswered": 0.5}})
    endpoint.script = ["nonsense"] * 2
    result = read_result(run(tmp_path / "r", judge_agreement, settings, **planted(tmp_path / "r")))
    found = by_what(result)
    # The first question is "a cat", the caption of two images: for each of two categories open.
    captions = found["captions", "seer"]
    assert (captions["n"], captions["unanswered"], captions["n_true"]) == (4, 4, 2)
    assert found["labels", "seer"]["unanswered"] == 0


def test_a_threshold_is_not_measured_on_the_split_that_it_was_fitted_on() -> None:
    judge = {"kind": "embedding", "source": {"kind": "checkpoint", "path": "m"}}
    dumped(judges={"e": judge}, split="test")
    dumped(judges={"e": {**judge, "threshold": 0.5}}, split="validation")
    with pytest.raises(ValueError, match=r"judges\.e\.fit_split and split are both 'validation'"):
        dumped(judges={"e": judge}, split="validation")
    with pytest.raises(ValueError, match="fit_split"):
        dumped(judges={"e": {**judge, "fit_split": "tset"}})
