"""Chat templates that differ from what is expected: the right text, or one sentence."""

from __future__ import annotations

import copy
import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from vista.errors import UserError
from vista.language.prompt import IGNORED, build_batch, prompt_ids
from vista.language.template import choose_template, render


@dataclass(frozen=True)
class QA:
    question: str
    answer: str


TURNS = [QA("what is at left ?", "a red cat"), QA("describe the scene .", "a blue dog on grass")]
TEXT = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ ' ' }}{% endfor %}"
)
PARTS = (
    "{{ bos_token }}{% for m in messages %}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ ' ' }}{% endfor %}"
)
# Raises for a text: `selectattr` of its letters.
FIRST_PART = (
    "{{ bos_token }}{% for m in messages %}{{ (m['content'] | selectattr('type') | list)[0].text }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ ' ' }}{% endfor %}"
)
DATED = (
    "{{ bos_token }}{% macro today() %}{{ strftime_now('%B %d, %Y at %H') }}{% endmacro %}"
    "{{ today() }} {{ strftime_now('%d %b %Y') }} " + TEXT.removeprefix("{{ bos_token }}")
)
# SmolLM2: BOS opens every turn, and a system message of the template's own comes first.
BOS_A_TURN = (
    "{% if messages[0]['role'] != 'system' %}{{ bos_token }}system\nsand{{ eos_token }}\n"
    "{% endif %}"
    "{% for m in messages %}{{ bos_token }}{{ m['role'] }}\n{{ m['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}{{ bos_token }}assistant\n{% endif %}"
)


def with_template(tokenizer: Any, template: Any) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def learnt(tokenizer: Any, turns: Any = TURNS) -> list[str]:
    """The labelled tokens of one sample, decoded, cut at ends of answers."""
    batch = build_batch(tokenizer, [turns], 2, 200)
    labelled = tokenizer.decode([token for token in batch.labels[0].tolist() if token != IGNORED])
    return [answer.strip() for answer in labelled.split("</s>")[:-1]]


@pytest.mark.parametrize("template", [PARTS, FIRST_PART], ids=["all-parts", "first-part"])
def test_a_template_of_content_parts_gets_parts(tokenizer: Any, template: str) -> None:
    parts, text = (with_template(tokenizer, entry) for entry in (template, TEXT))
    assert learnt(parts) == [turn.answer for turn in TURNS]
    ids = [build_batch(entry, [TURNS], 2, 200).input_ids.tolist() for entry in (parts, text)]
    assert ids[0] == ids[1]
    prompts = [prompt_ids(parts, turn.question, 2) for turn in TURNS]
    assert prompts[0] != prompts[1]


def test_a_template_that_takes_both_gets_text(tokenizer: Any) -> None:
    both = (
        "{{ bos_token }}{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}"
        "{% else %}never{% endif %}{{ eos_token if m['role'] == 'assistant' }} {% endfor %}"
    )
    assert learnt(with_template(tokenizer, both)) == [turn.answer for turn in TURNS]


def test_a_template_that_drops_the_question_is_refused(tokenizer: Any) -> None:
    for template in ("{{ bos_token }}", "", "{% for m in messages %}{{ m['text'] }}{% endfor %}"):
        with pytest.raises(UserError, match="does not write the question") as caught:
            prompt_ids(with_template(tokenizer, template), "what ?", 0)
        assert str(caught.value).count("\n") == 0


def test_a_template_that_drops_or_changes_an_answer_is_refused(tokenizer: Any) -> None:
    only_questions = TEXT.replace("m['content'] }}", "m['content'] if m['role'] == 'user' }}")
    with pytest.raises(UserError, match="does not write the answer 'a red cat'"):
        learnt(with_template(tokenizer, only_questions))
    short = TEXT.replace("m['content']", "m['content'][:24]")
    assert learnt(with_template(tokenizer, short), [QA("what ?", "red")]) == ["red"]
    with pytest.raises(UserError, match="does not write the answer 'a blue dog on grass a blue"):
        learnt(with_template(tokenizer, short), [QA("what ?", " ".join([TURNS[1].answer] * 2))])


def test_a_template_that_changes_a_question_is_refused(tokenizer: Any) -> None:
    twisted = with_template(
        tokenizer, TEXT.replace("m['content']", "m['content'].replace('?', '.')")
    )
    for build in (
        lambda: prompt_ids(twisted, "what ?", 0),
        lambda: build_batch(twisted, [TURNS], 2, 200),
    ):
        with pytest.raises(UserError, match="does not write the question 'what"):
            build()


def test_white_space_around_a_message_may_be_trimmed(tokenizer: Any) -> None:
    trimmed = with_template(tokenizer, TEXT.replace("m['content']", "m['content'] | trim"))
    spaced = [QA(f"  {turn.question}\n", f"\n {turn.answer} ") for turn in TURNS]
    assert learnt(trimmed, spaced) == [turn.answer for turn in TURNS]


def test_text_of_the_template_between_question_and_answer_is_not_learnt(tokenizer: Any) -> None:
    named = TEXT.replace(
        "{{ m['content']", "{{ 'the ' if m['role'] == 'assistant' }}{{ m['content']"
    )
    with pytest.raises(UserError, match="'the' between a question and its answer"):
        build_batch(with_template(tokenizer, named), [[QA("what ?", "the cat")]], 2, 200)
    right = named + "{{ 'the ' if add_generation_prompt }}"
    assert learnt(with_template(tokenizer, right)) == [turn.answer for turn in TURNS]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('a system prompt is needed') }}", "a system prompt is needed"),
        ("{{ messages[0].content.nothing.at_all }}", "has no attribute 'nothing'"),
        ("{% for m in messages %}{{ m.content }}", "endfor"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ now() }}{{ messages[0].content }}", "'now' is undefined"),
        ("{{ messages.append(1) }}{{ messages[0].content }}", "is unsafe"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
    ],
)
def test_what_a_template_raises_is_told(tokenizer: Any, template: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        build_batch(with_template(tokenizer, template), [TURNS], 2, 200)
    assert str(caught.value).startswith("chat template") and str(caught.value).count("\n") == 0


def test_the_clock_is_no_part_of_a_prompt(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dated = with_template(tokenizer, DATED)
    first = render(dated, ["what ?"])

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls(2031, 1, 2)

    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    chat_template_utils._compile_jinja_template.cache_clear()
    messages = [{"role": "user", "content": "what ?"}]
    assert "January 02, 2031" in dated.apply_chat_template(messages, tokenize=False)
    assert render(dated, ["what ?"]) == first
    assert learnt(dated) == [turn.answer for turn in TURNS]


def test_the_fixed_day_is_written_in_the_form_that_is_asked_for(tokenizer: Any) -> None:
    assert render(with_template(tokenizer, DATED), ["what ?"]).startswith(
        "<s>July 26, 2024 at 00 26 Jul 2024 what ?"
    )
    # What stands before and after the first tag is left as it is.
    odd = "\n  {% if strftime_now('%-d') == '26' %}\n yes {{ messages[0].content }}\n{% endif %}\n"
    assert render(with_template(tokenizer, odd), ["what ?"]) == "\n yes what ?\n"


@pytest.mark.parametrize("before", ["\ufeff", "\n", " \n", "\ufeff\n"], ids=repr)
@pytest.mark.parametrize("placement", ["after_bos", "in_question"])
def test_what_stands_before_the_beginning_of_text_is_no_second_one(
    tokenizer: Any, before: str, placement: Any
) -> None:
    plain, odd = (with_template(tokenizer, start + TEXT) for start in ("", before))
    ids = [
        build_batch(entry, [TURNS], 2, 200, placement).input_ids.tolist() for entry in (plain, odd)
    ]
    assert ids[0] == ids[1]
    assert ids[0][0].count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("call", ["{{ ['a', 'red'] | random }}", "{{ lipsum(1) }}"])
def test_chance_is_no_part_of_a_prompt(tokenizer: Any, call: str) -> None:
    with pytest.raises(UserError, match="draws at random"):
        prompt_ids(with_template(tokenizer, call + TEXT), "what ?", 0)


def test_of_named_templates_the_default_is_taken(tokenizer: Any) -> None:
    named = with_template(tokenizer, {"rag": "{{ bos_token }}", "default": TEXT})
    assert learnt(named) == [turn.answer for turn in TURNS]
    with pytest.raises(UserError, match=r'none of rag, tool_use is named "default"'):
        prompt_ids(with_template(tokenizer, {"tool_use": TEXT, "rag": TEXT}), "what ?", 0)
    with pytest.raises(UserError, match="expected a text, not int"):
        prompt_ids(with_template(tokenizer, {"default": 3}), "what ?", 0)


@pytest.mark.parametrize("default", [True, False])
def test_named_templates_on_disk(tokenizer: Any, tmp_path: Path, default: bool) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("{{ bos_token }}")
    if default:
        (tmp_path / "chat_template.jinja").write_text(PARTS)
        assert learnt(AutoTokenizer.from_pretrained(tmp_path)) == [turn.answer for turn in TURNS]
    else:
        with pytest.raises(UserError, match='named "default"'):
            learnt(AutoTokenizer.from_pretrained(tmp_path))


def test_named_templates_of_an_older_tokenizer_config(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    file = tmp_path / "tokenizer_config.json"
    listed = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TEXT}]
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": listed}))
    assert learnt(AutoTokenizer.from_pretrained(tmp_path)) == [turn.answer for turn in TURNS]


def test_visual_tokens_never_stand_within_the_header_of_a_turn(tokenizer: Any) -> None:
    headed = with_template(tokenizer, BOS_A_TURN)
    for build in (
        lambda: prompt_ids(headed, "what ?", 2),
        lambda: build_batch(headed, [TURNS], 2, 200),
    ):
        with pytest.raises(UserError, match="in_question, or template: none") as caught:
            build()
        assert "BOS (<s>) opens every turn" in str(caught.value)
    batch = build_batch(headed, [TURNS], 2, 200, "in_question")
    before = render(headed, ["what ?"]).partition("what ?")[0]
    assert batch.input_ids[0, : batch.visual_start].tolist() == headed.encode(
        before, add_special_tokens=False
    )
    plain = with_template(tokenizer, BOS_A_TURN)
    choose_template(plain, "none")
    assert build_batch(plain, [TURNS], 2, 200).visual_start == 1


@pytest.mark.parametrize("question", ["describe the scene .", ""])
def test_without_a_template_there_is_the_text_and_its_end(tokenizer: Any, question: str) -> None:
    plain = with_template(tokenizer, BOS_A_TURN)
    choose_template(plain, "none")
    batch = build_batch(plain, [[QA(question, "a red cat")]], 2, 200)
    words = plain.convert_ids_to_tokens(batch.input_ids[0].tolist())
    asked = question.split()
    assert words == ["<s>", "<pad>", "<pad>", *asked, "a", "red", "cat", "</s>"]
    # The end is learnt, so that generation stops by itself.
    assert batch.labels[0].tolist() == [IGNORED] * (3 + len(asked)) + plain.encode(
        "a red cat</s>", add_special_tokens=False
    )
    assert prompt_ids(plain, question, 2) == batch.input_ids[0, : 3 + len(asked)].tolist()
    assert render(plain, [question]) == (f"{question}\n" if question else "")


def test_without_a_template_answers_need_a_token_that_ends_them(tokenizer: Any) -> None:
    endless = with_template(tokenizer, None)
    endless.eos_token = None
    assert render(endless, ["what ?"]) == "what ?\n"
    with pytest.raises(UserError, match="the tokenizer has none; give it an eos_token"):
        build_batch(endless, [TURNS], 2, 200)


def test_a_system_message_takes_the_place_of_the_templates_own(tokenizer: Any) -> None:
    headed = with_template(tokenizer, BOS_A_TURN)
    own, other, empty = (render(headed, ["what ?"], system) for system in (None, "a dog", ""))
    question = "<s>user\nwhat ?</s>\n<s>assistant\n"
    assert own == "<s>system\nsand</s>\n" + question
    assert other == "<s>system\na dog</s>\n" + question
    assert empty == "<s>system\n</s>\n" + question
    # In every turn of a sample and in the prompt alike.
    batch = build_batch(headed, [TURNS], 2, 200, "in_question", "a dog")
    shown = headed.decode(batch.input_ids[0])
    assert shown.count("dog </s>") == 1 and "sand" not in shown
    ids = prompt_ids(headed, TURNS[0].question, 2, "in_question", "a dog")
    assert batch.input_ids[0, : len(ids)].tolist() == ids


def test_a_system_message_that_is_not_written_is_refused(tokenizer: Any) -> None:
    silent = "{% for m in messages if m.role != 'system' %}" + TEXT.partition("%}")[2]
    with pytest.raises(UserError, match="does not write the system message 'be brief'"):
        render(with_template(tokenizer, silent), ["what ?"], "be brief")
    assert render(with_template(tokenizer, silent), ["what ?"], "") == "what ? "
    gemma = "{% if messages[0].role == 'system' %}{{ raise_exception('no role') }}{% endif %}"
    with pytest.raises(UserError, match="no role"):
        render(with_template(tokenizer, gemma + TEXT), ["what ?"], "be brief")
    with pytest.raises(UserError, match="has no chat template that could write a system message"):
        render(with_template(tokenizer, None), ["what ?"], "be brief")


def test_a_template_is_a_small_file(tokenizer: Any, tmp_path: Path) -> None:
    chosen = with_template(tokenizer, BOS_A_TURN)
    choose_template(chosen, "tokenizer")
    assert chosen.chat_template == BOS_A_TURN
    file = tmp_path / "own.jinja"
    file.write_text(PARTS)
    choose_template(chosen, str(file))
    assert learnt(chosen) == [turn.answer for turn in TURNS]
    with pytest.raises(UserError, match=r"lost\.jinja cannot be read"):
        choose_template(chosen, str(tmp_path / "lost.jinja"))
    with file.open("wb") as large:
        large.truncate(1 << 21)
    with pytest.raises(UserError, match="has 2097152 bytes, more than any chat template"):
        choose_template(chosen, str(file))
