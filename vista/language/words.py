"""Words of a tokenizer: tokens that differ in case or in spaces around them are one word.

Suffix: v token of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


def vocabulary(tokenizer: Any, size: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return the words of a vocabulary of `size` tokens, sorted, and the word of each token [v].

    Tokens that differ in case or in spaces around them are one word. Tokens without a text
    (special ones, spaces, ids that the tokenizer does not know) are the word "", the first.
    """
    texts = tokenizer.batch_decode([[i] for i in range(size)], skip_special_tokens=True)
    plain = [text.strip().casefold() for text in texts]
    words = sorted({"", *plain})
    number = {word: w for w, word in enumerate(words)}
    return words, np.array([number[text] for text in plain], dtype=np.int64)


def count_one_token(tokenizer: Any, names: Collection[str]) -> int:
    """Count the names that are one token, with a space before them or without."""
    spelled = [text for name in sorted(names) for text in (name, f" {name}")]
    lengths = [len(ids) for ids in tokenizer(spelled, add_special_tokens=False)["input_ids"]]
    return sum(1 in pair for pair in zip(lengths[::2], lengths[1::2], strict=True))


def token_spans(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of some tokens without special ones, and the characters of each token in it.

    A token's span begins where the text of the tokens before it ends, so it holds the space before
    its word; that of a special token is empty.
    """
    texts = tokenizer.batch_decode(
        [list(ids[:end]) for end in range(len(ids) + 1)],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    # A character of several tokens is another one until it is complete.
    ends = np.maximum.accumulate([min(len(text), len(texts[-1])) for text in texts]).tolist()
    return texts[-1], list(pairwise(ends))
