"""The projector: its file form, the SAE term, and training that a kill does not change."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vista.config.projector import TrainingStage
from vista.data.records import Turn
from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.projector.loss import sae_term
from vista.projector.module import load_projector, make_projector, save_projector
from vista.projector.passes import TrainingData
from vista.projector.train import (
    batch_indices,
    learning_rate,
    train_projector,
)
from vista.sae.neutral import SaeConfig, SparseAutoencoder

D_MODEL, D_VISION, PATCHES, N = 16, 12, 4, 24


def an_sae(layer: int, seed: int = 0) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    config = SaeConfig("standard", D_MODEL, 32, layer, f"test-l{layer}")
    shapes = config.weight_shapes()
    return SparseAutoencoder(
        config, {n: 0.3 * torch.randn(s, generator=generator) for n, s in shapes.items()}
    )


@pytest.fixture(scope="module")
def saes() -> dict[int, SparseAutoencoder]:
    return {0: an_sae(0, 1), 2: an_sae(2, 2)}


@pytest.fixture(scope="module")
def data() -> TrainingData:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N, PATCHES, D_VISION)).astype(np.float16)
    turns = [[Turn("what ?", "cat on sand" if i % 2 else "dog")] for i in range(N)]
    return TrainingData(turns=turns, n_visual=PATCHES, read=lambda rows: features[rows])


SETTINGS = TrainingStage(steps=12, batch_size=8, lr=3e-2, checkpoint_every=5)


def train(
    llm: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    data: TrainingData,
    folder: Path,
    sae_weight: float = 1.0,
    kind: str = "linear",
    settings: TrainingStage = SETTINGS,
    **options: Any,
) -> tuple[Any, dict[str, list[float]]]:
    projector = make_projector(kind, D_VISION, D_MODEL, seed=7)
    curve = train_projector(
        projector,
        llm,
        saes,
        data,
        settings,
        sae_weight=sae_weight,
        seed=7,
        checkpoints=folder / "checkpoints",
        **options,
    )
    return projector, curve


def test_the_sae_term_is_the_mean_over_layers_of_the_error_at_visual_tokens() -> None:
    stream = {1: torch.randn(2, 9, D_MODEL), 2: torch.randn(2, 9, D_MODEL)}
    saes = {1: an_sae(1), 2: an_sae(2, 5)}
    expected = 0.0
    for layer, sae in saes.items():
        total = 0.0
        for b in range(2):
            for p in range(1, 5):
                x = stream[layer][b, p]
                total += float(((sae(x[None])[0] - x) ** 2).sum()) / D_MODEL
        expected += total / 8 / 2
    assert float(sae_term(stream, saes, slice(1, 5))) == pytest.approx(expected, rel=1e-5)


def test_the_target_of_the_sae_term_is_not_detached() -> None:
    x = torch.randn(1, 3, D_MODEL, requires_grad=True)
    sae = an_sae(0)
    sae_term({0: x}, {0: sae}, slice(0, 3)).backward()
    attached = x.grad
    y = x.detach().clone().requires_grad_(True)
    (sae(y) - y.detach()).square().mean().backward()
    assert attached is not None
    assert y.grad is not None
    assert not torch.allclose(attached, y.grad)


def test_in_bfloat16_the_term_and_its_gradient_are_nearly_those_of_float32() -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        stream = torch.randn(2, 6, D_MODEL, generator=torch.Generator().manual_seed(0))
        stream.requires_grad_(True)
        term = sae_term({0: stream}, {0: an_sae(0).to(dtype)}, slice(1, 5))
        term.backward()
        assert term.dtype == torch.float32
        assert stream.grad is not None
        found.append((term.detach(), stream.grad))
    (plain, gradient), (coarse, coarse_gradient) = found
    torch.testing.assert_close(coarse, plain, rtol=0.01, atol=0)
    assert (coarse_gradient - gradient).norm() < 0.02 * gradient.norm()
    assert (coarse_gradient - gradient).norm() > 0


def test_the_last_token_of_a_batch_is_learnt_and_not_read(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, tmp_path: Path
) -> None:
    """The loss of the first step is that of a pass over the whole sequences, which are longer."""
    settings = TrainingStage(steps=1, batch_size=N, lr=1e-9)
    widths = []
    plain = llm.model.forward

    def note(*args: Any, **kwargs: Any) -> Any:
        widths.append(kwargs["input_ids"].shape[1])
        return plain(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm.model, "forward", note)
        projector, curve = train(llm, saes, data, tmp_path, settings=settings)
    batch = llm.batch(data.turns, PATCHES, settings.max_length)
    assert widths == [batch.input_ids.shape[1] - 1]
    with torch.no_grad():
        out = llm.forward(
            batch.input_ids,
            batch.attention_mask,
            visual=projector(torch.from_numpy(data.read(np.arange(N)).astype(np.float32))),
            visual_start=batch.visual_start,
            taps=(0, 2),
        )
        visual = slice(batch.visual_start, batch.visual_start + PATCHES)
        error = sae_term(out.taps, saes, visual)
    assert out.logits is not None
    expected = torch.nn.functional.cross_entropy(out.logits[batch.predict_mask], batch.targets)
    assert curve["cross_entropy"][0] == pytest.approx(float(expected), rel=1e-5)
    assert curve["sae_error"][0] == pytest.approx(float(error), rel=1e-5)


def test_a_sample_without_text_keeps_all_visual_tokens(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, tmp_path: Path
) -> None:
    silent = TrainingData([[] for _ in range(N)], PATCHES, data.read)
    _, curve = train(llm, saes, silent, tmp_path, settings=TrainingStage(steps=1, batch_size=8))
    assert curve["cross_entropy"] == [0.0]
    assert curve["sae_error"][0] > 0


def test_training_lowers_the_loss_and_touches_only_the_projector(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, tmp_path: Path
) -> None:
    before = {n: p.clone() for n, p in llm.model.named_parameters()}
    weights = saes[0].W_dec.clone()
    _, curve = train(llm, saes, data, tmp_path)
    assert curve["loss"][-1] < curve["loss"][0]
    assert curve["loss"][0] == pytest.approx(curve["cross_entropy"][0] + curve["sae_error"][0])
    assert all(torch.equal(before[n], p) for n, p in llm.model.named_parameters())
    assert torch.equal(weights, saes[0].W_dec)


def test_the_sae_weight_matters_and_zero_needs_no_sae(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, tmp_path: Path
) -> None:
    plain, curve = train(llm, {}, data, tmp_path / "a", sae_weight=0.0)
    assert all(map(math.isnan, curve["sae_error"]))
    watched, seen = train(llm, saes, data, tmp_path / "b", sae_weight=0.0)
    assert torch.equal(plain.layers[0].weight, watched.layers[0].weight)
    pulled, held = train(llm, saes, data, tmp_path / "c", sae_weight=1.0)
    assert held["sae_error"][-1] < seen["sae_error"][-1]
    assert not torch.equal(plain.layers[0].weight, pulled.layers[0].weight)


@pytest.mark.parametrize("killed_after", [3, 5, 6, 11])
def test_killed_and_restarted_it_ends_with_the_same_bytes(
    llm: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    data: TrainingData,
    tmp_path: Path,
    killed_after: int,
) -> None:
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole, curve = train(llm, saes, data, tmp_path / "whole")
    train(llm, saes, data, tmp_path / "broken", stop_at=killed_after)
    again, second = train(llm, saes, data, tmp_path / "broken")
    save_projector(tmp_path / "whole", whole)
    save_projector(tmp_path / "broken", again)
    for name in ("projector.safetensors", "projector.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    assert second == curve


def test_a_half_written_checkpoint_is_not_used(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, tmp_path: Path
) -> None:
    whole, _ = train(llm, saes, data, tmp_path / "whole")
    half = tmp_path / "broken" / "checkpoints" / "unfinished"
    half.mkdir(parents=True)
    (half / "state.safetensors").write_bytes(b"half")
    again, _ = train(llm, saes, data, tmp_path / "broken")
    assert torch.equal(whole.layers[0].weight, again.layers[0].weight)


def test_another_seed_gives_other_weights_and_another_order() -> None:
    assert not np.array_equal(batch_indices(100, 8, 0, seed=0), batch_indices(100, 8, 0, seed=1))
    first = make_projector("linear", 4, 4, seed=0).layers[0].weight
    torch.rand(3)  # the global generator has no say
    assert torch.equal(first, make_projector("linear", 4, 4, seed=0).layers[0].weight)
    assert not torch.equal(first, make_projector("linear", 4, 4, seed=1).layers[0].weight)


def test_an_epoch_shows_every_image_once() -> None:
    seen = np.concatenate([batch_indices(24, 8, step, seed=3) for step in range(3)])
    assert sorted(seen) == list(range(24))
    later = np.concatenate([batch_indices(24, 8, step, seed=3) for step in range(3, 6)])
    assert sorted(later) == list(range(24))
    assert not np.array_equal(seen, later)
    assert len(batch_indices(5, 8, 0, seed=0)) == 5


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    settings = TrainingStage(steps=100, warmup=0.1, lr=2.0)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert 0 < rates[99] < 0.01


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_gradients_of_parts_add_up_to_those_of_the_whole_batch(
    llm: LanguageModel,
    saes: dict[int, SparseAutoencoder],
    data: TrainingData,
    tmp_path: Path,
    micro_batch: int,
) -> None:
    # A small rate: a large one would blow up the last bits, in which sums of parts differ.
    gentle = {**SETTINGS.model_dump(exclude={"micro_batch"}), "lr": 1e-3}
    whole, curve = train(llm, saes, data, tmp_path / "whole", settings=TrainingStage(**gentle))
    parts = TrainingStage(**gentle, micro_batch=micro_batch)
    again, second = train(llm, saes, data, tmp_path / "parts", settings=parts)
    for name in ("loss", "cross_entropy", "sae_error", "gradient_norm"):
        assert second[name] == pytest.approx(curve[name], rel=1e-4), name
    torch.testing.assert_close(again.layers[0].weight, whole.layers[0].weight, rtol=1e-3, atol=1e-4)


def test_samples_of_one_length_share_a_part(
    llm: LanguageModel, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, seen = LanguageModel.batch, []

    def note(self: LanguageModel, turns: Any, n_visual: int, max_length: int) -> Any:
        seen.append([len(sample[0].answer) for sample in turns])
        return plain(self, turns, n_visual, max_length)

    monkeypatch.setattr(LanguageModel, "batch", note)
    settings = TrainingStage(steps=1, batch_size=8, micro_batch=2)
    train(llm, {}, data, tmp_path, sae_weight=0, settings=settings)
    lengths = [length for part in seen for length in part]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) == 2


def test_steps_follow_from_epochs_and_one_epoch_is_the_default() -> None:
    assert TrainingStage(batch_size=8).total_steps(24) == 3
    assert TrainingStage(batch_size=8, epochs=3).total_steps(27) == 9
    assert TrainingStage(batch_size=8, epochs=0.5).total_steps(24) == 2
    assert TrainingStage(batch_size=8).total_steps(5) == 1
    assert TrainingStage(steps=7).total_steps(10**6) == 7
    with pytest.raises(ValueError, match="`steps` or `epochs`, not both"):
        TrainingStage(steps=1, epochs=1)


def test_two_layers_train_and_depend_on_the_seed_alone(
    llm: LanguageModel, saes: dict[int, SparseAutoencoder], data: TrainingData, tmp_path: Path
) -> None:
    projector, curve = train(llm, saes, data, tmp_path, kind="mlp")
    assert curve["loss"][-1] < curve["loss"][0]
    first = make_projector("mlp", 4, 6, seed=0)
    assert [tuple(layer.weight.shape) for layer in first.layers] == [(6, 4), (6, 6)]
    assert torch.equal(first.layers[1].weight, make_projector("mlp", 4, 6, seed=0).layers[1].weight)
    save_projector(tmp_path, projector)
    loaded = load_projector(tmp_path, d_vision=D_VISION, d_model=D_MODEL)
    x = torch.randn(1, 2, D_VISION)
    hidden = torch.nn.functional.gelu(projector.layers[0](x))
    torch.testing.assert_close(loaded(x), projector.layers[1](hidden))


def test_a_projector_of_other_widths_is_refused(tmp_path: Path) -> None:
    save_projector(tmp_path, make_projector("linear", 12, 16, seed=0))
    loaded = load_projector(tmp_path, d_vision=12, d_model=16)
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(UserError, match=r"d_vision is 12, the models here have 13"):
        load_projector(tmp_path, d_vision=13, d_model=16)
    with pytest.raises(UserError, match=r"d_model is 16"):
        load_projector(tmp_path, d_vision=12, d_model=17)
    with pytest.raises(UserError, match=r"projector\.kind 'cubic'"):
        make_projector("cubic", 1, 1, seed=0)
