"""Tiny random models, one a family, with one word-level tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

WORDS = "a red cat blue dog at left right on grass sand . describe what is ? the scene color"
FAMILIES = ("llama", "gemma2", "gemma3", "qwen3", "gpt2")


def make_tokenizer() -> Any:
    from vista.standins.llm import build_tokenizer

    return build_tokenizer([WORDS])


def make_model(family: str) -> Any:
    """A random Hugging Face model of some family: 3 blocks of width 16."""
    import torch
    import transformers as hf

    tokenizer = make_tokenizer()
    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.3,
    }
    modern = shared | {
        "intermediate_size": 24,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 128,
    }
    # Caps low enough to bite: a head that skips them gives other logits.
    capped = modern | {"query_pre_attn_scalar": 8, "sliding_window": 128}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "llama":
            return hf.LlamaForCausalLM(hf.LlamaConfig(**modern))
        if family == "gemma2":
            return hf.Gemma2ForCausalLM(
                hf.Gemma2Config(**capped, final_logit_softcapping=0.5, attn_logit_softcapping=0.5)
            )
        if family == "gemma3":
            return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**capped))
        if family == "qwen3":
            return hf.Qwen3ForCausalLM(hf.Qwen3Config(**modern))
        return hf.GPT2LMHeadModel(hf.GPT2Config(**shared))


@pytest.fixture(scope="session", params=FAMILIES)
def any_lm(request: pytest.FixtureRequest) -> Any:
    """A LanguageModel of each family in turn."""
    from vista.language.model import LanguageModel

    return LanguageModel(make_model(request.param), make_tokenizer())


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()
