"""A random tiny Llama with a word-level tokenizer, and texts in its words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

WORDS = [f"noun{i}" for i in range(8)] + ["the", "on", ".", "grass"]


@pytest.fixture(scope="session")
def llm() -> Any:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from vista.language.model import LanguageModel

    torch.set_num_threads(1)
    names = ["<pad>", "<bos>", "<eos>", "<unk>", *WORDS]
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(names),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
                initializer_range=0.2,
            )
        )
    # Words must be readable in the stream, as they are in a trained model's.
    model.get_input_embeddings().weight.data.mul_(8.0)
    return LanguageModel(model, tokenizer)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=int(rng.integers(3, 20)))) for _ in range(120)]
