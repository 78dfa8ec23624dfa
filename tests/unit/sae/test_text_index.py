"""The index of words in context against hidden states of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vista.config.text_index import TextIndexSettings
from vista.errors import UserError
from vista.sae.text_index import index_text
from vista.store.text_index import TextIndex

ALL = TextIndexSettings(per_word=10**6, skip_first=0, context=10**6)


def test_a_vector_is_the_hidden_state_after_its_layer(
    llm: Any, texts: list[str], tmp_path: Path
) -> None:
    """Of layer l that is hidden_states[l + 1]: hidden_states[0] enters block 0."""
    layers = (0, 1)
    assert llm.n_blocks == 2
    index_text(llm, texts[:20], layers, ALL).write(tmp_path / "index.zarr")
    index = TextIndex.read(tmp_path / "index.zarr")
    assert index.layers == layers
    stream_nld = index.vectors_nld.astype(np.float32) * index.norm_nl[..., None]
    bos = llm.tokenizer.bos_token_id
    found = 0
    for n, context in enumerate(index.contexts):
        ids = [bos, *llm.tokenizer(context, add_special_tokens=False)["input_ids"]]
        assert ids[-1] == index.id_n[n]
        with torch.no_grad():
            states = llm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        # The last hidden state of transformers is normed.
        last_d = llm.model.model.norm(torch.from_numpy(stream_nld[n, 1])).detach().numpy()
        for read_d, expected_d in (
            (stream_nld[n, 0], states[1][0, -1]),
            (last_d, states[2][0, -1]),
        ):
            scale = float(expected_d.abs().max())
            np.testing.assert_allclose(read_d, expected_d.numpy(), atol=2e-3 * scale)
        found += 1
        if found == 40:
            break
    assert found == 40


def test_no_special_token_and_no_context_twice(llm: Any, texts: list[str]) -> None:
    once, twice = (index_text(llm, some, (1,), ALL) for some in (texts[:10], texts[:10] * 2))
    special = set(llm.tokenizer.all_special_ids)
    assert llm.tokenizer.bos_token_id in special
    assert not special & set(once.id_n.tolist())
    assert len(set(once.contexts)) == len(once.contexts)
    assert sorted(once.contexts) == sorted(twice.contexts)
    # Every word of every text: nothing is lost but repeated beginnings.
    ids = {
        i for text in texts[:10] for i in llm.tokenizer(text, add_special_tokens=False)["input_ids"]
    }
    assert set(once.id_n.tolist()) == ids - special


def test_tokens_words_and_first_tokens_are_bounded(llm: Any, texts: list[str]) -> None:
    few = ALL.model_copy(update={"per_word": 2, "context": 3})
    index = index_text(llm, texts, (0,), few)
    counts = np.unique(index.words, return_counts=True)[1]
    assert counts.max() == 2
    assert max(map(len, index.contexts)) <= 3 + max(map(len, index.words)) + 1
    later = index_text(llm, texts[:10], (0,), ALL.model_copy(update={"skip_first": 2}))
    assert all(len(context.split()) > 2 for context in later.contexts)
    some = ALL.model_copy(update={"tokens": 1, "batch_documents": 2})
    read = {context.split()[0] for context in index_text(llm, texts, (0,), some).contexts}
    assert 1 <= len(read) <= 2
    with pytest.raises(UserError, match=r"no tokens to read|no word to index"):
        index_text(llm, texts[:2], (0,), ALL.model_copy(update={"skip_first": 10**4}))
