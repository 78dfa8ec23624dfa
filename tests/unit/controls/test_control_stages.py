"""The stages of controls on a random language model: the scale of text, and the best scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.published import publish
from tests.tiny_llm import tiny_llama
from vista.config.projector import LatentsSettings
from vista.data.records import Box, Object, Record, Turn, write_records
from vista.engine.artifacts import Artifact
from vista.engine.job import Job
from vista.errors import UserError
from vista.metrics.matching_rate import MatchingSettings
from vista.projector.control_tokens import FACTS
from vista.projector.module import load_projector, make_projector, save_projector
from vista.sae.label_table import LatentLabels, write_labels
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.stages import choose_scale, control_tokens, latents
from vista.store.features import FeatureWriter
from vista.store.latents import LatentReader

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "cat", "dog", "on", "sand", "what", "?"]
D_VISION, D_MODEL, D_SAE, N, LAYER = 5, 16, 24, 8, 1
LLM = {"source": {"kind": "standin", "family": "llama"}, "template": "none"}


def factor(control: Artifact) -> float:
    facts = json.loads(control.file(FACTS).read_text())["facts"]
    return float(facts["factor"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("artifacts")
    records = [
        Record(
            f"image_{i}",
            "validation" if i % 2 else "test",
            f"image_{i}.png",
            16,
            16,
            captions=("cat on sand" if i < 4 else "dog",),
            turns=(Turn("what ?", "cat on sand" if i < 4 else "dog"),),
            objects=(Object("cat" if i < 4 else "dog", Box(0.0, 0.0, 8.0, 8.0)),),
        )
        for i in range(N)
    ]

    def write_llm(work: Path) -> None:
        llm = tiny_llama(WORDS, D_MODEL, blocks=3)
        llm.model.save_pretrained(work / "model")
        llm.tokenizer.save_pretrained(work / "model")

    def write_features(work: Path) -> None:
        writer = FeatureWriter(
            work / "features.zarr", [r.image_id for r in records], (2, 2), D_VISION, "float32"
        )
        values = np.random.default_rng(0).normal(size=(N, 4, D_VISION))
        writer.write_shard(0, values.astype(np.float32))
        writer.close()
        placing = {"size": 16, "patch": 8, "fit": "pad"}
        (work / "geometry.json").write_text(json.dumps(placing))

    def write_sae(work: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        config = SaeConfig("standard", D_MODEL, D_SAE, LAYER, "test")
        shapes = config.weight_shapes()
        weights = {n: 0.3 * torch.randn(s, generator=generator) for n, s in shapes.items()}
        save_sae(work, SparseAutoencoder(config, weights))

    def write_label_table(work: Path) -> None:
        labels = ["cat" if s % 3 == 0 else "dog" if s % 3 == 1 else "sand" for s in range(D_SAE)]
        share, density = (np.full(D_SAE, x, dtype=np.float32) for x in (0.9, 0.001))
        table = LatentLabels(
            LAYER, "test", 100, tuple(labels), share, density, tuple(() for _ in labels)
        )
        write_labels(work / "labels.parquet", table)

    return {
        "root": root,
        "llm": publish(root, "train_llm/m", write_llm),
        "records": publish(
            root, "records/r", lambda w: write_records(w / "records.parquet", records)
        ),
        "features": publish(root, "features/f", write_features),
        "saes": [publish(root, "import_sae/s", write_sae)],
        "labels": [publish(root, "label_latents/l", write_label_table)],
        "projector": publish(
            root,
            "train_projector/p",
            lambda w: save_projector(w, make_projector("linear", D_VISION, D_MODEL, 3, 40.0)),
        ),
    }


def run(
    made: dict[str, Any], stage: Any, name: str, settings: Any, *roles: str, **more: Any
) -> Any:
    inputs = {role: made[role] for role in ("llm", "records", "features", *roles)} | more
    job_settings = {"llm": LLM, **settings}
    return publish(
        made["root"],
        f"{name}/{name}",
        lambda work: stage.run(Job(name, job_settings, inputs, work)),
    )


def encoded(made: dict[str, Any], name: str, **more: Any) -> LatentReader:
    settings: dict[str, Any] = {"latents": LatentsSettings().model_dump(mode="json")}
    if more:
        settings["text_scale"] = True
    artifact = run(made, latents, name, settings, "projector", "saes", **more)
    made[name] = artifact
    return LatentReader(artifact.store("latents.zarr"))


def mean_square(reader: LatentReader, kind: str) -> float:
    everything = slice(0, len(reader.image_ids))
    valid = reader.valid(kind, everything)
    return float(reader.column(LAYER, kind, "norm2", everything)[valid].mean())


def test_in_the_scale_of_text_visual_tokens_have_the_norm_of_the_text_control(
    made: dict[str, Any],
) -> None:
    plain = encoded(made, "plain")
    assert mean_square(plain, "image") > 4 * mean_square(plain, "control")
    scaled = encoded(made, "scaled", unscaled=made["plain"])
    assert mean_square(scaled, "image") == pytest.approx(mean_square(plain, "control"), rel=1e-4)
    # The language model reads the tokens as they are: nothing else changes.
    everything = slice(0, N // 2)
    for kind in ("text", "control"):
        for column in ("norm2", "nnz", "error"):
            np.testing.assert_array_equal(
                scaled.column(LAYER, kind, column, everything),
                plain.column(LAYER, kind, column, everything),
            )


def test_the_best_scale_is_that_of_the_largest_matching_rate(made: dict[str, Any]) -> None:
    matching = MatchingSettings.model_validate(
        {"mask": {"max_image_share": 1.0}, "top_k": 1, "other_k": []}
    )
    settings = {
        "scale": {"norms": [0.5, 1.0, 4.0]},
        "matching": matching.model_dump(mode="json"),
        "latents": LatentsSettings().model_dump(mode="json"),
    }
    artifact = run(made, choose_scale, "choose_scale", settings, "projector", "saes", "labels")
    tried = pq.read_table(artifact.file("scales.parquet")).to_pydict()
    assert tried["factor"][0] == 1.0 and len(tried["factor"]) == 4
    assert tried["n"] == [N // 2] * 4
    np.testing.assert_allclose(tried["norm_of_text"][1:], [0.5, 1.0, 4.0], rtol=1e-5)
    best = int(np.argmax(tried["matching_rate"]))
    assert factor(artifact) == tried["factor"][best]
    chosen, own = (
        load_projector(a.path, d_vision=D_VISION, d_model=D_MODEL)
        for a in (artifact, made["projector"])
    )
    torch.testing.assert_close(
        chosen.linears()[0].weight, tried["factor"][best] * own.linears()[0].weight
    )
    settings["scale"] = {"split": "train"}
    with pytest.raises(UserError, match=r"best_scale\.split 'train': no image"):
        run(made, choose_scale, "refused", settings, "projector", "saes", "labels")


def test_a_control_is_made_by_its_stage(made: dict[str, Any]) -> None:
    order = {
        "control": "norm_matched",
        "settings": {},
        "splits": ["test", "validation"],
        "seed": 0,
    }
    small = publish(
        made["root"],
        "train_projector/small",
        lambda w: save_projector(w, make_projector("linear", D_VISION, D_MODEL, 3, 4.0)),
    )
    artifact = run(made, control_tokens, "control_tokens", order, "projector", reference=small)
    assert factor(artifact) == pytest.approx(0.1, rel=1e-5)
