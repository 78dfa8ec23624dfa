"""Layout, labels and templates of vista.language.prompt, and the loss on its labels."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from vista.errors import UserError
from vista.language.loss import sample_cross_entropy, token_cross_entropy
from vista.language.prompt import IGNORED, build_batch, prompt_ids

# As Gemma writes turns: BOS in the template, an end of turn with a line break after it.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<turn>"
    "{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)


@dataclass(frozen=True)
class QA:
    question: str
    answer: str


ONE = [QA("describe the scene .", "a red cat at left .")]
CAPTION = ["a", "red", "cat", "at", "left", ".", "</s>"]
TWO = [*ONE, QA("what color is the cat ?", "red")]


def _words(tokenizer: Any, ids: Any) -> list[str]:
    words: list[str] = tokenizer.convert_ids_to_tokens([int(i) for i in ids])
    return words


def _with_template(tokenizer: Any, template: str | None) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_layout_is_bos_image_question_answer(tokenizer: Any) -> None:
    batch = build_batch(tokenizer, [TWO, ONE], n_visual=3, max_length=100)
    assert batch.visual_start == 1
    line = "describe the scene . a red cat at left . </s> what color is the cat ? red </s>"
    text = line.split()
    pads = ["<pad>"] * (len(text) - 11)
    assert _words(tokenizer, batch.input_ids[0]) == ["<s>", *["<pad>"] * 3, *text]
    assert _words(tokenizer, batch.input_ids[1]) == ["<s>", *["<pad>"] * 3, *text[:11], *pads]
    assert batch.attention_mask.sum(1).tolist() == [4 + len(text), 4 + 11]
    assert batch.text_mask.sum(1).tolist() == [len(text), 11]
    assert not batch.text_mask[:, :4].any()


def test_only_answers_and_their_ends_are_learnt(tokenizer: Any) -> None:
    batch = build_batch(tokenizer, [TWO, ONE], n_visual=3, max_length=100)
    learnt = [_words(tokenizer, row[row != IGNORED]) for row in batch.labels]
    assert learnt == [[*CAPTION, "red", "</s>"], CAPTION]
    chosen = batch.labels != IGNORED
    assert torch.equal(batch.labels[chosen], batch.input_ids[chosen])
    assert torch.equal(batch.predict_mask[:, :-1], chosen[:, 1:])
    assert _words(tokenizer, batch.targets) == [*CAPTION, "red", "</s>", *CAPTION]
    assert batch.target_sample.tolist() == [0] * 9 + [1] * 7


def test_a_prompt_is_the_beginning_of_its_training_sample(tokenizer: Any) -> None:
    for template in (tokenizer.chat_template, GEMMA, None):
        each = _with_template(tokenizer, template)
        batch = build_batch(each, [ONE], n_visual=2, max_length=100)
        ids = prompt_ids(each, ONE[0].question, 2)
        assert batch.input_ids[0, : len(ids)].tolist() == ids
        assert (batch.labels[0, : len(ids)] == IGNORED).all()
        assert batch.labels[0, len(ids)] != IGNORED


def test_a_template_with_bos_and_line_breaks_keeps_the_layout(tokenizer: Any) -> None:
    each = _with_template(tokenizer, GEMMA)
    batch = build_batch(each, [TWO], n_visual=2, max_length=100)
    words = _words(each, batch.input_ids[0])
    assert words[0] == "<s>"
    assert words.count("<s>") == 1
    assert _words(each, batch.targets) == [*CAPTION, "red", "</s>"]


def test_the_end_of_a_cut_sample_is_cut(tokenizer: Any) -> None:
    batch = build_batch(tokenizer, [TWO], n_visual=3, max_length=10)
    whole = build_batch(tokenizer, [TWO], n_visual=3, max_length=100)
    assert torch.equal(batch.input_ids, whole.input_ids[:, :10])
    assert torch.equal(batch.labels, whole.labels[:, :10])
    assert _words(tokenizer, batch.targets) == ["a", "red"]
    with pytest.raises(UserError, match="max_length=4"):
        build_batch(tokenizer, [TWO], n_visual=3, max_length=4)


def test_a_model_without_bos_gets_its_image_first(tokenizer: Any) -> None:
    each = copy.deepcopy(tokenizer)
    each.bos_token = None
    each.chat_template = None
    batch = build_batch(each, [ONE], n_visual=2, max_length=100)
    assert batch.visual_start == 0
    assert batch.text_mask[0].tolist()[:3] == [False, False, True]


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Any) -> None:
    last_only = _with_template(tokenizer, "{{ messages[-1]['content'] }}")
    with pytest.raises(UserError, match="rewrites"):
        build_batch(last_only, [TWO], n_visual=2, max_length=100)


def test_cross_entropy_counts_answer_tokens_only(tokenizer: Any) -> None:
    batch = build_batch(tokenizer, [TWO, ONE, []], n_visual=3, max_length=100)
    generator = torch.Generator().manual_seed(0)
    logits_btv = torch.randn(*batch.input_ids.shape, len(tokenizer), generator=generator)
    at = logits_btv[batch.predict_mask]
    expected = torch.nn.functional.cross_entropy(
        logits_btv[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED
    )
    torch.testing.assert_close(token_cross_entropy(at, batch).mean(), expected)
    sums, counts = sample_cross_entropy(at, batch)
    assert counts.tolist() == [9, 7, 0]
    torch.testing.assert_close(sums.sum() / 16, expected)
    alone = build_batch(tokenizer, [ONE], n_visual=3, max_length=100)
    t = alone.input_ids.shape[1]
    again, _ = sample_cross_entropy(logits_btv[1:2, :t][alone.predict_mask], alone)
    torch.testing.assert_close(again[0], sums[1])
    with pytest.raises(ValueError, match="logits for 16"):
        token_cross_entropy(at[1:], batch)
