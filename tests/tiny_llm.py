"""A language model of some thousand weights, whose vocabulary is a list of words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from word_tokenizer import word_tokenizer

from vista.language.model import LanguageModel


def tiny_llama(words: Sequence[str], d_model: int, blocks: int = 2) -> LanguageModel:
    """Return a Llama with random weights, the same every time; words 0 to 3 are special."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=d_model,
        intermediate_size=32,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LanguageModel(LlamaForCausalLM(config), word_tokenizer(list(words)))
