"""Cached text gives what the language model gives, and damage is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vista.config.reading import parse_config
from vista.config.sae import CacheTextSettings, TextPass, TokenFilter
from vista.errors import UserError
from vista.sae import activations
from vista.sae.activations import text_activations
from vista.sae.text_cache import (
    FACTS,
    SPLITS,
    CachedText,
    stream_file,
    tokens_file,
    write_cache,
)

CPU = torch.device("cpu")
SETTINGS = CacheTextSettings(
    tokens=10**6, heldout_tokens=10**6, dtype="float32", text=TextPass(batch_documents=16)
)


def opened(folder: Path, split: str, layer: int) -> CachedText:
    files = (folder / name for name in (FACTS, tokens_file(split), stream_file(split, layer)))
    return CachedText.open(*files, layer, CPU)


@pytest.fixture
def cache(llm: Any, texts: list[str], tmp_path: Path) -> Path:
    write_cache(llm, {"train": texts[:80], "heldout": texts[80:]}, (0, 1), SETTINGS, tmp_path)
    return tmp_path


@pytest.mark.parametrize("chosen", [TokenFilter(), TokenFilter(skip_first=2, max_norm_ratio=1.1)])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_cache_holds_the_stream_of_every_token(
    llm: Any, texts: list[str], cache: Path, layer: int, chosen: TokenFilter
) -> None:
    """Documents are cached in random order, and have the numbers that they have in the text."""
    for split, some in (("train", texts[:80]), ("heldout", texts[80:])):
        settings = TextPass(batch_documents=16, **chosen.model_dump())
        expected = {
            (int(d), *span): (stream_d, int(i))
            for batch in text_activations(llm, some, layer, settings)
            for stream_d, i, d, span in zip(
                batch.stream_nd, batch.ids_n, batch.document_n, batch.span_n2.tolist(), strict=True
            )
        }
        count = 0
        for batch in opened(cache, split, layer).batches(chosen, 10**6):
            assert (np.diff(batch.document_n) >= 0).all()
            for n in range(len(batch)):
                key = (int(batch.document_n[n]), *batch.span_n2[n].tolist())
                stream_d, token = expected[key]
                assert token == batch.ids_n[n]
                torch.testing.assert_close(batch.stream_nd[n], stream_d, rtol=1e-4, atol=1e-4)
                count += 1
        assert abs(count - len(expected)) <= 0.02 * len(expected)  # the median is of other tokens
        assert chosen.max_norm_ratio is not None or count == len(expected)


def test_part_of_a_cache_is_of_documents_of_all_lengths(texts: list[str], cache: Path) -> None:
    """Batches are sorted by length: the first of them are short documents."""
    part = list(opened(cache, "heldout", 0).batches(TokenFilter(), 100))
    assert sorted({int(d) for batch in part for d in batch.document_n}) == list(
        range(len([n for n in np.cumsum([0, *(len(t.split()) for t in texts[80:])]) if n < 100]))
    )
    order = np.random.default_rng(0).permutation(80)
    first = next(iter(opened(cache, "train", 0).batches(TokenFilter(), 1)))
    assert set(first.document_n.tolist()) == {order[0]}


def test_one_pass_serves_all_layers_and_both_runs_give_the_same_bytes(
    llm: Any, texts: list[str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Any] = []
    read = activations._read
    monkeypatch.setattr(activations, "_read", lambda *a: passes.append(a) or read(*a))
    again = tmp_path / "again"
    again.mkdir()
    write_cache(llm, {"train": texts[:80], "heldout": texts[80:]}, (0, 1), SETTINGS, again)
    assert len(passes) == 80 // 16 + -(-40 // 16)
    names = [FACTS, *(tokens_file(s) for s in SPLITS)]
    for name in (*names, *(stream_file(s, layer) for s in SPLITS for layer in (0, 1))):
        assert (again / name).read_bytes() == (cache / name).read_bytes()


def test_what_does_not_fit_is_told(llm: Any, texts: list[str], cache: Path) -> None:
    with pytest.raises(UserError, match=r"layer 5 is not in this cache of layers \[0, 1\]"):
        opened(cache, "train", 5)
    stream = cache / stream_file("train", 0)
    stream.write_bytes(stream.read_bytes()[:-4])
    with pytest.raises(UserError, match="does not hold"):
        opened(cache, "train", 0)
    with pytest.raises(UserError, match="skip_first"):
        list(opened(cache, "train", 1).batches(TokenFilter(skip_first=99), 100))
    embedding = llm.model.get_input_embeddings().weight
    kept = embedding.data.clone()
    small = SETTINGS.model_copy(update={"dtype": "float16"})
    try:
        embedding.data *= 1e6
        with pytest.raises(UserError, match=r"float16; write saes\.cache_text\.dtype: float32"):
            write_cache(llm, {"train": texts, "heldout": texts}, (0,), small, cache)
    finally:
        embedding.data.copy_(kept)


def test_a_cache_with_too_few_tokens_is_refused() -> None:
    content = {
        "name": "a",
        "data": {"kind": "drawn"},
        "encoders": {"e": {"source": {"kind": "standin", "family": "dinov2"}}},
        "llms": {
            "small": {
                "model": {"source": {"kind": "standin", "family": "llama"}},
                "saes": {"layers": [0], "train": {"tokens": 70_000}, "cache_text": {}},
            }
        },
        "metrics": {},
    }
    with pytest.raises(UserError, match=r"llms\.small\.saes\.cache_text\.tokens 60000 is less"):
        parse_config(content)
