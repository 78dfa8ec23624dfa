"""Text that a tokenizer's chat template writes, compared with the messages that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from vista.errors import UserError, reason_of
from vista.foreign.chat import VARIABLES, chat_template, template_error
from vista.foreign.text import read_json_object, read_text
from vista.language.vlm import ImageFormat

# Stands for a message where only the template's own text around it is wanted.
MARK = "<<message-stands-here>>"
_ANSWER = "<<answer-stands-here>>"

# Reasoning is off, so that nothing stands between the question and the answer that is learnt
# (Qwen 3).
_VARIABLES = {**VARIABLES, "enable_thinking": False}

_LARGEST = 1 << 20  # bytes of a file that is a template; those of published models have 20 kB

_Special = tuple[tuple[str, str], ...]


def choose_template(tokenizer: Any, template: str, folder: Path | None = None) -> None:
    """Let a tokenizer format conversations by `template`: "tokenizer" (its own, else that of the
    processor in `folder`), "none", or a file.

    Raises UserError where the file cannot be read or is larger than any template.
    """
    if template == "tokenizer":
        # Where older checkpoints of vision-language models keep theirs.
        beside = folder / "chat_template.json" if folder else None
        if tokenizer.chat_template is None and beside and beside.is_file():
            tokenizer.chat_template = read_json_object(beside).get("chat_template")
        return
    if template == "none":
        tokenizer.chat_template = None
        return
    path = Path(template)
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise UserError(
            f"template: {path} cannot be read ({reason_of(error)}); correct `template` of the "
            "language model"
        ) from error
    if size > _LARGEST:
        raise UserError(
            f"template: {path} has {size} bytes, more than any chat template; name the file of a "
            "template"
        )
    tokenizer.chat_template = read_text(path)


def render(
    tokenizer: Any,
    dialogue: Sequence[str],
    system: str | None = None,
    image: ImageFormat | None = None,
) -> str:
    """A dialogue (question, answer, question, ...) as text, up to where the next answer begins.

    Without a chat template every question ends with a line break and every answer with EOS; a
    question without text writes nothing. `system` is the system message, None for no message. With
    `image` the first question comes with an image, whose visual tokens are one token in the text.

    Raises UserError where the tokenizer's chat template fails, or does not write a question, the
    image or the system message; or, without a template, where the tokenizer has no EOS.
    """
    template = chat_template(getattr(tokenizer, "chat_template", None))
    if template is None:
        if image is not None:
            raise UserError(
                "placement: image needs a chat template that writes images; name the model's own "
                "as `template`"
            )
        return _plain(tokenizer, dialogue, system)
    special = tuple(tokenizer.special_tokens_map.items())
    if image is not None:
        text = _written(template, special, dialogue, True, system, True)
        if text.count(image.written) != 1:
            raise UserError(
                f"chat template: it does not write the image once, as {image.written}; name the "
                "model's own as `template`"
            )
        text = text.replace(image.written, image.before + image.token + image.after)
    else:
        parts = _wants_parts(template, special)
        text = _written(template, special, dialogue, parts, system)
    if system is not None and system.strip() not in text:
        raise UserError(
            f"chat template: it does not write the system message {_short(system)}; remove `system`"
            " of the language model, or give it another template"
        )
    return text


def _plain(tokenizer: Any, dialogue: Sequence[str], system: str | None) -> str:
    if system is not None:
        raise UserError(
            "system: the tokenizer has no chat template that could write a system message; remove "
            "`system` of the language model, or name a template"
        )
    end = tokenizer.eos_token
    if len(dialogue) > 1 and not end:
        raise UserError(
            "template: without a chat template an answer ends with the end-of-sequence token, and "
            "the tokenizer has none; give it an eos_token, or name a template"
        )
    lines = [f"{part}{end}\n" if i % 2 else f"{part}\n" for i, part in enumerate(dialogue)]
    return "".join(line for line in lines if line != "\n")


def check_question(piece: str, question: str) -> None:
    """Raise UserError where a piece of a formatted conversation lacks the question in it."""
    if question.strip() not in piece:
        raise UserError(
            f"chat template: it does not write the question {_short(question)} as it was given; "
            "give the tokenizer a template that writes every message unchanged"
        )


def check_answer(piece: str, answer: str) -> None:
    """Raise UserError where a piece that is to be learnt does not begin with its answer."""
    if piece.lstrip().startswith(answer.strip()):
        return
    before, written, _ = piece.partition(answer.strip())
    if not written:
        raise UserError(
            f"chat template: it does not write the answer {_short(answer)} as it was given; give "
            "the tokenizer a template that writes every message unchanged"
        )
    raise UserError(
        f"chat template: it writes {_short(before)} between a question and its answer, which would "
        "be learnt as part of the answer; let it write that for add_generation_prompt"
    )


@lru_cache(maxsize=64)
def _wants_parts(template: str, special: _Special) -> bool:
    """Whether messages must be lists of parts, as templates of image-text models want them.

    Raises UserError where the template does not write a question in either form, or writes a text
    of its own before an answer.
    """
    failures, silent = [], []
    for parts in (False, True):
        try:
            prompt = _written(template, special, [MARK], parts)
            whole = _written(template, special, [MARK, _ANSWER], parts)
        except UserError as error:
            failures.append(error)
            continue
        if MARK in prompt and _ANSWER in whole:
            if whole.startswith(prompt):
                check_answer(whole[len(prompt) :], _ANSWER)
            return parts
        if MARK in prompt:
            silent.append(parts)
    if silent:
        return silent[0]  # `check_answer` reports dropped answers, where there are any
    if len(failures) == 2:
        raise failures[0]
    raise UserError(
        "chat template: it does not write the question that it is given, neither as text nor as a "
        "list of parts; give the tokenizer another chat_template"
    )


def _written(
    template: str,
    special: _Special,
    dialogue: Sequence[str],
    parts: bool,
    system: str | None = None,
    image: bool = False,
) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [("assistant" if i % 2 else "user", part) for i, part in enumerate(dialogue)]
    opening = [] if system is None else [("system", system)]
    messages: list[dict[str, Any]] = [
        {"role": role, "content": [{"type": "text", "text": part}] if parts else part}
        for role, part in opening + turns
    ]
    if image:
        messages[len(opening)]["content"].insert(0, {"type": "image"})
    variables: dict[str, Any] = {**dict(special), **_VARIABLES}
    try:
        rendered: Any = render_jinja_template(
            conversations=[messages],
            chat_template=template,
            add_generation_prompt=len(dialogue) % 2 == 1,
            **variables,
        )
    except Exception as error:
        raise template_error(error) from error
    return str(rendered[0][0])


def _short(text: str) -> str:
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= 60 else f"{shown[:57]}...")
