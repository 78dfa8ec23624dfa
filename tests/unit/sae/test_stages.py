"""The SAE stages one after the other: text -> SAE -> neutral form -> gate -> labels -> naming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vista.config.sae import (
    CacheTextSettings,
    CheckSaeSettings,
    ImportSaeSettings,
    LabelSettings,
    NeuronpediaSettings,
    TrainSaeSettings,
)
from vista.data.records import Box, Object, Record, write_records, write_text
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs import models as loading
from vista.metrics.naming import NamingSettings
from vista.metrics.naming import stage as naming
from vista.stages import cache_text, check_sae, import_sae, label_latents, train_sae

SMALL = TrainSaeSettings(
    d_sae=48, k=4, steps=150, batch_tokens=256, tokens=1200, lr=5e-3, dead_window=20
)


# The settings of a language model that is an input.
LLM = {"source": {"kind": "standin", "family": "llama"}}


def publish(root: Path, stage: str, write: Callable[[Path], None]) -> Artifact:
    with publishing(root, stage, "one", Provenance(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "one")


def run(root: Path, stage: Any, settings: dict[str, Any], **inputs: Any) -> Artifact:
    name = stage.__name__.rsplit(".", 1)[1]
    return publish(root, name, lambda work: stage.run(Job(name, settings, inputs, work)))


@pytest.fixture
def text(tmp_path: Path, texts: list[str]) -> Artifact:
    rows = {"train": texts[:90], "heldout": texts[90:]}
    return publish(tmp_path, "text", lambda work: write_text(work / "text.parquet", rows))


@pytest.fixture
def sae(tmp_path: Path, text: Artifact, llm: Any, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    monkeypatch.setattr(loading, "load_llm", lambda *_: llm)
    recipe = {"llm": LLM, "sae": SMALL.model_dump(), "layer": 0}
    trained = run(tmp_path, train_sae, recipe, text=text)
    assert pq.read_table(trained.file("curve.parquet")).num_rows > 2
    settings = {"sae": {}, "layer": 0, "name": "llama-l0"}
    return run(tmp_path, import_sae, settings, train_sae=trained)


@pytest.mark.parametrize("score_tokens", [0, 400])
def test_from_text_to_named_classes(
    score_tokens: int, tmp_path: Path, text: Artifact, sae: Artifact
) -> None:
    bounds = {"llm": LLM, "check": CheckSaeSettings().model_dump()}
    check = run(tmp_path, check_sae, bounds, sae=sae, text=text)
    figures = json.loads(check.file("result.json").read_text())
    assert figures["sae"] == "llama-l0"
    assert 0 < figures["fvu"] < 0.2
    how = LabelSettings(min_share=0.3, score_tokens=score_tokens)
    settings = {"llm": LLM, "labels": how.model_dump()}
    labels = run(tmp_path, label_latents, settings, sae=sae, text=text)

    things = [Object(f"noun{i}", Box(0.0, 0.0, 8.0, 8.0)) for i in range(8)]
    image = Record("a", "train", "a.png", 24, 24, objects=(*things, Object("yeti", things[0].box)))
    records = publish(
        tmp_path, "records", lambda work: write_records(work / "records.parquet", [image])
    )
    settings = NamingSettings(min_share=0.3).model_dump()
    named = run(tmp_path, naming, settings, labels=labels, records=records)
    layer = json.loads(named.file("result.json").read_text())["layers"][0]
    assert "yeti" in layer["unnamed"]
    assert layer["share"]["n"] == 9
    assert layer["share"]["value"] == len(layer["latents"]) / 9 > 0
    rows = pq.read_table(named.file("rows.parquet")).to_pylist()
    assert (rows[0]["metric"], rows[0]["layer"]) == ("named_classes", 0)
    scores = [row["value"] for row in rows[1:] if row["metric"] == "label_auroc"]
    assert len(scores) == len(rows) - 1 == (score_tokens > 0)
    assert all(score > 0.9 for score in scores)


@pytest.mark.parametrize(
    ("kind", "d_sae", "warns"), [("checkpoint", 31, 1), ("checkpoint", 32, 0), ("standin", 31, 0)]
)
def test_fewer_latents_than_the_width_of_a_checkpoint_are_worth_a_warning(
    kind: str, d_sae: int, warns: int, capsys: pytest.CaptureFixture[str]
) -> None:
    train_sae._warn_of_size(TrainSaeSettings(d_sae=d_sae), 32, kind)
    printed = capsys.readouterr().err
    assert printed.count("\n") == warns
    assert ("d_sae: 128" in printed) == warns


def test_the_three_stages_read_a_cache_in_place_of_the_language_model(
    tmp_path: Path, text: Artifact, llm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_llm", lambda *_: llm)
    order = {"llm": LLM, "layers": [0, 1], "cache": CacheTextSettings().model_dump()}
    cache = run(tmp_path, cache_text, order, text=text)
    monkeypatch.setattr(loading, "load_llm", None)  # none of the three may call it
    recipe = {"llm": LLM, "sae": SMALL.model_dump(), "layer": 1}
    trained = run(tmp_path, train_sae, recipe, text=text, cache=cache)
    settings = {"sae": {}, "layer": 1, "name": "llama-l1"}
    sae = run(tmp_path, import_sae, settings, train_sae=trained)
    bounds = {"llm": LLM, "check": CheckSaeSettings(max_fvu=0.35).model_dump()}
    check = run(tmp_path, check_sae, bounds, sae=sae, text=text, cache=cache)
    figures = json.loads(check.file("result.json").read_text())
    assert figures["layer"] == 1
    order = {"llm": LLM, "labels": LabelSettings(min_share=0.3).model_dump()}
    labels = run(tmp_path, label_latents, order, sae=sae, text=text, cache=cache)
    named = pq.read_table(labels.file("labels.parquet"))["label"].to_pylist()
    assert len({name for name in named if name and name.startswith("noun")}) > 4
    with pytest.raises(UserError, match=r"key check_sae\.max_fvu"):
        bounds = {"llm": LLM, "check": CheckSaeSettings(max_fvu=1e-9).model_dump()}
        check_sae.run(Job("check", bounds, {"sae": sae, "text": text, "cache": cache}, tmp_path))


def test_a_bound_fails_the_stage(tmp_path: Path, text: Artifact, sae: Artifact) -> None:
    settings = {"llm": LLM, "check": CheckSaeSettings(max_fvu=1e-6).model_dump()}
    with pytest.raises(UserError, match=r"SAE llama-l0 at layer 0 of llama.*check_sae\.max_fvu"):
        run(tmp_path, check_sae, settings, sae=sae, text=text)
    assert not (tmp_path / "check_sae" / "one" / "manifest.json").exists()


def test_a_wrong_layer_is_refused_at_import(tmp_path: Path, sae: Artifact) -> None:
    folder = str(open_artifact(tmp_path / "train_sae" / "one").path / "sae")
    source = ImportSaeSettings(path=folder).model_dump()
    settings = {"sae": source, "layer": 1, "name": "llama-l1"}
    with pytest.raises(UserError, match="after block 0, but `layer` says 1"):
        import_sae.run(Job("import_sae", settings, {}, tmp_path))


def test_import_from_a_folder_and_from_nowhere(tmp_path: Path, sae: Artifact) -> None:
    trained = open_artifact(tmp_path / "train_sae" / "one")
    source = ImportSaeSettings(path=str(trained.path / "sae"))
    settings = {"sae": source.model_dump(), "layer": 0, "name": "llama-l0"}
    import_sae.run(Job("import_sae", settings, {}, tmp_path))
    # What train_sae converted on the side is what an import of its folder gives.
    for file in ("sae.safetensors", "sae.json"):
        assert (tmp_path / file).read_bytes() == sae.file(file).read_bytes()
    settings["sae"] = ImportSaeSettings().model_dump()
    with pytest.raises(UserError, match="no source"):
        import_sae.run(Job("import_sae", settings, {}, tmp_path))


def test_settings_of_a_source_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="belongs to a `release`"):
        ImportSaeSettings(path="a", release="b", sae_id="c", revision="v2")
    with pytest.raises(ValueError, match="belong together"):
        ImportSaeSettings(release="b")


def test_one_entry_serves_every_layer() -> None:
    source = ImportSaeSettings(path="copies/{layer}", release="r", sae_id="layer_{layer}/16k")
    assert source.for_layer(7) == ImportSaeSettings(
        path="copies/7", release="r", sae_id="layer_7/16k"
    )
    labels = NeuronpediaSettings(model="gemma-2-2b", source="{layer}-gemmascope-res-16k")
    assert labels.for_layer(7).source == "7-gemmascope-res-16k"
    assert NeuronpediaSettings(path="labels/{layer}").for_layer(7).path == "labels/7"
    with pytest.raises(ValueError, match="`model` and `source`"):
        NeuronpediaSettings(model="gemma-2-2b")


def test_records_without_objects_have_nothing_to_name(tmp_path: Path) -> None:
    image = Record("a", "train", "a.png", 24, 24)
    records = publish(
        tmp_path, "records", lambda work: write_records(work / "records.parquet", [image])
    )
    with pytest.raises(UserError, match="no objects"):
        inputs: dict[str, Any] = {"records": records, "labels": records}  # labels are not reached
        naming.run(Job("naming", NamingSettings().model_dump(), inputs, tmp_path))
