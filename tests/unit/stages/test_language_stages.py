"""train_llm and caption on images whose features are words that the language model knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from vista.config.language import LanguageSettings, StandinLlm
from vista.config.report import ReportSettings
from vista.data.records import Box, Object, Record, Turn, read_records, write_records, write_text
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs.visual_tokens import read_visual_tokens
from vista.language.loss import sample_cross_entropy
from vista.language.model import LanguageModel
from vista.language.reading import Reading
from vista.metrics.caption import CaptionSettings
from vista.metrics.caption import stage as caption
from vista.metrics.results import read_result
from vista.projector.module import make_projector, save_projector
from vista.report.grid import number
from vista.report.inputs import Inputs as ReportInputs
from vista.report.inputs import ReportOrder, read_measured
from vista.report.shown import SuggestionPlace
from vista.report.suggestions import suggestion_notes, tried_section
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.stages import suggest, train_llm
from vista.store.features import FeatureWriter

NOUNS = ("cat", "dog", "anchor", "umbrella", "star", "cloud")
QUESTION = "what is here ?"
SOURCE = StandinLlm(family="llama", d_model=32, n_blocks=2, n_heads=2, d_mlp=32, steps=300, seed=1)
# Places in the store: the first images belong to another split.
N_TRAIN, N_TEST = 5, 24


def publish(root: Path, stage: str, write: Callable[[Path], None]) -> Artifact:
    with publishing(root, stage, "node", Provenance(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "node")


def opening(noun: str, rng: np.random.Generator) -> str:
    words = np.full(9, rng.choice(["sand", "grass"]), dtype=object)
    words[rng.choice(9, 3, replace=False)] = noun
    return " ".join(words)


def records() -> list[Record]:
    found = []
    for i in range(N_TRAIN + N_TEST):
        noun = NOUNS[i % len(NOUNS)]
        split = "train" if i < N_TRAIN else "test"
        found.append(
            Record(
                f"image_{i}",
                split,
                f"image_{i}.png",
                24,
                24,
                turns=(Turn(QUESTION, noun), Turn("what else ?", "nothing")),
                objects=(Object(noun, Box(0.0, 0.0, 8.0, 8.0)),),
                group=None if split == "train" else "new" if i % 3 else "seen",
            )
        )
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("artifacts")
    rng = np.random.default_rng(0)

    def documents(n: int) -> list[str]:
        nouns = rng.choice(NOUNS, n)
        return [f"{opening(noun, rng)}\t{QUESTION}\t{noun}" for noun in nouns]

    text = publish(
        root,
        "text",
        lambda work: void(
            write_text(work / "text.parquet", {"train": documents(800), "heldout": documents(50)})
        ),
    )
    llm = publish(
        root,
        "train_llm",
        lambda work: train_llm.run(Job("n", SOURCE.model_dump(mode="json"), {"text": text}, work)),
    )
    model = LanguageModel.load(llm.folder("model"))
    all_records = records()

    def write_features(work: Path) -> None:
        words = [opening(record.objects[0].category, rng) for record in all_records]
        ids = model.tokenizer(words)["input_ids"]
        stream_bpd = model.embed(torch.tensor(ids))[:, 1:].numpy()
        writer = FeatureWriter(
            work / "features.zarr", [r.image_id for r in all_records], (3, 3), model.d_model
        )
        writer.write_shard(0, stream_bpd)
        writer.close()

    def write_projector(work: Path) -> None:
        projector = make_projector("linear", model.d_model, model.d_model, 0)
        with torch.no_grad():
            projector.layers[0].weight.copy_(torch.eye(model.d_model))
            projector.layers[0].bias.zero_()
        save_projector(work, projector)

    return {
        "root": root,
        "llm": llm,
        "records": publish(
            root, "records", lambda work: void(write_records(work / "records.parquet", all_records))
        ),
        "features": publish(root, "features", write_features),
        "projector": publish(root, "train_projector", write_projector),
    }


def void(_: object) -> None:
    """Lets a function that returns something be used where nothing may be."""


def run_caption(made: dict[str, Any], stage: str, **changes: Any) -> Artifact:
    llm = LanguageSettings(source=SOURCE).model_dump(mode="json")
    llm["source"] = {"kind": "standin", "family": "llama"}
    settings = CaptionSettings(max_new_tokens=4, batch_size=7, **changes).model_dump(mode="json")
    inputs = {role: made[role] for role in ("llm", "records", "features", "projector")}
    job_settings = {"llm": llm, "caption": settings}
    return publish(
        made["root"], stage, lambda work: caption.run(Job("n", job_settings, inputs, work))
    )


def test_train_llm_writes_a_model_and_its_curve(made: dict[str, Any]) -> None:
    curve = pq.read_table(made["llm"].file("curve.parquet")).to_pydict()
    assert curve["step"][-1] == SOURCE.steps
    assert curve["heldout_loss"][-1] < 0.5 * curve["heldout_loss"][0]
    assert made["llm"].folder("model").is_dir()


def test_captions_name_what_the_features_say(made: dict[str, Any]) -> None:
    """Fails if an image gets the tokens of another, as when a split is not mapped to the store."""
    artifact = run_caption(made, "caption")
    test = [record for record in records() if record.split == "test"]
    table = pq.read_table(artifact.file("captions.parquet")).to_pydict()
    assert table["image_id"] == [record.image_id for record in test]
    assert table["reference"] == [record.turns[0].answer for record in test]
    assert table["question"] == [QUESTION] * N_TEST
    named = [c == r for c, r in zip(table["caption"], table["reference"], strict=True)]
    assert np.mean(named) > 0.9
    result = read_result(artifact)
    assert result["n_images"] == N_TEST
    assert result["one_object_named"]["value"] == pytest.approx(np.mean(named))
    new = [c for c, record in zip(named, test, strict=True) if record.group == "new"]
    assert result["groups"]["new"]["one_object_named"]["n"] == len(new) < N_TEST
    assert result["groups"]["new"]["one_object_named"]["value"] == pytest.approx(np.mean(new))
    # Five in six other images show another noun: the model is sure of the wrong word.
    assert result["cross_entropy"]["chance"] > 20 * result["cross_entropy"]["value"]
    items = pq.read_table(artifact.file("items.parquet")).to_pydict()
    assert items["tokens"] == [2] * N_TEST  # the first answer and its end, no second turn
    mean = sum(items["loss_sum"]) / sum(items["tokens"])
    assert result["cross_entropy"]["value"] == pytest.approx(mean)


def suggested(made: dict[str, Any], name: str, split: str) -> Artifact:
    def write_sae(work: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        config = SaeConfig("standard", SOURCE.d_model, 64, 0, "test")
        shapes = config.weight_shapes()
        save_sae(
            work,
            SparseAutoencoder(
                config, {n: 0.3 * torch.randn(s, generator=generator) for n, s in shapes.items()}
            ),
        )

    llm = LanguageSettings(source=SOURCE).model_dump(mode="json")
    llm["source"] = {"kind": "standin", "family": "llama"}
    settings = {
        "llm": llm,
        "training": {"batch_size": 4},
        "kind": "linear",
        "sae_dtype": "float32",
        "sae_term": {"normalise": "variance"},
        "suggest": {"lrs": [1e-3, 1e-2], "steps": 3, "split": split, "images": 6},
    }
    inputs = {role: made[role] for role in ("llm", "records", "features")}
    saes = [publish(made["root"], f"sae-{name}", write_sae)]
    return publish(
        made["root"],
        name,
        lambda work: suggest.run(Job("suggest", settings, {**inputs, "saes": saes}, work)),
    )


def test_a_suggestion_is_kept_printed_and_shown_in_the_report(
    made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = suggested(made, "suggest", "test")
    kept = json.loads(artifact.file("suggest.json").read_text())
    assert [run["lr"] for run in kept["lr"]["trials"]] == [1e-3, 1e-2]
    assert len(kept["sae_weight"]["trials"]) == 4
    assert "init_scale" in capsys.readouterr().out
    best = kept["lr"]["value"]
    place = SuggestionPlace(encoder="e", llm="m|_", init_scale=9.0, lr=best, sae_weights=(0.0,))
    order = ReportOrder(name="n", report=ReportSettings(), suggestions=(place,))
    measured = read_measured(order, ReportInputs(suggestions=[artifact]))
    (note,) = suggestion_notes(measured)
    assert "from e to m|_, and not used by itself" in note
    assert f"lr {best:.3g} (lowest cross-entropy" in note
    # Two learning rates, then three weights with the better one.
    rows = tried_section(measured.suggestions).grids[0].rows
    runs = [*kept["lr"]["trials"], *kept["sae_weight"]["trials"][1:]]
    assert len(rows) == len(runs) == 5
    for row, tried in zip(rows, runs, strict=True):
        is_best, plain = tried["lr"] == best, tried["sae_weight"] == 0
        assert row[2] == f"{tried['init_scale']:.3g}"
        assert row[3] == (f"**{best:.3g}**" if is_best else f"{tried['lr']:.3g}")
        assert row[4] == ("**0**" if plain else f"{tried['sae_weight']:.3g}")
        assert row[5:9] == [number(tried[n]) for n in ("cross_entropy", "sae_error", "fvu", "l0")]
        assert row[10] == ("yes" if tried["sae_weight"] == kept["sae_weight"]["value"] else "")
    text = tried_section(measured.suggestions).markdown()
    assert "Settings of training that were tried" in text
    assert r"m&#124;\_" in text


def test_a_suggestion_without_images_to_compare_on_is_refused(made: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"suggest: no image of split 'validation'"):
        suggested(made, "suggest-none", "validation")


def test_no_image_is_its_own_other() -> None:
    readers = caption._readers(5, seed=3)
    assert sorted(readers) == list(range(5))
    assert all(readers != range(5))


@pytest.mark.parametrize("questions", [[QUESTION], [QUESTION, "red ?", f"red {QUESTION}"]])
def test_an_image_is_read_once_for_its_caption_and_both_losses(
    made: dict[str, Any], questions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LanguageModel.load(made["llm"].folder("model"))
    table = read_records(made["records"].file("records.parquet"))
    visual = read_visual_tokens(made["projector"], made["features"], table, llm)
    rows = table.rows_of("test").tolist()[:9]
    shown = [
        replace(
            table[row], turns=(Turn(questions[i % len(questions)], table[row].turns[0].answer),)
        )
        for i, row in enumerate(rows)
    ]
    asked = [record.turns[0].question for record in shown]
    readers = caption._readers(9, 0).tolist()
    settings = CaptionSettings(max_new_tokens=4, batch_size=4)
    with torch.no_grad():
        tokens_bpd = visual.of(rows)
        captions = llm.generate(tokens_bpd, asked, 4)
        losses = []
        for texts in (range(9), readers):
            batch = llm.batch([shown[i].turns for i in texts], 9, 64)
            seen = {"visual": tokens_bpd, "logits_at": batch.predict_mask}
            logits_nv = llm.forward(batch.input_ids, batch.attention_mask, **seen).logits
            assert logits_nv is not None
            losses.append(sample_cross_entropy(logits_nv, batch)[0].numpy())
        images: list[int] = []
        reads = LanguageModel.read

        def read(model: LanguageModel, ids_bt: torch.Tensor, *args: Any) -> Reading:
            images.append(len(ids_bt))
            return reads(model, ids_bt, *args)

        monkeypatch.setattr(LanguageModel, "read", read)
        read_once = caption._read(visual, shown, rows, asked, settings)
    assert sum(images) == 9
    assert read_once.captions == captions
    np.testing.assert_allclose(read_once.loss_b, losses[0], rtol=1e-4, atol=1e-5)
    assert read_once.shuffled_b is not None
    np.testing.assert_allclose(read_once.shuffled_b[readers], losses[1], rtol=1e-4, atol=1e-5)


def test_a_split_without_images_is_named(made: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"caption\.split 'validation'"):
        run_caption(made, "caption_none", split="validation")
