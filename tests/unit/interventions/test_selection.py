"""Which latents stand for a concept; settings and presets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from vista.config.edits import PRESETS, DirectionSettings, EditSettings
from vista.config.judges import judge_files
from vista.data.records import Record, Turn
from vista.errors import UserError
from vista.inputs.edit_plan import question_of, words_for
from vista.interventions.directions import summed_rows
from vista.interventions.methods.latent_at import published_latents, read_latent_ids
from vista.interventions.methods.logistic import logistic
from vista.interventions.methods.mean_difference import mean_difference
from vista.interventions.methods.random import random_directions
from vista.interventions.methods.random_latent import random_like
from vista.interventions.selection import (
    Candidate,
    best_latents,
    derangement,
    sparse_auroc,
)


@pytest.mark.parametrize("seed", range(5))
def test_sparse_auroc_equals_scikit_learn(seed: int) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    dense = rng.integers(0, 4, 200) * rng.integers(0, 2, 200)  # many ties, many silent
    positive = rng.random(200) < 0.2
    place = np.flatnonzero(dense)
    got = sparse_auroc(place, dense[place].astype(float), positive)
    assert got == pytest.approx(roc_auc_score(positive, dense))
    assert sparse_auroc(place, dense[place].astype(float), np.zeros(200, bool)) is None


def world() -> tuple[list[Candidate], Any, Any, Any]:
    """Latent 1 of layer 1 marks the cat best; the label alone would prefer latent 0 of layer 0."""
    candidates = [
        Candidate(0, 0, "cat", 0.9, 0.1),
        Candidate(1, 1, "cats", 0.5, 0.2),
        Candidate(1, 2, "dog", 0.5, 0.19),
        Candidate(1, 3, "sand", 0.5, 0.9),
    ]
    named = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
    fires = {(0, 0): [3], (1, 1): [0, 1], (1, 2): [2], (1, 3): [0, 1, 2, 3]}
    positive = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)

    def firings(layer: int, latent: int) -> tuple[Any, Any]:
        at = np.array(fires[layer, latent])
        return at, np.ones(len(at))

    return candidates, named, firings, positive


def test_best_latents_rank_by_auroc_over_layers() -> None:
    candidates, named, firings, positive = world()
    cat, dog, none = best_latents(candidates, named, firings, positive, 2)
    assert [(e.candidate.layer, e.candidate.latent) for e in cat] == [(1, 1), (0, 0)]
    assert [e.auroc for e in cat] == pytest.approx([1.0, 0.25])
    assert [e.candidate.latent for e in dog] == [2]
    assert none == []


def test_random_latent_fires_as_often_and_is_not_the_concepts() -> None:
    candidates, named, firings, positive = world()
    best = best_latents(candidates, named, firings, positive, 1)
    for seed in range(5):
        cat, dog, none = random_like(best, candidates, named, 1, seed)
        assert [e.candidate.latent for e in cat] == [2]  # density .19 beside .2
        assert [e.candidate.latent for e in dog] == [1]
        assert none == []
    drawn = {random_like(best, candidates, named, 2, s)[0][0].candidate.latent for s in range(20)}
    assert drawn == {2, 3}


@pytest.mark.parametrize("n", [2, 3, 10])
def test_derangement_leaves_nobody_alone(n: int) -> None:
    partner = derangement(n, 3)
    assert sorted(partner) == list(range(n))
    assert all(i != j for i, j in enumerate(partner))
    assert partner == derangement(n, 3)


def test_a_derangement_is_one_cycle_in_the_order_of_the_seed() -> None:
    order = np.random.default_rng(5).permutation(7).tolist()
    partner = derangement(7, 5)
    assert [partner[each] for each in order] == [*order[1:], order[0]]


def test_published_latents_are_there() -> None:
    assert published_latents("gemma-2-2b")["cat"] == (4, 15456)
    assert published_latents("gemma-2-9b")["bus"] == (32, 8412)
    assert published_latents("llama-3.1-8b")["meat"] == (21, 15198)
    with pytest.raises(UserError, match="gemma-2-2b"):
        published_latents("gpt2")


def test_a_users_latents_are_read_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "latents.json"
    path.write_text('{"cat": {"layer": 1, "latent": 7}}')
    assert read_latent_ids(path) == {"cat": (1, 7)}
    path.write_text('{"cat": [1, 7]}')
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_latent_ids(path)


def test_fitted_directions_find_the_planted_one() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 8)).astype(np.float32)
    positive = np.zeros((2, 400), bool)
    positive[0, :100] = True
    x[:100, 3] += 4
    for rows in (mean_difference(x, positive), logistic(x, positive, 1.0)):
        assert rows[0, 3] > 0.9
        assert np.linalg.norm(rows[0]) == pytest.approx(1)
        assert not rows[1].any()  # nowhere: no direction
    drawn = random_directions(3, 8, 0)
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(np.ones(3))
    assert np.array_equal(drawn, random_directions(3, 8, 0))


def test_several_rows_are_summed_after_scaling() -> None:
    unit, length = summed_rows([np.array([0.0, 5.0])])
    assert (unit.tolist(), length) == ([0.0, 1.0], 5.0)
    unit, length = summed_rows([np.array([0.0, 5.0]), np.array([2.0, 0.0])])
    assert unit == pytest.approx([0.5**0.5] * 2)
    assert length == pytest.approx(2**0.5)


def test_presets_hold_the_published_edit() -> None:
    for name in PRESETS:
        settings = EditSettings(preset=name)
        assert settings.coefficients == (10.0,)
        assert settings.blocks == (((0, 1) if name.endswith("llama") else (0, 1, 2)),)
        assert EditSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert EditSettings(preset="published_replacement").how == "add"
    own = EditSettings(preset="published_removal", coefficients=(2.0,))
    assert (own.coefficients, own.how) == ((2.0,), "subtract")


def test_one_choice_of_blocks_is_a_sweep_of_one() -> None:
    assert EditSettings().blocks == EditSettings(blocks=[0, 1]).blocks == ((0, 1),)
    assert EditSettings(blocks=[1, 0]) == EditSettings(blocks=[[0, 1]])
    several = EditSettings(blocks=[[0], [2, 0, 1]])
    assert several.blocks == ((0,), (0, 1, 2))
    assert EditSettings.model_validate_json(several.model_dump_json()) == several
    assert EditSettings(blocks=None).blocks is None


@pytest.mark.parametrize("model", [EditSettings, DirectionSettings])
def test_a_judge_is_a_name_or_has_settings(model: Any) -> None:
    # A name stays a name: ids of runs without settings of a judge do not change.
    assert model(judge="lexical").model_dump(mode="json")["judge"] == "lexical"
    given = {"kind": "lexical", "wordnet": "/usr/share/wordnet"}
    settings = model(judge=given)
    assert judge_files(settings.judge) == tuple(
        f"/usr/share/wordnet/{name}.noun" for name in ("index", "data")
    )
    assert model.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("model", "wrong", "message"),
    [
        (EditSettings, {"task": "remove", "how": "add"}, "does not remove"),
        (EditSettings, {"coefficients": ()}, "coefficients"),
        (EditSettings, {"blocks": ()}, "blocks"),
        (EditSettings, {"blocks": ((0,), ())}, "blocks"),
        (EditSettings, {"blocks": (0, -1)}, "blocks"),
        (EditSettings, {"blocks": ((1, 0), (0, 1))}, "names a choice twice"),
        (EditSettings, {"images": "any"}, "needs sources: words"),
        (EditSettings, {"preset": "mine"}, "preset"),
        (DirectionSettings, {"method": "latent_at"}, "preset or path"),
        (DirectionSettings, {"path": "x.json"}, "latent_at"),
        (DirectionSettings, {"concepts": {"kind": "words"}}, "words is empty"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    model: Any, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        model.model_validate(wrong)


def test_words_for_source_and_target_are_found_whole() -> None:
    pattern = words_for(["cat", "hot dog"])
    text = "A category of Cats, two hot dogs and a dog."
    assert [match.group() for match in pattern.finditer(text)] == ["Cats", "hot dogs"]


def test_an_edited_caption_answers_the_question_of_the_settings() -> None:
    bare = Record("0", "test", "0.png", 8, 8, captions=("a cat",))
    talk = Record("1", "test", "1.png", 8, 8, turns=(Turn("what ?", "a dog"), Turn("why ?", "so")))
    for question, record, expected in (
        (None, bare, Turn("Describe the image.", "a cat")),
        (None, talk, Turn("what ?", "a dog")),
        ("", bare, Turn("", "a cat")),
        ("who ?", talk, Turn("who ?", "a dog")),
    ):
        settings = EditSettings(task="remove", question=question)
        assert question_of(settings, record) == expected
