"""The judge of a stage: its model, its threshold, and where its judgements lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_endpoint import Endpoint

from vista.data.records import Box, Object, Record, Turn, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.errors import UserError
from vista.inputs.judge import stage_judge, write_tally
from vista.judges.kinds.api import Settings as ApiJudgeSettings
from vista.judges.kinds.embedding import EmbeddingJudge
from vista.judges.kinds.embedding import Settings as EmbeddingJudgeSettings
from vista.judges.kinds.whole_word import WholeWordJudge

BOX = Box(0.0, 0.0, 8.0, 8.0)


def artifact(root: Path, stage: str, write: Callable[[Path], None]) -> Artifact:
    with publishing(root, stage, "node", Provenance(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "node")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder where the workflow would have it: below results/.work/."""
    work = tmp_path / "results" / ".work" / "matching_rate" / "node"
    work.mkdir(parents=True)
    return work


@pytest.fixture
def records(tmp_path: Path) -> Artifact:
    """Records without an image."""
    return artifact(
        tmp_path / "results",
        "no_records",
        lambda work: void(write_records(work / "records.parquet", [])),
    )


def void(_: object) -> None:
    """Lets a function that returns something be used where nothing may be."""


def test_a_name_alone(work: Path, records: Artifact, tmp_path: Path) -> None:
    found = stage_judge("whole_word", None, records, work)
    assert isinstance(found, WholeWordJudge)
    write_tally(work, found)
    assert not list(work.iterdir()) and not (tmp_path / "results" / "judgements").exists()


def test_judgements_outlive_the_stage_and_what_is_open_is_reported(
    work: Path,
    records: Artifact,
    endpoint: Endpoint,
    settings: Callable[..., ApiJudgeSettings],
    tmp_path: Path,
) -> None:
    endpoint.true, endpoint.script = {"cat"}, ["no", "no"]
    judge = stage_judge(settings(max_unanswered=0.5, concurrency=1), None, records, work)
    assert judge.judge(["a", "b"], ["cat"]).tolist() == [[False], [True]]
    write_tally(work, judge)
    told = json.loads((work / "judge.json").read_text())
    assert told == {"judge": "api:small", "unanswered": 1, "verdicts": 2}
    assert len(list((tmp_path / "results" / "judgements").glob("api-*.jsonl"))) == 1
    asked = len(endpoint.requests)
    assert stage_judge(settings(), None, records, work).judge(["b"], ["cat"]).all()
    assert len(endpoint.requests) == asked


def test_a_threshold_is_fitted_on_the_captions_of_a_split(
    work: Path, encoder: Path, tmp_path: Path
) -> None:
    def record(i: int, split: str, name: str, caption: str) -> Record:
        turns = (Turn("What?", caption),)
        return Record(f"{i}", split, f"{i}.png", 8, 8, objects=(Object(name, BOX),), turns=turns)

    # On the development split captions are the names themselves: the threshold is below 1 and
    # above the cosine of the two names. The other split would have it the other way round.
    pairs = [("cat", "cat"), ("dog", "dog")]
    rows = [record(i, "validation", name, text) for i, (name, text) in enumerate(pairs)]
    rows += [record(9, "test", "dog", "cat"), record(10, "test", "cat", "dog")]

    def write(work: Path) -> None:
        write_records(work / "records.parquet", rows)

    records = artifact(tmp_path / "results", "records", write)
    source = {"kind": "checkpoint", "path": str(encoder)}
    wanted = EmbeddingJudgeSettings.model_validate({"source": source})
    judge = stage_judge(wanted, None, records, work)
    assert isinstance(judge, EmbeddingJudge) and judge.threshold is not None
    between = float(judge.similarity(["cat"], ["dog"])[0, 0])
    assert judge.threshold == pytest.approx((1 + between) / 2, abs=1e-6)
    told = json.loads((work / "judge.json").read_text())["threshold"]
    assert (told["precision"], told["recall"], told["f1"]) == (1, 1, 1)
    assert (told["n"], told["n_named"]) == (4, 2)
    none = wanted.model_copy(update={"fit_split": "train"})
    with pytest.raises(UserError, match=r"judge\.fit_split: no image of 'train'"):
        stage_judge(none, None, records, work)


def test_the_threshold_is_fitted_on_captions_where_conversations_say_other_things(
    work: Path, encoder: Path, tmp_path: Path
) -> None:
    def record(i: int, name: str, answer: str) -> Record:
        box, turns = (Object(name, BOX),), (Turn("What is it not?", answer),)
        return Record(
            f"{i}", "validation", f"{i}.png", 8, 8, (name, "sofa"), turns=turns, objects=box
        )

    def write(work: Path) -> None:
        rows = [record(0, "cat", "dog"), record(1, "dog", "cat")]
        write_records(work / "records.parquet", rows)

    records = artifact(tmp_path / "results", "records", write)
    source = {"kind": "checkpoint", "path": str(encoder)}
    wanted = EmbeddingJudgeSettings.model_validate({"source": source})
    stage_judge(wanted, None, records, work, "judge_two")
    told = json.loads((work / "judge_two.json").read_text())["threshold"]
    assert told["f1"] == 1 and told["n"] == 4


def test_judges_of_one_stage_write_beside_each_other(
    work: Path,
    records: Artifact,
    endpoint: Endpoint,
    settings: Callable[..., ApiJudgeSettings],
    tmp_path: Path,
) -> None:
    endpoint.true = {"cat"}
    for role, texts in (("judge_one", ["a"]), ("judge_other", ["a", "b"])):
        judge = stage_judge(settings(), None, records, work, role)
        judge.judge(texts, ["cat"])
        write_tally(work, judge, role)
    told = {path.name: json.loads(path.read_text())["verdicts"] for path in work.glob("*.json")}
    assert told == {"judge_one.json": 1, "judge_other.json": 2}


def test_a_fetched_model_is_an_input(
    work: Path, records: Artifact, encoder: Path, tmp_path: Path
) -> None:
    def copy(folder: Path) -> None:
        (folder / "model").mkdir()
        for file in encoder.iterdir():
            (folder / "model" / file.name).write_bytes(file.read_bytes())

    fetched = artifact(tmp_path / "results", "fetch_model", copy)
    source = {"kind": "checkpoint", "repo": "owner/name", "revision": "1"}
    wanted = EmbeddingJudgeSettings.model_validate({"source": source, "threshold": 0.9999})
    judge = stage_judge(wanted, fetched, records, work, "judge_small")
    assert judge.name == "embedding:owner/name"
    assert stage_judge(wanted, fetched, records, work).name == judge.name
    assert judge.judge(["cat"], ["cat", "dog"]).tolist() == [[True, False]]
