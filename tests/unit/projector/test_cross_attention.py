"""Gated cross-attention: nothing at step 0, and what its attention loss teaches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vista.config.cross_attention import CrossAttentionSettings
from vista.config.language import StandinLlm
from vista.data.records import Turn
from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.language.prompt import Batch
from vista.projector.cross_attention import (
    CrossAttention,
    WordTokens,
    attention_loss,
    load_cross_attention,
    make_cross_attention,
    save_cross_attention,
)
from vista.projector.cross_training import Step, train_cross_attention
from vista.standins.llm import build_model, build_tokenizer

NOUNS = ("cat", "dog", "bird", "fish")
D, WIDTH, PATCHES = 32, 8, 9
QUESTION = "describe the scene ."
SETTINGS = CrossAttentionSettings(heads=2, steps=40, batch_size=16, lr=1e-2)


@pytest.fixture(scope="module")
def llm() -> LanguageModel:
    tokenizer = build_tokenizer([QUESTION, *(f"a {noun} ." for noun in NOUNS)])
    source = StandinLlm(family="gemma2", d_model=D, n_blocks=2, n_heads=2, d_mlp=32, seed=1)
    return LanguageModel(build_model(source, tokenizer), tokenizer)


def drawn(llm: LanguageModel, rows: NDArray[np.int64], regions: str = "true") -> Step:
    """Images with the vector of one noun at one patch, and captions that name it."""
    rng = np.random.default_rng(7)
    noun_i, patch_i = rng.integers(len(NOUNS), size=64), rng.integers(PATCHES, size=64)
    vectors = 4 * np.eye(len(NOUNS), WIDTH)
    x = rng.normal(0, 0.3, size=(64, PATCHES, WIDTH))
    x[np.arange(64), patch_i] += vectors[noun_i]
    place_i = patch_i if regions == "true" else (patch_i + 1) % PATCHES
    turns = [(Turn(QUESTION, f"a {NOUNS[noun_i[i]]} ."),) for i in rows]
    batch = llm.batch(turns, 0, 64)
    words = llm.tokenizer.convert_tokens_to_ids([NOUNS[noun_i[i]] for i in rows])
    place = [row.tolist().index(word) for row, word in zip(batch.input_ids, words, strict=True)]
    region_mp = torch.zeros(len(rows), PATCHES, dtype=torch.bool)
    region_mp[torch.arange(len(rows)), torch.from_numpy(place_i[rows])] = True
    return Step(
        batch,
        torch.from_numpy(x[rows].astype(np.float32)),
        WordTokens(torch.arange(len(rows)), torch.tensor(place), region_mp),
    )


def trained(
    llm: LanguageModel, weight: float, regions: str = "true", steps: int = 40
) -> tuple[CrossAttention, dict]:  # type: ignore[type-arg]
    settings = SETTINGS.model_copy(update={"steps": steps})
    module = make_cross_attention(WIDTH, llm, None, settings.heads, 0)
    curve = train_cross_attention(
        module, llm, 64, lambda rows: drawn(llm, rows, regions), settings, weight=weight, seed=0
    )
    return module, dict(curve)


@torch.no_grad()
def pointing(module: CrossAttention, llm: LanguageModel) -> float:
    step = drawn(llm, np.arange(64))
    _, weights_btlhp = module.read(llm, step.batch, step.features_bpv)
    words = step.words
    maps_mp = weights_btlhp[words.sample_m, words.place_m].mean(dim=(1, 2))
    hits_m = words.region_mp[torch.arange(64), maps_mp.argmax(-1)]
    return float(hits_m.float().mean())


def plain(llm: LanguageModel, batch: Batch) -> torch.Tensor:
    logits = llm.forward(batch.input_ids, batch.attention_mask, logits_at=batch.predict_mask).logits
    assert logits is not None
    return logits


@torch.no_grad()
def test_closed_gates_leave_the_language_model_bit_for_bit(llm: LanguageModel) -> None:
    step = drawn(llm, np.arange(16))
    module = make_cross_attention(WIDTH, llm, (0, 1), 2, 0)
    logits_nv, weights_btlhp = module.read(llm, step.batch, step.features_bpv)
    assert torch.equal(logits_nv, plain(llm, step.batch))
    assert weights_btlhp.shape == (*step.batch.input_ids.shape, 2, 2, PATCHES)
    torch.testing.assert_close(weights_btlhp.sum(-1), torch.ones(weights_btlhp.shape[:-1]))
    module.layers["0"].gate.fill_(0.1)  # type: ignore[operator]
    opened, _ = module.read(llm, step.batch, step.features_bpv)
    assert not torch.equal(opened, plain(llm, step.batch))


def test_the_attention_loss_falls_and_the_attention_points(llm: LanguageModel) -> None:
    fresh = pointing(make_cross_attention(WIDTH, llm, None, SETTINGS.heads, 0), llm)
    module, curve = trained(llm, 1.0)
    assert curve["attention_loss"][0] > 1.8  # close to log 9
    assert curve["attention_loss"][-1] < 0.5
    assert fresh < 0.5
    assert pointing(module, llm) > 0.9
    assert curve["cross_entropy"][-1] < curve["cross_entropy"][0]
    assert abs(module.gates()[0]) > 0


def test_without_weight_masks_teach_nothing(llm: LanguageModel) -> None:
    (module, curve), (other, moved) = (trained(llm, 0.0, regions) for regions in ("true", "other"))
    for ours, theirs in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert curve["cross_entropy"] == moved["cross_entropy"]
    assert curve["attention_loss"] != moved["attention_loss"]
    (taught, _), (mistaught, _) = (trained(llm, 1.0, regions) for regions in ("true", "other"))
    assert pointing(taught, llm) > pointing(mistaught, llm)
    (half, _), (whole, _) = (trained(llm, weight, steps=3) for weight in (0.5, 1.0))
    gates = half.gates(), whole.gates()
    assert gates[0] != gates[1]


def test_the_loss_is_minus_log_of_the_mean_map_on_the_object() -> None:
    weights_btlhp = torch.rand(2, 3, 2, 2, 4).softmax(-1)
    region_mp = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]]).bool()
    words = WordTokens(torch.tensor([0, 1]), torch.tensor([2, 0]), region_mp)
    first = weights_btlhp[0, 2].mean(dim=(0, 1))[[0, 3]].sum()
    second = weights_btlhp[1, 0].mean(dim=(0, 1))[1]
    expected = -(first.log() + second.log()) / 2
    torch.testing.assert_close(attention_loss(weights_btlhp, words), expected)


def test_files_give_the_module_back(llm: LanguageModel, tmp_path: Path) -> None:
    module = make_cross_attention(WIDTH, llm, (1,), 2, 3)
    with torch.no_grad():
        module.layers["1"].gate.fill_(0.5)  # type: ignore[operator]
    save_cross_attention(tmp_path, module)
    loaded = load_cross_attention(tmp_path, d_vision=WIDTH, llm=llm)
    for ours, theirs in zip(module.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert loaded.gates() == pytest.approx([np.tanh(0.5)])
    with pytest.raises(UserError, match="not the cross-attention of these models"):
        load_cross_attention(tmp_path, d_vision=WIDTH + 1, llm=llm)


def test_blocks_and_heads_must_fit_the_model(llm: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"train\.blocks: 2 is no block"):
        make_cross_attention(WIDTH, llm, (0, 2), 2, 0)
    with pytest.raises(UserError, match=r"train\.heads: 5 does not divide"):
        make_cross_attention(WIDTH, llm, None, 5, 0)
