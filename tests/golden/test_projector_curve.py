"""The projector's loss curve on planted features and a seeded model: a refactor must not move it.

After a change that is meant to move it: python tests/golden/test_projector_curve.py writes it anew.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM
from word_tokenizer import word_tokenizer

from vista.config.projector import TrainingStage
from vista.data.records import Turn
from vista.language.model import LanguageModel
from vista.projector.module import make_projector
from vista.projector.passes import TrainingData
from vista.projector.train import train_projector
from vista.sae.neutral import SaeConfig, SparseAutoencoder

GOLDEN = Path(__file__).with_name("projector_curve.json")
WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "what", "?", "cat", "dog", "on", "sand"]
D_MODEL, D_VISION, PATCHES, IMAGES = 16, 12, 4, 24


def seeded(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator)


def language_model(generator: torch.Generator) -> LanguageModel:
    tokenizer = word_tokenizer(WORDS)
    config = Gemma2Config(
        vocab_size=len(WORDS),
        hidden_size=D_MODEL,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    model = Gemma2ForCausalLM(config)
    # Weights from our own generator: how a class initialises itself may change with its version.
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.4 * seeded(generator, *weight.shape))
    return LanguageModel(model, tokenizer)


def sae(generator: torch.Generator, layer: int) -> SparseAutoencoder:
    config = SaeConfig("standard", D_MODEL, 32, layer, f"golden-l{layer}")
    shapes = config.weight_shapes()
    return SparseAutoencoder(config, {n: 0.3 * seeded(generator, *s) for n, s in shapes.items()})


def curve() -> dict[str, list[float]]:
    generator = torch.Generator().manual_seed(0)
    llm = language_model(generator)
    saes = {layer: sae(generator, layer) for layer in (0, 2)}
    features = np.random.default_rng(0).normal(size=(IMAGES, PATCHES, D_VISION))
    turns = [[Turn("what ?", "cat on sand" if i % 2 else "dog")] for i in range(IMAGES)]
    with tempfile.TemporaryDirectory() as folder:
        return train_projector(
            make_projector("linear", D_VISION, D_MODEL, seed=7),
            llm,
            saes,
            TrainingData(
                turns=turns, n_visual=PATCHES, read=lambda rows: features[rows].astype(np.float16)
            ),
            TrainingStage(steps=20, batch_size=8, lr=3e-2),
            sae_weight=1.0,
            seed=7,
            checkpoints=Path(folder),
        )


def test_the_curve_is_the_golden_one() -> None:
    golden = json.loads(GOLDEN.read_text())
    found = curve()
    assert set(found) == set(golden)
    for name, values in golden.items():
        # Processors differ in the last bits; twenty steps do not blow that up beyond this.
        assert found[name] == pytest.approx(values, rel=2e-3), name
    assert not any(math.isnan(value) for values in found.values() for value in values)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(curve(), indent=1, sort_keys=True) + "\n")
