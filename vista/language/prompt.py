"""From questions and answers to token ids, the same way in training, evaluation and generation.

Layout of a sample: opening, visual placeholders, question, answer, question, answer, ... The text
is formatted by the tokenizer's own chat template where it has one. Only answers and the token that
ends each of them are learnt. What the opening is follows from the placement, never from a sample,
so the visual tokens of all samples stand at the same positions:

* `after_bos` (VISTA, arXiv 2605.24946): BOS alone, and nothing for a model without one (Qwen).
* `in_question` (LLaVA's habit): BOS and all that the chat template writes before the first
  question: the system prompt, if it has one, and the start of the user's turn. Without a chat
  template this is the same as `after_bos`.
* `image` (vision-language models as they were published): where the chat template puts an image,
  with what the model's processor writes around it; see `vista.language.vlm`.

Where BOS also opens turns (SmolLM2: `<|im_start|>`), `after_bos` would stand within the header of
the first turn and is refused.

Shape suffixes: b sample, t token, n answer tokens of the whole batch in row-major order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from vista.config.language import Placement
from vista.errors import UserError
from vista.language.template import MARK, check_answer, check_question, render
from vista.language.vlm import ImageFormat, image_format

IGNORED = -100  # torch's own default for labels that carry no loss

_REWRITES = (
    "chat template of the tokenizer: a later turn rewrites an earlier one, so answers cannot be "
    "told from questions; give a template that only appends"
)


class QuestionAnswer(Protocol):
    """One turn of a conversation; `vista.data.records.Turn` is one."""

    @property
    def question(self) -> str: ...

    @property
    def answer(self) -> str: ...


@dataclass(frozen=True)
class Batch:
    """Right-padded samples.

    Attributes:
        input_ids: [b, t] int64; placeholders at the visual positions.
        attention_mask: [b, t] int64, 1 for opening, visual and text tokens.
        labels: [b, t] int64, the token itself where it is learnt, -100 elsewhere.
        text_mask: [b, t] bool, the text after the image: no BOS, visual token or padding, and
            nothing of an opening before the image, which cannot have seen it.
        visual_start: position of the first visual token.
        n_visual: visual tokens a sample.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    text_mask: Tensor
    visual_start: int
    n_visual: int

    @property
    def predict_mask(self) -> Tensor:
        """[b, t] bool: positions whose *next* token is learnt; where logits are needed."""
        mask = torch.zeros_like(self.text_mask)
        mask[:, :-1] = self.labels[:, 1:] != IGNORED
        return mask

    @property
    def targets(self) -> Tensor:
        """[n] int64: the learnt tokens, in the order of `predict_mask`."""
        following = self.labels[:, 1:]
        return following[following != IGNORED]

    @property
    def target_sample(self) -> Tensor:
        """[n] int64: the sample that each learnt token belongs to."""
        return self.predict_mask.nonzero()[:, 0]

    def to(self, device: torch.device | str) -> Batch:
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
            text_mask=self.text_mask.to(device),
        )


def build_batch(
    tokenizer: Any,
    turns_per_sample: Sequence[Sequence[QuestionAnswer]],
    n_visual: int,
    max_length: int,
    placement: Placement = "after_bos",
    system: str | None = None,
) -> Batch:
    """Token ids, masks and labels of some conversations about images.

    `LanguageModel.batch` calls this with the prompt settings that the model was loaded with.

    Args:
        tokenizer: a Hugging Face tokenizer.
        turns_per_sample: the conversation about each image.
        n_visual: visual tokens of each image (0 for text alone).
        max_length: longest sequence, opening and visual tokens included; what is longer is cut
            at the right end.
        placement: where the visual tokens stand.
        system: system message of every conversation; None for none.

    Raises:
        UserError: max_length leaves no room for text; the chat template fails, cannot be split
            into turns, or does not write every message as it was given; or visual tokens would
            stand within the header of a turn.
    """
    image = _image(tokenizer, placement)
    opening, formatted = _opening(tokenizer, placement, system, image)
    head = opening + [_filler(tokenizer)] * n_visual
    if len(head) >= max_length:
        raise UserError(
            f"max_length={max_length}: {n_visual} visual tokens leave no room for text; "
            f"expected more than {len(head)}"
        )
    segments = [_segments(tokenizer, turns, formatted, system, image) for turns in turns_per_sample]
    # One call for all pieces: a call a piece would cost more than a step of a small model.
    encoded = iter(
        _encoded(tokenizer, [[text for text, _ in pieces] for pieces in segments], image)
    )
    ids_rows, label_rows = [], []
    for pieces in segments:
        ids, labels = list(head), [IGNORED] * len(head)
        for _, learnt in pieces:
            tokens = next(encoded)
            ids += tokens
            labels += tokens if learnt else [IGNORED] * len(tokens)
        ids_rows.append(ids[:max_length])
        label_rows.append(labels[:max_length])
    b, t = len(ids_rows), max(len(ids) for ids in ids_rows)
    input_ids = torch.full((b, t), _filler(tokenizer), dtype=torch.int64)
    labels_bt = torch.full((b, t), IGNORED, dtype=torch.int64)
    attention_mask = torch.zeros((b, t), dtype=torch.int64)
    for i, (ids, labels) in enumerate(zip(ids_rows, label_rows, strict=True)):
        input_ids[i, : len(ids)] = torch.tensor(ids)
        labels_bt[i, : len(ids)] = torch.tensor(labels)
        attention_mask[i, : len(ids)] = 1
    text_mask = attention_mask.bool()
    text_mask[:, : len(head)] = False
    return Batch(input_ids, attention_mask, labels_bt, text_mask, len(opening), n_visual)


def sample_text(tokenizer: Any, batch: Batch) -> str:
    """The first sample of a batch to be read: its text with special tokens, the visual tokens'
    place in [], and what is learnt in «»."""
    length = int(batch.attention_mask[0].sum())
    ids, labels = batch.input_ids[0, :length].tolist(), batch.labels[0, :length].tolist()
    start, after = batch.visual_start, batch.visual_start + batch.n_visual
    text = [tokenizer.decode(ids[:start]), f"[{batch.n_visual} visual tokens]"]
    spoken = zip(ids[after:], labels[after:], strict=True)
    for learnt, run in groupby(spoken, key=lambda pair: pair[1] != IGNORED):
        words = tokenizer.decode([token for token, _ in run])
        text.append(f"«{words}»" if learnt else words)
    return "".join(text)


def prompt_ids(
    tokenizer: Any,
    question: str,
    n_visual: int,
    placement: Placement = "after_bos",
    system: str | None = None,
) -> list[int]:
    """Ids up to where the model's answer to `question` begins, as in `build_batch`."""
    image = _image(tokenizer, placement)
    opening, formatted = _opening(tokenizer, placement, system, image)
    prompt = _without(formatted, render(tokenizer, [question], system, image))
    check_question(prompt, question)
    return opening + [_filler(tokenizer)] * n_visual + _encoded(tokenizer, [[prompt]], image)[0]


def opening_ids(
    tokenizer: Any, placement: Placement = "after_bos", system: str | None = None
) -> list[int]:
    """Ids before the first visual token; their number is where the visual tokens start.

    Raises:
        UserError: in_question, and the chat template has no one place for the first question;
            after_bos, and BOS opens every turn; image, and the tokenizer has no token for images,
            or the chat template does not write one.
    """
    return _opening(tokenizer, placement, system, _image(tokenizer, placement))[0]


def _image(tokenizer: Any, placement: Placement) -> ImageFormat | None:
    return image_format(tokenizer) if placement == "image" else None


def _opening(
    tokenizer: Any, placement: Placement, system: str | None, image: ImageFormat | None
) -> tuple[list[int], str]:
    """The ids before the image, and the formatted text that they stand for (with any BOS, and with
    the token of the image where it has one)."""
    bos = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    rendered = render(tokenizer, [MARK], system, image)
    written = tokenizer.bos_token or ""
    # White space that a template writes before BOS would stand between two of them.
    blank = rendered[: len(rendered) - len(rendered.lstrip())]
    formatted = next((bos for bos in (written, blank + written) if rendered.startswith(bos)), "")
    if placement == "after_bos":
        if formatted and written in rendered[len(formatted) :]:
            raise UserError(
                f"placement: after_bos would put the visual tokens within the header of a turn, "
                f"since BOS ({written}) opens every turn of the chat template; use placement: "
                "in_question, or template: none"
            )
        return bos, formatted
    if image is not None:
        before, token, _ = rendered.partition(image.token)
        # Beside a special token some tokenizers treat blanks in their own way.
        (ids,) = _tokens(tokenizer, [before[len(formatted) :] + token])
        return bos + ids[:-1], before + token
    before, *rest = rendered.split(MARK)
    if len(rest) != 1:
        raise UserError(
            "placement: in_question needs a chat template that writes the first question once; "
            "use placement: after_bos"
        )
    return bos + _tokens(tokenizer, [before[len(formatted) :]])[0], before


def _filler(tokenizer: Any) -> int:
    """The id for placeholders and padding. What it means is never seen by the model."""
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    return 0


def _tokens(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    return cast(list[list[int]], tokenizer(texts, add_special_tokens=False)["input_ids"])


def _encoded(
    tokenizer: Any, samples: Sequence[Sequence[str]], image: ImageFormat | None
) -> list[list[int]]:
    """The ids of each piece of some samples, in order; what follows an image is tokenized as it is
    beside the image's token."""
    if image is None:
        return _tokens(tokenizer, [piece for pieces in samples for piece in pieces])
    led = [
        piece if i else image.token + piece for pieces in samples for i, piece in enumerate(pieces)
    ]
    first = [i == 0 for pieces in samples for i in range(len(pieces))]
    ids = _tokens(tokenizer, led)
    return [row[1:] if leads else row for row, leads in zip(ids, first, strict=True)]


def _segments(
    tokenizer: Any,
    turns: Sequence[QuestionAnswer],
    opening: str,
    system: str | None,
    image: ImageFormat | None,
) -> list[tuple[str, bool]]:
    """Pieces of the formatted conversation: (question, False), (answer, True), ...

    `opening` is the text that already stands before the image. Each piece is tokenized on its own,
    so a label never covers half a token, and the question of a training sample has the very ids
    that `prompt_ids` gives.
    """
    segments: list[tuple[str, bool]] = []
    done, between = "", ""
    dialogue: list[str] = []
    for turn in turns:
        dialogue.append(turn.question)
        prompt = render(tokenizer, dialogue, system, image)
        if prompt.startswith(done):
            question = between + prompt[len(done) :]
        else:
            question = _after_answer(tokenizer, dialogue, system, image)
        dialogue.append(turn.answer)
        answered = render(tokenizer, dialogue, system, image)
        answer = _without(prompt, answered)
        # Line breaks that a template puts after its end-of-turn token are not part of an answer.
        between = answer[len(answer.rstrip()) :]
        check_question(question, turn.question)
        check_answer(answer, turn.answer)
        segments += [(question, False), (answer.rstrip(), True)]
        done = answered
    if segments:
        segments[0] = (_without(opening, segments[0][0]), False)
    return segments


def _after_answer(
    tokenizer: Any, dialogue: Sequence[str], system: str | None, image: ImageFormat | None
) -> str:
    """What follows the end of the last answer in a `dialogue` (..., answer, question).

    For templates that drop something before an answer once it lies in the past, as Qwen 3 does
    with its reasoning: a sample keeps every answer as it was given.
    """
    *before, answer, question = dialogue
    marked = [*before, answer.rstrip() + MARK]
    ended = render(tokenizer, marked, system, image).rpartition(MARK)
    prompt = render(tokenizer, [*marked, question], system, image).partition(MARK)
    if not (ended[1] and prompt[1]):
        raise UserError(_REWRITES)
    return _without(ended[2].rstrip(), prompt[2])


def _without(beginning: str, text: str) -> str:
    """`text` after `beginning`, which the template must have left as it was."""
    if not text.startswith(beginning):
        raise UserError(_REWRITES)
    return text[len(beginning) :]
