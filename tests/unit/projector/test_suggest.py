"""Suggestions for training: what they try, what they choose, and the reasons that they give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_llm import tiny_llama
from vista.config.projector import TrainingStage
from vista.config.suggest import SuggestSettings
from vista.data.records import Turn
from vista.projector import suggest as module
from vista.projector.passes import TrainingData
from vista.projector.suggest import Trials, suggest, table
from vista.sae.neutral import SaeConfig, SparseAutoencoder

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "what", "?", "cat", "dog", "on", "sand"]
D_MODEL, D_VISION, PATCHES, N = 16, 12, 4, 24


def trials(kind: str = "linear", **settings: Any) -> Trials:
    generator = torch.Generator().manual_seed(0)
    of_sae = SaeConfig("standard", D_MODEL, 32, 0, "test")
    weights = {
        name: 0.3 * torch.randn(shape, generator=generator)
        for name, shape in of_sae.weight_shapes().items()
    }
    features = np.random.default_rng(0).normal(size=(N, PATCHES, D_VISION)).astype(np.float16)
    turns = [[Turn("what ?", "cat on sand" if i % 2 else "dog")] for i in range(N)]
    data = TrainingData(turns, PATCHES, lambda rows: features[rows])
    return Trials(
        llm=tiny_llama(WORDS, D_MODEL),
        saes={0: SparseAutoencoder(of_sae, weights)},
        kind=kind,
        d_vision=D_VISION,
        train=data,
        held_out=data,
        stage=TrainingStage(batch_size=8),
        normalise="variance",
        settings=SuggestSettings(**{"steps": 4, "lrs": (1e-3, 3e-2), **settings}),
    )


def test_all_runs_are_told_and_the_same_again() -> None:
    one, two = suggest(trials()), suggest(trials())
    assert one == two
    assert [run["lr"] for run in one["lr"]["trials"]] == [1e-3, 3e-2]
    assert one["lr"]["value"] == 3e-2
    assert "at the edge of suggest.lrs: try higher ones" in one["lr"]["reason"]
    weights = [run["sae_weight"] for run in one["sae_weight"]["trials"]]
    assert weights[0] == 0
    assert weights[1:] == pytest.approx([weights[-1] * f for f in (0.1, 0.3, 1.0)])
    shown = "\n".join(table(one))
    assert all(name in shown for name in ("init_scale", "lr", "sae_weight", "cross_entropy"))


def test_first_weights_are_tried_with_all_learning_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best run is planted in the middle of both; weights are tried with its settings."""

    def trained(_: Trials, scale: float, lr: float, weight: float) -> dict[str, float | None]:
        entropy = abs(np.log(scale / 0.2)) + abs(np.log(lr / 6e-3))
        return {"cross_entropy": float(entropy), "fvu": 1.0 - weight / 10}

    monkeypatch.setattr(Trials, "trained", trained)
    lrs, scales = (2e-3, 6e-3, 2e-2), (0.05, 0.2, 1.0)
    settings = {"lrs": lrs, "init_scales": scales, "weights": (1.0, 0.3)}
    tried = trials(**settings)
    found = suggest(tried)
    runs = found["lr"]["trials"]
    pairs = [(scale, lr) for scale in scales for lr in lrs]
    assert [(run["init_scale"], run["lr"]) for run in runs] == pairs
    assert all(run["sae_weight"] == 0 for run in runs)
    assert (found["init_scale"]["value"], found["lr"]["value"]) == (0.2, 6e-3)
    assert "edge" not in found["init_scale"]["reason"] + found["lr"]["reason"]
    weights = found["sae_weight"]["trials"]
    assert [run["sae_weight"] for run in weights] == [0.0, 0.3, 1.0]
    assert {(run["init_scale"], run["lr"]) for run in weights} == {(0.2, 6e-3)}
    assert found["sae_weight"]["value"] == 0.3
    assert len(runs) + len(weights) - 1 == tried.settings.n_runs == 11
    edge = suggest(trials(**{**settings, "init_scales": (0.5, 0.3)}))["init_scale"]
    assert edge["value"] == 0.3
    assert "at the edge of suggest.init_scales: try lower ones" in edge["reason"]


def test_a_run_with_a_first_scale_is_a_training_from_that_scale() -> None:
    """The SAE error and the FVU of a run are what its projector measures."""
    tried = trials(lrs=(1e-2,), init_scales=(0.5, 2.0), weights=(1.0,))
    runs = suggest(tried)["lr"]["trials"]
    for run in runs:
        again = tried.trained(run["init_scale"], 1e-2, 0.0)
        assert {name: run[name] for name in again} == again
        # The term is the FVU here (normalise: variance).
        assert run["sae_error"] == pytest.approx(run["fvu"], rel=1e-4)
    assert runs[0]["visual_norm"] < runs[1]["visual_norm"]


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_with_the_suggested_scale_visual_tokens_have_the_norm_of_text(kind: str) -> None:
    tried = trials(kind)
    scale = module._init_scale(tried)
    seen = tried.seen(tried.fresh(scale["value"]))
    assert seen["visual_norm"] == pytest.approx(seen["text_norm"], rel=0.02)
    assert tried.fresh(1.0).layers[0].weight.abs().max() < D_VISION**-0.5


def test_the_weight_at_factor_one_makes_both_gradients_equal() -> None:
    tried = trials(weight_factors=(1.0,))
    suggestion = suggest(tried)
    seen = tried.seen(tried.fresh(suggestion["init_scale"]["value"]))
    weight = suggestion["sae_weight"]["trials"][1]["sae_weight"]
    assert weight * seen["term_gradient"] == pytest.approx(seen["entropy_gradient"])


def test_the_smallest_weight_that_lowers_the_fvu_is_suggested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = trials()
    start = tried.seen(tried.fresh(module._init_scale(tried)["value"]))
    equal = start["entropy_gradient"] / start["term_gradient"]
    for falls_from, expected in ((0.2, 2), (100.0, None)):

        def trained(
            _: Trials, __: float, lr: float, weight: float, limit: float = falls_from * equal
        ) -> dict[str, float | None]:
            return {"cross_entropy": lr, "fvu": 0.5 if weight > limit else 0.9}

        monkeypatch.setattr(Trials, "trained", trained)
        found = suggest(tried)["sae_weight"]
        runs = found["trials"]
        assert found["value"] == (None if expected is None else runs[expected]["sae_weight"])
        assert ("no weight lowers" in found["reason"]) is (expected is None)


def test_a_rate_whose_loss_is_not_finite_is_told_and_not_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = module.train_projector

    def diverging(*args: Any, **options: Any) -> Any:
        if args[4].lr > 1:
            raise FloatingPointError
        return plain(*args, **options)

    monkeypatch.setattr(module, "train_projector", diverging)
    tried = trials(lrs=(1e-3, 9.0))
    found = suggest(tried)["lr"]
    assert found["value"] == 1e-3
    assert found["trials"][1]["cross_entropy"] is None
    none = suggest(replace(tried, settings=SuggestSettings(steps=4, lrs=(9.0,))))
    assert none["lr"]["value"] is None
    assert none["sae_weight"]["value"] is None
    assert "not finite" in "\n".join(table(none))
