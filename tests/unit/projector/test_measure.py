"""What a batch tells beside its loss, and the warm-up of the SAE term."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from vista.config.projector import TrainingStage
from vista.data.records import Turn
from vista.language.model import LanguageModel
from vista.projector.measure import MEASURED, measure
from vista.projector.module import make_projector
from vista.projector.passes import Losses, TrainingData
from vista.projector.ranks import join_ranks
from vista.projector.train import term_weight, train_projector
from vista.sae.neutral import SaeConfig, SparseAutoencoder

D_MODEL, D_VISION, PATCHES, N = 16, 12, 4, 24
STAGE = TrainingStage(steps=6, batch_size=8, lr=1e-2)


@pytest.fixture(scope="module")
def saes() -> dict[int, SparseAutoencoder]:
    made = {}
    for layer in (0, 1):
        generator = torch.Generator().manual_seed(layer)
        config = SaeConfig("standard", D_MODEL, 32, layer, f"test-l{layer}")
        shapes = config.weight_shapes()
        made[layer] = SparseAutoencoder(
            config, {n: 0.3 * torch.randn(s, generator=generator) for n, s in shapes.items()}
        )
    return made


@pytest.fixture(scope="module")
def data() -> TrainingData:
    features = np.random.default_rng(0).normal(size=(N, PATCHES, D_VISION)).astype(np.float16)
    turns = [[Turn("what ?", "cat on sand" if i % 2 else "dog")] for i in range(N)]
    return TrainingData(turns=turns, n_visual=PATCHES, read=lambda rows: features[rows])


def train(
    llm: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    data: TrainingData,
    folder: Path,
    weight: float,
    **changes: Any,
) -> tuple[Any, dict[str, list[float]]]:
    normalise: Literal["none", "variance", "norm"] = changes.pop("normalise", "none")
    projector = make_projector("linear", D_VISION, D_MODEL, seed=7)
    settings = TrainingStage(**{**STAGE.model_dump(), **changes})
    curve = train_projector(
        projector, llm, saes, data, settings, sae_weight=weight, seed=7, checkpoints=folder,
        normalise=normalise,
    )  # fmt: skip
    return projector, curve


def losses(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, **changes: Any
) -> Losses:
    settings = TrainingStage(**{**STAGE.model_dump(), **changes})
    return Losses(llm, saes, data, settings, "none", join_ranks(torch.device("cpu")))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_measuring_changes_nothing_and_fills_the_curve_at_its_steps(
    llm: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    data: TrainingData,
    tmp_path: Path,
    weight: float,
) -> None:
    plain, curve = train(llm, saes if weight else {}, data, tmp_path / "a", weight)
    watched, seen = train(llm, saes, data, tmp_path / "b", weight, measure_every=4)
    assert torch.equal(plain.layers[0].weight, watched.layers[0].weight)
    assert curve["loss"] == seen["loss"]
    assert set(seen) - set(curve) == set(MEASURED)
    for name in MEASURED:
        there = [step for step, value in enumerate(seen[name]) if not math.isnan(value)]
        assert there == [0, 4, 5], name
    errors = [step for step, value in enumerate(seen["sae_error"]) if not math.isnan(value)]
    assert errors == ([0, 1, 2, 3, 4, 5] if weight else [0, 4, 5])


def test_a_killed_run_keeps_what_it_measured(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"measure_every": 2, "checkpoint_every": 3}
    _, whole = train(llm, saes, data, tmp_path / "a", 1.0, **changes)
    settings = TrainingStage(**{**STAGE.model_dump(), **changes})
    projector = make_projector("linear", D_VISION, D_MODEL, seed=7)
    train_projector(
        projector, llm, saes, data, settings, sae_weight=1.0, seed=7, checkpoints=tmp_path / "b",
        stop_at=4,
    )  # fmt: skip
    _, again = train(llm, saes, data, tmp_path / "b", 1.0, **changes)
    assert str(again) == str(whole)


def test_gradients_and_norms_are_those_of_the_batch(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, tmp_path: Path
) -> None:
    projector, chosen = make_projector("linear", D_VISION, D_MODEL, seed=7), np.arange(8)
    found = measure(projector, losses(llm, saes, data), chosen)
    batch = llm.batch(data.turns[:8], PATCHES, 512)
    features = torch.from_numpy(data.read(chosen).astype(np.float32))
    for weight, name in ((0.0, "entropy_gradient"), (1.0, "term_gradient")):
        visual = projector(features)
        out = llm.forward(batch.input_ids, batch.attention_mask, visual=visual, taps=(0, 1))
        assert out.logits is not None
        entropy = torch.nn.functional.cross_entropy(out.logits[batch.predict_mask], batch.targets)
        errors = [
            (sae(out.taps[layer][:, 1:5]) - out.taps[layer][:, 1:5]).square().mean()
            for layer, sae in saes.items()
        ]
        term = torch.stack(errors).mean()
        gradients = torch.autograd.grad(term if weight else entropy, list(projector.parameters()))
        norm = float(torch.cat([part.flatten() for part in gradients]).norm())
        assert found[name] == pytest.approx(norm, rel=1e-4), name
    assert found["term"] == pytest.approx(float(term.detach()), rel=1e-5)
    norms = projector(features).detach().norm(dim=-1)
    assert found["visual_norm"] == pytest.approx(float(norms.square().mean().sqrt()), rel=1e-5)
    text = llm.model.get_input_embeddings()(batch.input_ids)[batch.text_mask].norm(dim=-1)
    assert found["text_norm"] == pytest.approx(float(text.square().mean().sqrt()), rel=1e-5)
    assert all(value.grad is None for value in projector.parameters())


def test_parts_of_a_batch_are_measured_as_the_whole(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData
) -> None:
    projector, chosen = make_projector("linear", D_VISION, D_MODEL, seed=7), np.arange(8)
    whole, parts = (
        measure(projector, losses(llm, saes, data, micro_batch=size), chosen) for size in (8, 3)
    )
    assert parts == pytest.approx(whole, rel=1e-4)


def test_without_saes_only_what_needs_them_is_missing(
    llm: LanguageModel, data: TrainingData
) -> None:
    projector = make_projector("linear", D_VISION, D_MODEL, seed=7)
    found = measure(projector, losses(llm, {}, data), np.arange(8))
    missing = {name for name, value in found.items() if math.isnan(value)}
    assert missing == {"term", "fvu", "l0", "term_gradient"}


def test_the_weight_of_the_term_rises_over_its_share_of_the_steps() -> None:
    settings = TrainingStage(sae_warmup=0.4)
    weights = [term_weight(step, 10, 2.0, settings) for step in range(10)]
    assert weights == [0.0, 0.5, 1.0, 1.5, *[2.0] * 6]
    assert term_weight(0, 10, 2.0, TrainingStage()) == 2.0


def test_the_loss_of_a_step_has_the_weight_of_that_step(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, tmp_path: Path
) -> None:
    _, curve = train(llm, saes, data, tmp_path, 2.0, sae_warmup=0.5)
    columns = zip(curve["loss"], curve["cross_entropy"], curve["sae_error"], strict=True)
    weights = [(loss - entropy) / error for loss, entropy, error in columns]
    assert weights == pytest.approx([0, 2 / 3, 4 / 3, 2, 2, 2], abs=1e-6)


@pytest.mark.parametrize("normalise", ["variance", "norm"])
def test_a_normalised_term_is_learnt_the_same_in_parts(
    llm: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    data: TrainingData,
    tmp_path: Path,
    normalise: str,
) -> None:
    gentle = {"lr": 1e-3, "normalise": normalise}
    _, whole = train(llm, saes, data, tmp_path / "a", 1.0, **gentle)
    _, parts = train(llm, saes, data, tmp_path / "b", 1.0, micro_batch=3, **gentle)
    _, raw = train(llm, saes, data, tmp_path / "c", 1.0, lr=1e-3)
    for name in ("loss", "sae_error", "gradient_norm"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-4), name
    assert whole["gradient_norm"] != pytest.approx(raw["gradient_norm"], rel=1e-2)
