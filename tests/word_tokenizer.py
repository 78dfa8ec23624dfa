"""A tokenizer of whole words for tiny language models: the ids are the places in the list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def word_tokenizer(words: Sequence[str]) -> Any:
    """Return a Hugging Face tokenizer; `words` must hold <pad>, <bos>, <eos> and <unk>."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "eos", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
