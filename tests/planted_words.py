"""A model that reads planted words out of image features, and directions and edits on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from vista.config.edits import DirectionSettings, EditSettings
from vista.config.language import LanguageSettings, StandinLlm
from vista.config.projector import LatentsSettings
from vista.data.records import (
    Box,
    Object,
    Record,
    Turn,
    write_records,
    write_text,
)
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.interventions.directions import Directions, read_directions
from vista.language.model import LanguageModel
from vista.projector.module import make_projector, save_projector
from vista.sae.label_table import LatentLabels, write_labels
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.stages import directions, edit_captions, latents, train_llm
from vista.standins import llm as standin
from vista.store.features import FeatureWriter

NOUNS = ("cat", "dog", "anchor", "umbrella", "star", "cloud")
GROUNDS = ("sand", "grass")
QUESTION = "what is here ?"
SOURCE = StandinLlm(family="llama", d_model=32, n_blocks=2, n_heads=2, d_mlp=32, steps=300, seed=1)
N_SELECT, N_TEST = 24, 18
SIDE = 8.0


def publish(root: Path, stage: str, write: Callable[[Path], object]) -> Artifact:
    with publishing(root, stage, "node", Provenance(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "node")


def place(i: int) -> int:
    """The row of the 3 x 3 grid that image `i` has its object in."""
    return i % 3


def records() -> list[Record]:
    found = []
    for i in range(N_SELECT + N_TEST):
        noun, ground = NOUNS[i % len(NOUNS)], GROUNDS[(i // 3) % 2]
        objects = [Object(noun, Box(0.0, SIDE * place(i), 3 * SIDE, SIDE))]
        if i == N_SELECT + N_TEST - 1:
            objects.append(objects[0])  # two objects: not to be edited
        found.append(
            Record(
                f"image_{i}",
                "validation" if i < N_SELECT else "test",
                f"image_{i}.png",
                24,
                24,
                captions=(f"{noun} on {ground}",),
                turns=(Turn(QUESTION, f"{noun} on {ground}"),),
                objects=tuple(objects),
            )
        )
    return found


def opening(noun: str, ground: str, at: Iterable[int]) -> str:
    words = np.full(9, ground, dtype=object)
    words[list(at)] = noun
    return " ".join(words)


build_model = standin.build_model


def without_first_attention(*args: Any) -> Any:
    """A model whose block 0 moves nothing between tokens: text can read what is planted only in
    the later blocks, so an edit after block 0 decides what is read."""
    model = build_model(*args)
    weight = model.model.layers[0].self_attn.o_proj.weight
    weight.data.zero_()
    weight.requires_grad_(False)
    return model


def make(root: Path) -> dict[str, Any]:
    """Every artifact that directions and edits read, by role, below `root`."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    def documents(n: int) -> list[str]:
        drawn = zip(rng.choice(NOUNS, n), rng.choice(GROUNDS, n), strict=True)
        return [
            f"{opening(noun, ground, rng.choice(9, 3, replace=False))}\t{QUESTION}\t"
            f"{noun} on {ground}"
            for noun, ground in drawn
        ]

    texts = {"train": documents(800), "heldout": documents(50)}
    text = publish(root, "text", lambda work: write_text(work / "text.parquet", texts))
    settings = SOURCE.model_dump(mode="json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standin, "build_model", without_first_attention)
        llm = publish(
            root, "train_llm", lambda work: train_llm.run(Job("n", settings, {"text": text}, work))
        )
    model = LanguageModel.load(llm.folder("model"))
    every = records()

    def write_features(work: Path) -> None:
        words = [
            opening(r.objects[0].category, r.captions[0].split()[-1], range(3 * p, 3 * p + 3))
            for r, p in zip(every, map(place, range(len(every))), strict=True)
        ]
        stream_bpd = model.embed(torch.tensor(model.tokenizer(words)["input_ids"]))[:, 1:].numpy()
        ids = [r.image_id for r in every]
        writer = FeatureWriter(work / "features.zarr", ids, (3, 3), model.d_model)
        writer.write_shard(0, stream_bpd)
        writer.close()
        (work / "geometry.json").write_text('{"size": 24, "patch": 8, "fit": "pad"}')

    def write_projector(work: Path) -> None:
        projector = make_projector("linear", model.d_model, model.d_model, 0)
        with torch.no_grad():
            projector.linears()[0].weight.copy_(torch.eye(model.d_model))
            projector.linears()[0].bias.zero_()
        save_projector(work, projector)

    base = {
        "root": root,
        "llm": llm,
        "records": publish(root, "records", lambda w: write_records(w / "records.parquet", every)),
        "features": publish(root, "features", write_features),
        "projector": publish(root, "train_projector", write_projector),
    }
    return base | latent_inputs(root, model, base)


def latent_inputs(root: Path, model: LanguageModel, base: dict[str, Any]) -> dict[str, Any]:
    """An SAE after block 0 and one on the features with a latent for every noun but the last, and
    one for each ground."""
    words = [*NOUNS[:-1], *GROUNDS]
    every = [*NOUNS, *GROUNDS]
    ids = torch.tensor(model.tokenizer([" ".join([word] * 9) for word in every])["input_ids"])
    stream = model.forward(ids, taps=[0], stop_after=0).taps[0][:, 1:].mean(1)
    found: dict[str, Any] = {}
    for role, means_sd in (("sae", stream), ("vision_sae", model.embed(ids)[:, 1:].mean(1))):
        centre_d = means_sd.mean(0)
        kept = [every.index(word) for word in words]
        weights = {
            "W_enc": torch.linalg.pinv((means_sd - centre_d)[kept]),
            "W_dec": (means_sd - centre_d)[kept].clone(),
            "b_dec": centre_d,
            "b_enc": torch.full((len(words),), -0.3),
        }
        config = SaeConfig("standard", model.d_model, len(words), 0, role)
        sae = SparseAutoencoder(config, weights)
        artifact = publish(root, role, lambda work, sae=sae: save_sae(work, sae))
        share = np.full(len(words), 0.9, np.float32)
        table = LatentLabels(0, role, 1, tuple(words), share, share / 9, ((),) * len(words))
        record = Provenance("labels", {}, {"sae": artifact.digest}, "code", {})
        with publishing(root, f"labels_{role}", "node", record) as work:
            assert work is not None
            write_labels(work / "labels.parquet", table)
        labels = open_artifact(root / f"labels_{role}" / "node")
        found |= {role: artifact, f"labels_{role}": labels}
    inputs = {role: base[role] for role in ("llm", "records", "features", "projector")}
    inputs["saes"] = [found["sae"]]
    own = {"llm": llm_settings(), "latents": LatentsSettings(split="validation").model_dump()}
    record = Provenance("latents", {}, {"saes": [found["sae"].digest]}, "code", {})
    with publishing(root, "latents", "node", record) as work:
        assert work is not None
        latents.run(Job("latents", own, inputs, work))
    return found | {"latents": open_artifact(root / "latents" / "node")}


def llm_settings() -> dict[str, Any]:
    whole = LanguageSettings(source=SOURCE).model_dump(mode="json")
    return whole | {"source": {"kind": "standin", "family": "llama"}}


_COUNT: Iterator[int] = iter(range(1000))


def find(made: dict[str, Any], method: str, **changes: Any) -> Artifact:
    settings = DirectionSettings(method=method, **changes).model_dump(mode="json")
    inputs = {role: made[role] for role in ("records", "features", "projector", "llm", "latents")}
    inputs |= {"saes": [made["sae"]], "labels": [made["labels_sae"]]}
    if method == "vision_latent":
        inputs |= {"vision_sae": made["vision_sae"], "labels": made["labels_vision_sae"]}
    own = {"directions": settings, "llm": llm_settings()}
    name = f"directions_{next(_COUNT)}"
    return publish(made["root"], name, lambda work: directions.run(Job("d", own, inputs, work)))


def read(artifact: Artifact) -> Directions:
    return read_directions(artifact, {"stream": 32, "features": 32})


def edit_job(made: dict[str, Any], found: Artifact, work: Path, **changes: Any) -> Job:
    control = {"control": changes.pop("control")} if "control" in changes else {}
    given = {"split": "test", "blocks": (0,), "max_new_tokens": 4, "batch_size": 11, **changes}
    inputs = {role: made[role] for role in ("records", "features", "projector", "llm")}
    inputs |= {"directions": found, "saes": [made["sae"]], "vision_sae": made["vision_sae"]}
    own = {"llm": llm_settings(), "edit": EditSettings(**given).model_dump(mode="json"), **control}
    return Job("edit_captions", own, inputs, work)


def edit(made: dict[str, Any], found: Artifact, **changes: Any) -> tuple[list[Any], dict[str, Any]]:
    name = f"edit_captions_{next(_COUNT)}"
    artifact = publish(
        made["root"], name, lambda work: edit_captions.run(edit_job(made, found, work, **changes))
    )
    facts = json.loads(artifact.file("edits.json").read_text())
    return pq.read_table(artifact.file("captions.parquet")).to_pylist(), facts


def named(rows: list[Any], variant: str, key: str = "source", coefficient: float = -1) -> float:
    """Share of a variant's captions, of concepts with a direction, that name source or target."""
    chosen = [
        key_in(row, key)
        for row in rows
        if row["variant"] == variant
        and row["found"]
        and (coefficient < 0 or row["coefficient"] == coefficient)
    ]
    return float(np.mean(chosen))


def key_in(row: dict[str, Any], key: str) -> bool:
    return row[key] in row["caption"].split()
