"""Sweeps of blocks, and judges with settings, through the stages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_endpoint import Endpoint
from planted_words import GROUNDS, NOUNS, edit, edit_job, find, named, publish, read

from vista.stages import edit_captions

STRONG = 5.0
# Nothing reads the stream after the last block at visual tokens: an edit there does nothing.
LAST = (1,)


def at(rows: list[dict[str, Any]], *blocks: int) -> list[dict[str, Any]]:
    return [row for row in rows if row["blocks"] == list(blocks)]


def test_every_choice_of_blocks_is_an_edit_of_its_own(made: dict[str, Any]) -> None:
    found = find(made, "latent")
    rows, facts = edit(made, found, blocks=(LAST, (0,), (0, 1)), coefficients=(0.001, STRONG))
    assert facts["blocks"] == [[1], [0], [0, 1]]
    # Two places, three choices, two coefficients; the unedited caption once.
    assert len(rows) == facts["n_images"] * (1 + 2 * 3 * 2)
    plain = {row["image_id"]: row for row in rows if row["variant"] == "none"}
    assert len(plain) == facts["n_images"]
    assert all(row["blocks"] is None for row in plain.values())
    for row in at(rows, 1):
        assert row["caption"] == plain[row["image_id"]]["caption"]
        assert row["loss_sum"] == pytest.approx(plain[row["image_id"]]["loss_sum"], abs=1e-5)
    assert named(at(rows, 0), "object", coefficient=STRONG) < 0.2
    assert named(at(rows, 0, 1), "object", coefficient=STRONG) < 0.2


def test_an_edit_does_not_depend_on_the_other_blocks_of_its_batch(made: dict[str, Any]) -> None:
    found = find(made, "latent")
    swept, _ = edit(made, found, blocks=(LAST, (0,)), coefficients=(STRONG,), batch_size=64)
    alone, _ = edit(made, found, blocks=(0,), coefficients=(STRONG,), batch_size=64)
    edited = [row for row in alone if row["variant"] != "none"]
    for a, b in zip(at(swept, 0), edited, strict=True):
        for nats in ("loss_sum", "damage_sum"):
            assert a.pop(nats) == pytest.approx(b.pop(nats), rel=1e-3, abs=1e-4)
        assert a == b


def test_directions_in_feature_space_know_no_blocks(made: dict[str, Any]) -> None:
    found = find(made, "vision_latent")
    rows, facts = edit(made, found, blocks=(LAST, (0,)), coefficients=(STRONG,))
    assert facts["blocks"] is None
    assert len(rows) == facts["n_images"] * (1 + 2)
    assert all(row["blocks"] is None for row in rows)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def test_any_judge_says_which_label_and_which_caption_names_what(
    made: dict[str, Any], endpoint: Endpoint
) -> None:
    judge = {"kind": "api", "base_url": endpoint.url, "model": "small"}
    # It takes every label for a cat; the cat's own latent still marks cats best.
    endpoint.true = {"cat"}
    artifact = find(made, "latent", judge=judge)
    found = [each for each in read(artifact).concepts if each.found]
    assert [(each.concept, each.latent) for each in found] == [("cat", NOUNS.index("cat"))]
    told = json.loads(artifact.file("judge.json").read_text())
    assert (told["judge"], told["unanswered"]) == ("api:small", 0)
    assert (made["root"] / "judgements").is_dir()

    # It takes every caption for one that says sand.
    endpoint.true = {"sand"}
    words = find(made, "latent", concepts={"kind": "words", "words": list(GROUNDS)})
    given = {"sources": "words", "tokens": ("all",), "coefficients": (STRONG,), "judge": judge}
    edited = publish(
        made["root"],
        "edit_captions_judged",
        lambda work: edit_captions.run(edit_job(made, words, work, **given)),
    )
    assert "judge.json" in edited.checksums
    rows, _ = edit(made, words, **given)
    assert {row["source"] for row in rows} == {"sand"}
