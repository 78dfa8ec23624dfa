"""What was read once is answered and scored as whole sequences are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vista.data.records import Turn
from vista.language.model import LanguageModel
from vista.language.prompt import IGNORED
from vista.language.reading import Reading, one_length

N_VISUAL = 3
TURNS = [
    (Turn("describe the scene .", "a red cat at left ."),),
    (Turn("what is at left ?", "a blue dog on the grass at right ."),),
]


def _visual(lm: LanguageModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(len(TURNS), N_VISUAL, lm.d_model, generator=generator)


def _image(lm: LanguageModel) -> Reading:
    head = lm.prompts(["what ?"] * len(TURNS), N_VISUAL)
    ids_bt = torch.tensor(head)[:, : len(lm.opening) + N_VISUAL]
    with torch.no_grad():
        return lm.read(ids_bt, _visual(lm))


def _one_pass(lm: LanguageModel, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        logits = lm.forward(
            batch.input_ids,
            batch.attention_mask,
            visual=_visual(lm),
            visual_start=batch.visual_start,
            logits_at=batch.predict_mask,
        ).logits
    assert logits is not None
    return logits


@torch.no_grad()
def test_answers_are_scored_as_in_one_pass(placed_lm: LanguageModel) -> None:
    """Samples of two lengths, longer than Gemma's sliding window (8 tokens here)."""
    batch = placed_lm.batch(TURNS, N_VISUAL, 64)
    image = _image(placed_lm)
    expected = _one_pass(placed_lm, batch)
    for start in (image, image.on(batch.input_ids[:, image.ids_bt.shape[1] :][:, :2])):
        for _ in range(2):  # the first time must leave the cache as it was
            logits_nv = start.answer_logits(batch)
            torch.testing.assert_close(logits_nv, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_answer_right_after_what_was_read(any_lm: LanguageModel) -> None:
    """The last token that was read predicts the first one of the answer, in one sample of two."""
    batch = any_lm.batch(TURNS, N_VISUAL, 64)
    labels = batch.labels.clone()
    image = _image(any_lm)
    start = image.ids_bt.shape[1]
    labels[0, start] = batch.input_ids[0, start]
    early = replace(batch, labels=labels)
    assert early.predict_mask[0, start - 1]
    expected = _one_pass(any_lm, early)
    torch.testing.assert_close(image.answer_logits(early), expected, rtol=1e-4, atol=1e-5)
    only = replace(early, labels=torch.full_like(labels, IGNORED))
    assert image.answer_logits(only).shape == (0, expected.shape[1])
    only.labels[1, start] = 0
    first_n = image.answer_logits(only)
    torch.testing.assert_close(first_n, image.logits_bv[1:] if image.logits_bv is not None else 0)


@torch.no_grad()
def test_samples_that_begin_otherwise_are_refused(any_lm: LanguageModel) -> None:
    batch = any_lm.batch(TURNS, N_VISUAL, 64)
    image = _image(any_lm)
    asked = image.on(batch.input_ids[:, image.ids_bt.shape[1] :][:, :-2])
    swapped = any_lm.batch(TURNS[::-1], N_VISUAL, 64)
    assert image.begins(swapped)
    assert asked.begins(batch)
    assert not asked.begins(swapped)
    with pytest.raises(ValueError, match="begin"):
        asked.answer_logits(swapped)
    with pytest.raises(ValueError, match="at least one token"):
        Reading(any_lm.model, torch.zeros(2, 0, dtype=torch.int64)).greedy(3, [])


@torch.no_grad()
def test_a_sequence_that_has_ended_leaves_the_batch(
    any_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = _image(any_lm)
    whole = image.greedy(6, [])
    assert [len(answer) for answer in whole] == [6, 6]
    assert image.greedy(6, []) == whole
    # An end of the first answer alone.
    end = next(token for token in whole[0] if token not in whole[1])
    sizes: list[int] = []
    forward = type(any_lm.model).forward

    def watched(model: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["input_ids"]))
        return forward(model, *args, **kwargs)

    monkeypatch.setattr(type(any_lm.model), "forward", watched)
    assert image.greedy(6, [end]) == [whole[0][: whole[0].index(end)], whole[1]]
    assert sizes == [2] * whole[0].index(end) + [1] * (5 - whole[0].index(end))


def test_batches_hold_sequences_of_one_length() -> None:
    assert list(one_length([5, 3, 5, 5, 3], 2)) == [[1, 4], [0, 2], [3]]
    assert list(one_length([], 2)) == []
