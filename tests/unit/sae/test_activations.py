"""Which tokens of a text count, and that their stream is the model's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vista.config.sae import TextPass
from vista.errors import UserError
from vista.sae import activations
from vista.sae.activations import TextBatch, normal_tokens, text_activations, whole_documents


def gather(llm: Any, texts: list[str], layer: int, **settings: Any) -> Any:
    batches = list(text_activations(llm, texts, layer, TextPass(**settings)))
    place = np.concatenate([batch.place_n for batch in batches])
    assert sorted(place) == list(range(len(place)))
    order = np.argsort(place)
    return (
        torch.cat([batch.stream_nd for batch in batches])[order],
        np.concatenate([batch.ids_n for batch in batches])[order],
        np.concatenate([batch.document_n for batch in batches])[order],
        np.concatenate([batch.span_n2 for batch in batches])[order],
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


def test_whole_groups_of_documents_are_read_until_there_are_enough_tokens(
    llm: Any, texts: list[str]
) -> None:
    settings = TextPass(batch_documents=4)
    read = list(text_activations(llm, texts, 0, settings, tokens=50))
    count = [len(text.split()) for text in texts]
    groups = next(n for n in range(1, 30) if sum(count[: 4 * n]) >= 50)
    assert sum(map(len, read)) == sum(count[: 4 * groups])
    assert sorted({int(d) for batch in read for d in batch.document_n}) == list(range(4 * groups))


def test_documents_of_one_length_share_a_batch(
    llm: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted within a window: almost no padding, and nothing is read again or out of its window."""
    cells: list[int] = []
    forward = llm.forward

    def watched(ids_bt: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        cells.append(ids_bt.numel())
        return forward(ids_bt, *args, **kwargs)

    monkeypatch.setattr(llm, "forward", watched)
    batches = list(text_activations(llm, texts, 0, TextPass(batch_documents=8)))
    tokens = sum(len(text.split()) + 1 for text in texts)
    assert tokens <= sum(cells) < 1.1 * tokens
    monkeypatch.setattr(activations, "_WINDOW_TOKENS", 100)
    windows = list(text_activations(llm, texts, 0, TextPass(batch_documents=8)))
    last = [int(batch.document_n.max()) for batch in windows]
    assert sorted(last) != sorted(int(batch.document_n.max()) for batch in batches)
    assert max(last[: len(last) // 2]) < len(texts) * 0.6


def test_the_first_tokens_of_documents_are_left_out(llm: Any, texts: list[str]) -> None:
    stream, ids, document, span = gather(llm, texts[:10], 0, batch_documents=4)
    kept = np.concatenate([np.arange(n) >= 2 for n in np.bincount(document)])
    left = gather(llm, texts[:10], 0, batch_documents=4, skip_first=2)
    torch.testing.assert_close(left[0], stream[torch.from_numpy(kept)], rtol=1e-4, atol=1e-4)
    for with_all, without in zip((ids, document, span), left[1:], strict=True):
        assert without.tolist() == with_all[kept].tolist()
    with pytest.raises(UserError, match="no tokens"):
        gather(llm, texts[:10], 0, skip_first=30)
    with pytest.raises(ValueError, match="drop one"):
        TextPass(include_bos=True, skip_first=1)


def test_tokens_of_a_large_norm_are_left_out() -> None:
    """The median is over many tokens: a first batch of massive tokens alone hides nothing."""

    def batch(norms: list[float], document: int) -> TextBatch:
        n = np.full(len(norms), document)
        stream_nd = torch.tensor(norms)[:, None] * torch.eye(3)[:1]
        return TextBatch(stream_nd, n, n, np.stack([n, n], axis=1), np.arange(len(n)))

    batches = [batch([700.0, 900.0], 0), batch([1.0] * 900 + [3.0] * 200 + [5.1], 1)]
    kept = list(normal_tokens(batches, 3.0))
    assert [len(part) for part in kept] == [1100]
    assert kept[0].place_n.tolist() == list(range(1100))
    assert float(kept[0].stream_nd.max()) == 3.0
    assert [len(part) for part in normal_tokens(batches, None)] == [2, 1101]


def test_layers_of_one_pass_are_those_of_single_passes(
    llm: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TextPass(batch_documents=16)
    alone = [list(text_activations(llm, texts[:30], layer, settings)) for layer in (0, 1)]
    passes: list[int] = []
    forward = llm.forward
    monkeypatch.setattr(llm, "forward", lambda *a, **k: passes.append(1) or forward(*a, **k))
    both = list(activations.text_streams(llm, texts[:30], (1, 0), settings))
    assert len(passes) == 2
    for layer in (0, 1):
        for one, streams in zip(alone[layer], both, strict=True):
            torch.testing.assert_close(streams[layer].stream_nd, one.stream_nd)
            assert streams[layer].place_n.tolist() == one.place_n.tolist()


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
