"""Layout, labels and templates of vista.language.prompt, and the loss on its labels."""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from vista.data.records import Record, Turn
from vista.errors import UserError
from vista.inputs.text_control import control_batch
from vista.language.loss import sample_cross_entropy, token_cross_entropy
from vista.language.model import LanguageModel
from vista.language.prompt import IGNORED, build_batch, prompt_ids, sample_text

# As Gemma writes turns: BOS in the template, an end of turn with a line break after it.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<turn>"
    "{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)

END_OF_TURN = {
    "gemma2": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "gemma3_multimodal": "<end_of_turn>",
    "llama31": "<|eot_id|>",
    "qwen3": "<|im_end|>",
}
GEMMA_OPENING = "<bos><start_of_turn>user\n"
OPENING = {
    "gemma2": GEMMA_OPENING,
    "gemma3": GEMMA_OPENING,
    "gemma3_multimodal": GEMMA_OPENING,
    "llama31": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    "qwen3": "<|im_start|>user\n",
    "gpt2": "<|endoftext|>",
}


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


THREE = [
    QA("what is at left ?", "a red cat ."),
    QA("what color is the cat ?", "red"),
    QA("describe the scene .", "a dog\non the grass"),
]


def _learnt_runs(batch: Any) -> list[list[int]]:
    """The tokens of each unbroken run of labels in the first sample."""
    runs: list[list[int]] = []
    for before, now in itertools.pairwise([IGNORED, *batch.labels[0].tolist()]):
        if now == IGNORED:
            continue
        if before == IGNORED:
            runs.append([])
        runs[-1].append(now)
    return runs


def test_every_familys_template_teaches_the_answers_and_their_ends(
    placed_lm: LanguageModel, family: str
) -> None:
    end = "<|endoftext|>" if family == "gpt2" else END_OF_TURN[family]
    batch = placed_lm.batch([THREE, THREE[:1]], 3, 500)
    said = [placed_lm.tokenizer.decode(run) for run in _learnt_runs(batch)]
    assert said == [turn.answer + end for turn in THREE]
    chosen = batch.labels != IGNORED
    assert torch.equal(batch.labels[chosen], batch.input_ids[chosen])
    assert placed_lm.tokenizer.convert_tokens_to_ids(end) in placed_lm.eos_ids


def test_qwen_keeps_every_answer_as_it_was_given(checkpoint: Callable[..., Path]) -> None:
    """Its template drops the empty reasoning of earlier answers, which were given after it."""
    each = AutoTokenizer.from_pretrained(checkpoint("qwen3"))
    batch = build_batch(each, [THREE], 0, 500)
    assert each.decode(batch.input_ids[0]) + "\n" == "".join(
        f"<|im_start|>user\n{turn.question}<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n\n</think>\n\n{turn.answer}<|im_end|>\n"
        for turn in THREE
    )


def test_no_cut_leaves_a_label_beyond_the_input(placed_lm: LanguageModel) -> None:
    whole = placed_lm.batch([THREE, ONE], 3, 500)
    lengths = whole.attention_mask.sum(1)
    for max_length in range(len(placed_lm.opening) + 4, whole.input_ids.shape[1] + 2, 3):
        batch = placed_lm.batch([THREE, ONE], 3, max_length)
        t = batch.input_ids.shape[1]
        assert t == min(max_length, int(lengths.max()))
        assert torch.equal(batch.labels, whole.labels[:, :t])
        assert torch.equal(batch.input_ids, whole.input_ids[:, :t])
        assert torch.equal(batch.attention_mask.sum(1), lengths.clamp(max=max_length))
        assert (batch.labels[batch.attention_mask == 0] == IGNORED).all()
        assert int(batch.predict_mask.sum()) == len(batch.targets)


def test_the_image_stands_where_the_placement_says(placed_lm: LanguageModel, family: str) -> None:
    batch = placed_lm.batch([THREE, ONE, []], 3, 500)
    start = batch.visual_start
    assert start == len(placed_lm.opening)
    assert (batch.input_ids[:, :start] == torch.tensor(placed_lm.opening)).all()
    # What stands before the image cannot have seen it, so it is not text in `text_mask`.
    assert not batch.text_mask[:, : start + 3].any()
    assert batch.text_mask.sum(1).tolist() == (batch.attention_mask.sum(1) - start - 3).tolist()
    opening = placed_lm.tokenizer.decode(placed_lm.opening)
    if placed_lm.placement == "after_bos":
        assert opening == (placed_lm.tokenizer.bos_token or "")
    else:
        assert opening == OPENING[family]
        first = placed_lm.tokenizer.decode(batch.input_ids[0, start + 3 :])
        assert first.startswith(THREE[0].question)


def test_the_placement_moves_the_image_and_no_text(
    family: str, checkpoint: Callable[..., Path]
) -> None:
    texts = []
    for placement in ("after_bos", "in_question"):
        each = AutoTokenizer.from_pretrained(checkpoint(family))
        batch = build_batch(each, [THREE], 2, 500, placement)
        start = batch.visual_start
        ids = torch.cat([batch.input_ids[0, :start], batch.input_ids[0, start + 2 :]])
        texts.append(each.decode(ids))
        asked = prompt_ids(each, THREE[0].question, 2, placement)
        assert batch.input_ids[0, : len(asked)].tolist() == asked
        assert batch.labels[0, len(asked)] != IGNORED
    assert texts[0] == texts[1]


def test_the_text_control_stands_where_the_image_does(placed_lm: LanguageModel) -> None:
    records = [
        Record("0", "test", "0.png", 8, 8, captions=("a red cat .",)),
        Record("1", "test", "1.png", 8, 8, turns=(Turn("what ?", "a blue dog on grass ."),)),
    ]
    control = control_batch(placed_lm, records, 100)
    image = placed_lm.batch([[], []], 3, 100)
    start = image.visual_start
    assert control.visual_start == start
    assert torch.equal(control.input_ids[:, :start], image.input_ids[:, :start])
    assert not control.text_mask[:, :start].any()
    said = [
        placed_lm.tokenizer.decode(ids[mask])
        for ids, mask in zip(control.input_ids, control.text_mask, strict=True)
    ]
    assert said == ["a red cat .", "a blue dog on grass ."]


def test_a_prompt_does_not_depend_on_the_day(checkpoint: Callable[..., Path]) -> None:
    """Llama's template writes today's date unless it is told one."""
    each = AutoTokenizer.from_pretrained(checkpoint("llama31"))
    assert "26 Jul 2024" in each.decode(prompt_ids(each, "what ?", 0))


def test_in_question_needs_one_place_for_the_question(tokenizer: Any) -> None:
    twice = _with_template(tokenizer, "{{ messages[0].content }} {{ messages[0].content }}")
    with pytest.raises(UserError, match="placement: in_question"):
        prompt_ids(twice, "what ?", 2, "in_question")


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


def test_a_sample_can_be_read_with_its_visual_tokens_and_what_is_learnt(tokenizer: Any) -> None:
    batch = build_batch(tokenizer, [TWO, ONE], n_visual=3, max_length=100)
    assert sample_text(tokenizer, batch) == (
        "<s>[3 visual tokens]describe the scene .«a red cat at left . </s>»"
        "what color is the cat ?«red </s>»"
    )
    cut = build_batch(tokenizer, [ONE], n_visual=0, max_length=7)
    assert sample_text(tokenizer, cut) == "<s>[0 visual tokens]describe the scene .«a red»"


PACKAGE = Path(__file__).parents[3] / "vista"
WRITERS = {"build_batch", "prompt_ids", "opening_ids", "render", "apply_chat_template"}


def test_every_stage_lets_the_model_write_its_prompts() -> None:
    """A stage that formatted prompts itself would miss the model's placement, template or system
    message: `LanguageModel.batch`, `.prompt` and `.opening` alone know them."""
    folders = ("stages", "metrics", "inputs", "interventions", "projector", "sae", "diffusion")
    files = [path for name in folders for path in (PACKAGE / name).rglob("*.py")]
    assert len(files) > 100
    users = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "vista.language"
            ):
                taken = {alias.name for alias in node.names} & WRITERS
                assert not taken, f"{path} writes prompts itself by {taken}"
            if isinstance(node, ast.Attribute):
                assert node.attr != "apply_chat_template", path
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                if node.attr in ("batch", "prompt", "opening", "generate") and owner != "settings":
                    users.add(path.relative_to(PACKAGE).as_posix())
    assert users >= {
        "projector/train.py",
        "stages/latents.py",
        "stages/edit_captions.py",
        "metrics/caption/stage.py",
        "inputs/visual_tokens.py",
        "interventions/fitted.py",
        "interventions/generation.py",
    }
