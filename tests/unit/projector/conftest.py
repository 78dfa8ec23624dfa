"""The language model that tests of the projector's training share."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from word_tokenizer import word_tokenizer

from vista.language.model import LanguageModel

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "what", "?", "cat", "dog", "on", "sand"]
D_MODEL = 16


@pytest.fixture(scope="module")
def llm() -> LanguageModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=D_MODEL,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    return LanguageModel(LlamaForCausalLM(config), word_tokenizer(WORDS))
