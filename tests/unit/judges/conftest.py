"""What several judges are tested with: an endpoint on the loopback, a sentence encoder on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Endpoint

from vista.judges.kinds.api import Settings as ApiJudgeSettings


@pytest.fixture
def settings(endpoint: Endpoint) -> Callable[..., ApiJudgeSettings]:
    """Settings of a judge behind the endpoint, with pauses that a test can wait for."""

    def settings(**changes: Any) -> ApiJudgeSettings:
        given = {
            "base_url": endpoint.url,
            "model": "small",
            "first_pause_s": 0.01,
            "longest_pause_s": 0.3,
            "timeout_s": 120.0,
        }
        return ApiJudgeSettings.model_validate({**given, **changes})

    return settings


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of width 16 with random weights, as save_pretrained writes it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "dog", "a", "the", "red", "sofa"]
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(dict(zip(words, range(10), strict=True)), "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return folder
