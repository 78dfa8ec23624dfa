"""Labels of a vision SAE's latents by steering a blank image: latents that are words to a tiny
language model, through a projector that changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from planted_words import NOUNS, QUESTION, llm_settings, opening, publish
from safetensors.torch import load_file

from tests.long_table import read_rows
from vista.config.encoders import EncoderSettings
from vista.config.metrics import BootstrapSettings
from vista.config.steering_labels import SteeringLabelSettings
from vista.config.vision_sae import LabelVisionSettings
from vista.engine.artifacts import Artifact
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs import blank_image
from vista.inputs.steered_answers import Answer, chosen_answer, first_name, label_of
from vista.judges.words import phrase_table
from vista.language.model import LanguageModel
from vista.metrics.results import read_result
from vista.metrics.steering_score import stage as steering_score
from vista.metrics.vision_labels import stage as vision_labels
from vista.sae.label_table import read_labels
from vista.sae.neutral import SaeConfig, SparseAutoencoder, load_sae, save_sae
from vista.stages import label_by_steering, label_vision_latents
from vista.stages.label_by_steering import most_active

WORDS = NOUNS[:-1]
COUNT: Iterator[int] = iter(range(1000))


@pytest.fixture(autouse=True)
def ground_as_blank(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted encoder's blank image is bare ground."""
    model = LanguageModel.load(made["llm"].folder("model"))
    ids = torch.tensor([model.tokenizer(opening("", "sand", []))["input_ids"]])
    blank_pv = model.embed(ids)[0, 1:].numpy()
    monkeypatch.setattr(blank_image, "blank_features", lambda *_: blank_pv)


def labelled(made: dict[str, Any], sae: Artifact) -> Artifact:
    """The labels of a vision SAE by its top images."""
    settings = {"labels": LabelVisionSettings(split="validation").model_dump()}
    inputs = {"sae": sae} | {role: made[role] for role in ("features", "records")}
    return publish(
        made["root"],
        f"label_vision_latents_{next(COUNT)}",
        lambda work: label_vision_latents.run(Job("l", settings, inputs, work)),
    )


@pytest.fixture(scope="module")
def labels(made: dict[str, Any]) -> Artifact:
    return labelled(made, made["vision_sae"])


def steer(made: dict[str, Any], labels: Artifact, **changes: Any) -> Artifact:
    inputs = {role: made[role] for role in ("features", "records", "projector", "llm")}
    inputs |= {"sae": made["vision_sae"], "labels": labels}
    inputs |= {role: changes.pop(role) for role in (*inputs, "encoder") if role in changes}
    encoder = {"source": {"kind": "standin", "family": "dinov2"}}
    steering = {"prompt": QUESTION, "coefficients": [1, 2, 4], "max_new_tokens": 4, **changes}
    order = {
        "llm": llm_settings(),
        "encoder": EncoderSettings.model_validate(encoder).model_dump(mode="json"),
        "steer": SteeringLabelSettings(**steering).model_dump(mode="json"),
    }
    return publish(
        made["root"],
        f"label_by_steering_{next(COUNT)}",
        lambda work: label_by_steering.run(Job("s", order, inputs, work)),
    )


def rows_of(artifact: Artifact) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(artifact.file("steering.parquet")).to_pylist()
    return rows


@pytest.fixture
def steering(made: dict[str, Any], labels: Artifact) -> Artifact:
    return steer(made, labels)


def test_the_model_says_the_word_of_each_latent(steering: Artifact) -> None:
    table = read_labels(steering.file("labels.parquet"))
    assert table.label_s[: len(WORDS)] == WORDS
    assert table.share_s[: len(WORDS)].tolist() == [1.0] * len(WORDS)
    rows = rows_of(steering)
    for latent, word in enumerate(WORDS):
        row = rows[latent]
        assert (row["latent"], row["label"], row["nearest"]) == (latent, word, word)
        assert row["answer"].startswith(f"{word} on")
        assert row["gain"] > 1
        # One answer for each coefficient, in their order.
        coefficients = [context.split(": ")[0] for context in table.contexts_s[latent]]
        assert coefficients == ["1", "2", "4"]
    facts = json.loads(steering.file("blank.json").read_text())
    assert facts["question"] == QUESTION
    assert not set(NOUNS) & set(facts["answer"].split())


def test_latents_of_grounds_have_no_label(steering: Artifact) -> None:
    for row in rows_of(steering)[len(WORDS) :]:
        assert (row["label"], row["gain"]) == (None, 0)
        assert not set(NOUNS) & set(row["answer"].split())


def test_held_out_images_tell_labels_that_hold(
    made: dict[str, Any], labels: Artifact, steering: Artifact
) -> None:
    settings = {
        "split": "test",
        "min_images": 2,
        "bootstrap": BootstrapSettings(resamples=50).model_dump(),
    }
    inputs = {"sae": made["vision_sae"], "labels": labels, "steering": steering}
    inputs |= {role: made[role] for role in ("features", "records")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vision_labels, "sae_block", lambda *_: 0)
        found = publish(
            made["root"],
            f"vision_labels_{next(COUNT)}",
            lambda work: vision_labels.run(Job("v", settings, inputs, work)),
        )
    result = read_result(found)
    nouns = [row["label"] for row in rows_of(steering)[: len(WORDS)]]
    assert nouns == list(WORDS)
    items = pq.read_table(found.file("items.parquet")).to_pylist()
    scored = {(r["labeller"], r["latent"]): r["auroc"] for r in items}
    for latent in range(len(WORDS)):
        assert scored["steering", latent] == scored["top_images", latent] == 1
        assert scored["embedding", latent] == 1
        # A word's latent is silent on all images of the others: no order, or the wrong one.
        assert scored["shuffled", latent] < 0.55
    assert result["auroc"]["top_images"]["n"] == len(WORDS)
    assert result["auroc"]["top_images"]["value"] == 1
    assert result["differences"]["top_images"] == {
        "value": 0,
        "ci_low": None,
        "ci_high": None,
        "chance": 0,
        "n": len(WORDS),
    }
    agreement = result["agreement"]
    assert (agreement["value"], agreement["n"]) == (1, len(WORDS))
    assert agreement["chance"] == pytest.approx(1 / len(WORDS))
    assert result["coverage"]["top_images"]["n"] == result["latents"]
    figures = {(row["metric"], row["of"]) for row in read_rows(found)}
    assert ("vision_label_auroc", "shuffled") in figures


def test_a_coefficient_of_zero_gives_the_blank_and_no_label(
    made: dict[str, Any], labels: Artifact
) -> None:
    still = steer(made, labels, coefficients=[0])
    blank = json.loads(still.file("blank.json").read_text())["answer"]
    for row in rows_of(still):
        assert (row["answer"], row["label"], row["gain"]) == (blank, None, 0)
    assert set(read_labels(still.file("labels.parquet")).label_s) == {None}


def test_a_batch_changes_no_answer(
    made: dict[str, Any], labels: Artifact, steering: Artifact
) -> None:
    wanted = rows_of(steering)
    for size in (1, 4):
        for row, same in zip(rows_of(steer(made, labels, batch_size=size)), wanted, strict=True):
            assert row["gain"] == pytest.approx(same["gain"], abs=1e-4)
            assert {**row, "gain": 0} == {**same, "gain": 0}


def test_the_most_active_latents_are_steered(made: dict[str, Any], labels: Artifact) -> None:
    density_s = read_labels(labels.file("labels.parquet")).density_s
    few = steer(made, labels, latents=3, coefficients=[1])
    found = [row["latent"] for row in rows_of(few)]
    assert found == sorted(np.argsort(-density_s, kind="stable")[:3].tolist())
    table = read_labels(few.file("labels.parquet"))
    assert len(table.label_s) == len(density_s)
    assert [s for s, contexts in enumerate(table.contexts_s) if contexts] == found


def test_latents_that_fire_are_ordered_by_their_patches() -> None:
    density_s, strength_s = np.array([0.1, 0.9, 0.4, 0.4]), np.array([1.0, 0.0, 2.0, 3.0])
    assert most_active(density_s, strength_s, None).tolist() == [0, 2, 3]
    assert most_active(density_s, strength_s, 1).tolist() == [2]


def test_an_answer_that_names_nothing_never_counts_before_one_that_does() -> None:
    silent, low = Answer(1, "sand", None, 0.0), Answer(2, "a cat", "cat", -1.0)
    high = Answer(4, "a dog", "dog", 2.0)
    assert chosen_answer([silent, low, high]) == high
    assert chosen_answer([silent, low]) == low
    assert chosen_answer([silent, silent]) is silent
    assert (label_of(high), label_of(low), label_of(silent)) == ("dog", None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two Cats and a dog", "cat"),
        ("a hot dog, a dog", "hot dog"),
        ("a category", None),
        ("", None),
    ],
)
def test_the_first_name_is_a_whole_word(text: str, expected: str | None) -> None:
    names = ("dog", "cat", "hot dog")
    assert first_name(text, phrase_table({name: [name] for name in names})) == expected


def other_sae(made: dict[str, Any], d_in: int, d_sae: int) -> Artifact:
    weights = {
        "W_enc": torch.ones(d_in, d_sae),
        "W_dec": torch.ones(d_sae, d_in),
        "b_dec": torch.zeros(d_in),
        "b_enc": torch.zeros(d_sae),
    }
    sae = SparseAutoencoder(SaeConfig("standard", d_in, d_sae, 0, "other"), weights)
    return publish(made["root"], f"other_sae_{next(COUNT)}", lambda work: save_sae(work, sae))


def test_what_does_not_belong_together_is_refused(
    made: dict[str, Any], labels: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="d_in 8, but the features have 32 channels; choose the"):
        steer(made, labels, sae=other_sae(made, 8, 7))
    with pytest.raises(UserError, match="the labels have 7 latents, SAE other has 5"):
        steer(made, labels, sae=other_sae(made, 32, 5))
    with pytest.raises(UserError, match="prompt is null, and no training image has a question"):
        steer(made, labels, prompt=None)
    blank_pv = np.zeros((4, 32), np.float32)
    monkeypatch.setattr(blank_image, "blank_features", lambda *_: blank_pv)
    with pytest.raises(UserError, match=r"a blank image \(4, 32\) features, but .* \(9, 32\)"):
        steer(made, labels)


@pytest.mark.parametrize(
    ("role", "parent", "expected"),
    [
        ("sae", "features", "an SAE of other features than"),
        ("labels", "sae", "labels of another SAE than"),
    ],
)
def test_an_artifact_of_another_encoder_is_refused(
    made: dict[str, Any], labels: Artifact, role: str, parent: str, expected: str
) -> None:
    source = {"sae": made["vision_sae"], "labels": labels}[role]
    stranger = replace(source, manifest={**source.manifest, "inputs": {parent: "0" * 64}})
    with pytest.raises(UserError, match=expected):
        if role == "labels":
            steer(made, stranger)
        else:
            steer(made, labels, **{role: stranger})


def test_a_step_is_what_the_sae_writes_at_its_strongest(
    made: dict[str, Any], labels: Artifact
) -> None:
    sae = load_sae(made["vision_sae"].path)
    weights = load_file(made["vision_sae"].path / "sae.safetensors")
    # The same SAE with decoder rows of another length and activations to match steers the same.
    scaled = {
        **weights,
        "W_enc": weights["W_enc"] * 5,
        "b_enc": weights["b_enc"] * 5,
        "W_dec": weights["W_dec"] / 5,
    }
    twin = SparseAutoencoder(sae.config, scaled)
    artifact = publish(made["root"], f"twin_{next(COUNT)}", lambda work: save_sae(work, twin))
    same = rows_of(steer(made, labelled(made, artifact), sae=artifact))
    for row, twin_row in zip(rows_of(steer(made, labels)), same, strict=True):
        assert row["answer"] == twin_row["answer"]
        assert row["gain"] == pytest.approx(twin_row["gain"], abs=1e-3)


def test_answers_fit_the_top_images_of_their_latents(
    made: dict[str, Any], labels: Artifact
) -> None:
    settings = {"split": "test", "min_images": 2}
    answers = steer(made, labels, coefficients=[4])
    inputs = {"labels": labels, "steering": answers, "other": made["features"]}
    inputs |= {role: made[role] for role in ("features", "records")}
    found = publish(
        made["root"],
        f"steering_score_{next(COUNT)}",
        lambda work: steering_score.run(Job("s", settings, inputs, work)),
    )
    result = read_result(found)
    assert (result["blank"], result["latents"]) == (None, len(WORDS) + 2)
    # Of the grounds' latents the answers name no class.
    assert result["named"]["steered"]["value"] == 1
    assert result["named"]["blank"]["value"] == 0
    cosines = [row["cosine"] for row in pq.read_table(found.file("items.parquet")).to_pylist()]
    assert min(cosines[: len(WORDS)]) > 0.8 and cosines[len(WORDS) :] == [0, 0]
    assert result["gain"]["blank"]["value"] == pytest.approx(np.mean(cosines))
