"""Training with sae_lens' trainer: what is saved opens, is the same twice, and learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vista.config.sae import CheckSaeSettings, TextPass, TrainSaeSettings
from vista.errors import UserError
from vista.sae.activations import text_activations
from vista.sae.check import measure_sae
from vista.sae.convert import from_folder
from vista.sae.train import CURVE, _hold, balanced_batches, train_sae

SMALL = TrainSaeSettings(
    d_sae=48, k=4, steps=150, batch_tokens=256, tokens=1200, lr=5e-3, dead_window=20
)


def test_it_learns_and_sae_lens_opens_it(llm: Any, texts: list[str], tmp_path: Path) -> None:
    import sae_lens

    curve = train_sae(llm, texts, 1, SMALL, tmp_path / "sae")
    assert set(curve) == set(CURVE)
    assert len({len(column) for column in curve.values()}) == 1
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    assert theirs.cfg.architecture() == "jumprelu"
    ours = from_folder(tmp_path / "sae")
    assert (ours.config.architecture, ours.config.layer, ours.config.d_in) == ("batchtopk", 1, 32)
    check = measure_sae(llm, ours, texts, CheckSaeSettings())
    # The saved SAE reads the raw stream: with the scale left unfolded, FVU would be near 1.
    assert check.fvu < 0.35
    assert 2 < check.l0 < 8
    torch.testing.assert_close(ours.W_dec.norm(dim=1), torch.ones(48), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu"])
def test_same_seed_same_bytes(
    architecture: str, llm: Any, texts: list[str], tmp_path: Path
) -> None:
    settings = SMALL.model_copy(update={"steps": 12, "architecture": architecture})
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name) + seed * 7)  # the surroundings' random state must not matter
        seeded = settings.model_copy(update={"seed": seed})
        train_sae(llm, texts, 0, seeded, tmp_path / name)
        torch.rand(3)
    for file in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    # Key order that follows Python's hash seed would differ between processes, not within one.
    text = (tmp_path / "a" / "cfg.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1) + "\n"
    weights = "sae_weights.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() != (tmp_path / "c" / weights).read_bytes()
    assert from_folder(tmp_path / "a").config.architecture == architecture


def test_cached_tokens_are_in_the_order_of_the_documents(llm: Any, texts: list[str]) -> None:
    """Documents are read sorted by length; the cut after `tokens` must not prefer short ones."""
    settings = SMALL.model_copy(update={"tokens": 100, "text": TextPass(batch_documents=16)})
    batches = text_activations(llm, texts, 0, settings.text, 100)
    stream_nd, ids_n = _hold(batches, 100)
    words = " ".join(texts).split()[:100]
    assert (
        ids_n.tolist()
        == llm.tokenizer(words, add_special_tokens=False, is_split_into_words=True)["input_ids"]
    )
    alone = next(text_activations(llm, texts[:1], 0, TextPass()))
    torch.testing.assert_close(stream_nd[: len(alone)], alone.stream_nd, rtol=1e-4, atol=1e-4)
    norms_n = stream_nd.norm(dim=1)
    ratio = float(norms_n.quantile(0.8) / norms_n.median())
    normal = TextPass(batch_documents=16, max_norm_ratio=ratio)
    left_nd, _ = _hold(text_activations(llm, texts, 0, normal, 100), 100)
    assert 60 < len(left_nd) <= 100
    assert float(left_nd.norm(dim=1).max()) < float(norms_n.max())


def test_balance_of_tokens() -> None:
    """400 of one id and 100 of another: drawn 4 : 1, 2 : 1 and 1 : 1 at balance 1, 1/2 and 0."""
    ids = np.array([5] * 400 + [9] * 100)
    stream = torch.arange(500.0)[:, None]
    for balance, share in ((1.0, 0.8), (0.5, 2 / 3), (0.0, 0.5)):
        batches = balanced_batches(stream, ids, balance, 20_000, np.random.default_rng(0))
        batch = next(batches)
        assert batch.shape == (20_000, 1)
        assert float((batch < 400).float().mean()) == pytest.approx(share, abs=0.015)
        assert len(batch.unique()) == 500  # every token has a chance


def test_a_broken_stream_is_refused(llm: Any, texts: list[str], tmp_path: Path) -> None:
    weight = llm.model.model.layers[0].mlp.down_proj.weight
    kept = weight.data.clone()
    try:
        weight.data.fill_(float("inf"))
        with pytest.raises(UserError, match="NaN or infinity"):
            train_sae(llm, texts, 0, SMALL, tmp_path)
    finally:
        weight.data.copy_(kept)
