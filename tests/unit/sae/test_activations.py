"""Which tokens of a text count, and that their stream is the model's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vista.config.sae import TextPass
from vista.errors import UserError
from vista.sae.activations import first_tokens, text_activations, whole_documents


def gather(llm: Any, texts: list[str], layer: int, **settings: Any) -> Any:
    batches = list(text_activations(llm, texts, layer, TextPass(**settings)))
    return (
        torch.cat([batch.stream_nd for batch in batches]),
        np.concatenate([batch.ids_n for batch in batches]),
        np.concatenate([batch.document_n for batch in batches]),
        np.concatenate([batch.span_n2 for batch in batches]),
    )


@pytest.mark.parametrize("layer", [0, 1])
def test_stream_is_that_of_each_document_alone_without_bos(
    llm: Any, texts: list[str], layer: int
) -> None:
    """Neither padding nor BOS may slip in: both would rule the mean of a real model's stream."""
    stream, ids, document, span = gather(llm, texts[:10], layer, batch_documents=4)
    expected_ids: list[int] = []
    expected: list[torch.Tensor] = []
    block = llm.model.model.layers[layer]
    handle = block.register_forward_hook(lambda _, __, out: expected.append(out[0, 1:]))
    for text in texts[:10]:
        row = [1, *llm.tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            llm.model(torch.tensor([row]))
        expected_ids += row[1:]
    handle.remove()
    assert ids.tolist() == expected_ids
    torch.testing.assert_close(stream, torch.cat(expected), rtol=1e-4, atol=1e-4)
    words = [texts[d][a:b] for d, (a, b) in zip(document, span, strict=True)]
    assert words == " ".join(texts[:10]).split()


def test_bos_counts_only_when_asked_for(llm: Any, texts: list[str]) -> None:
    without = gather(llm, texts[:5], 0)
    stream, ids, _, span = gather(llm, texts[:5], 0, include_bos=True)
    bos = ids == 1
    assert bos.sum() == 5
    assert (span[bos] == 0).all()
    torch.testing.assert_close(stream[torch.from_numpy(~bos)], without[0])


def test_batching_does_not_change_the_stream(llm: Any, texts: list[str]) -> None:
    one, all_at_once = (gather(llm, texts[:20], 1, batch_documents=n) for n in (1, 20))
    torch.testing.assert_close(one[0], all_at_once[0], rtol=1e-4, atol=1e-4)
    assert one[2].tolist() == all_at_once[2].tolist()


def test_answers_end_as_in_a_prompt(llm: Any) -> None:
    """opening, question, answer, question, answer: EOS after each answer, and nowhere else."""
    text = "noun1 noun2\tthe noun3\tgrass\ton\tnoun4 ."
    _, ids, _, span = gather(llm, [text, "the noun1\tnoun2", "the noun1"], 0)
    tokens = llm.tokenizer.convert_ids_to_tokens(ids.tolist())
    expected = "noun1 noun2 the noun3 grass </s> on noun4 . </s> the noun1 noun2 </s> the noun1"
    assert tokens == expected.replace("</s>", "<eos>").split()
    words = [text[a:b] for a, b in span[:10]]
    assert words == ["noun1", "noun2", "the", "noun3", "grass", "", "on", "noun4", ".", ""]


def test_long_documents_are_cut(llm: Any) -> None:
    _, ids, _, _ = gather(llm, ["the " * 50], 0, max_length=9)
    assert len(ids) == 8  # BOS takes one place


def test_first_tokens_stops_after_enough(llm: Any, texts: list[str]) -> None:
    batches = text_activations(llm, texts, 0, TextPass(batch_documents=4))
    sizes = [len(batch) for batch in first_tokens(batches, 50)]
    assert sum(sizes) >= 50 > sum(sizes[:-1])


@pytest.mark.parametrize("tokens", [1, 30, 10_000])
def test_a_batch_is_split_between_documents_only(tokens: int, llm: Any, texts: list[str]) -> None:
    batch = next(text_activations(llm, texts[:20], 0, TextPass()))
    parts = list(whole_documents(batch, tokens))
    assert torch.equal(torch.cat([part.stream_nd for part in parts]), batch.stream_nd)
    assert np.array_equal(np.concatenate([part.span_n2 for part in parts]), batch.span_n2)
    documents = [set(part.document_n.tolist()) for part in parts]
    assert sum(map(len, documents)) == 20
    assert all(len(part) <= tokens or len(set(part.document_n)) == 1 for part in parts)
    assert len(parts) == {1: 20, 10_000: 1}.get(tokens, len(parts))


def test_errors_name_the_layer_and_the_text(llm: Any, texts: list[str]) -> None:
    with pytest.raises(UserError, match=r"layer 2 does not exist.*0\.\.1"):
        list(text_activations(llm, texts, 2, TextPass()))
    with pytest.raises(UserError, match="no tokens"):
        list(text_activations(llm, ["", ""], 0, TextPass()))
