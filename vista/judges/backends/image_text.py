"""A local image-text model that is asked for yes or no: the likelier of the two next words.

No answer is generated or parsed, so none can be malformed, and no text can talk the model into
another form of answer.
"""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vista.errors import UserError
from vista.foreign.chat import VARIABLES, chat_template, template_error
from vista.foreign.pixels import to_rgb
from vista.foreign.pretrained import load_model, load_part, loading
from vista.judges.backends.placement import on_device

# What a model's answers depend on.
_FILES = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt"})
# How a model may begin its answer; each counts if it is one token of the model's own.
_WORDS = {
    True: ("yes", "Yes", "YES", " yes", " Yes"),
    False: ("no", "No", "NO", " no", " No"),
}
_MOST_TOKENS = 12  # of an answer that is written
_EXPECTED = "a save_pretrained folder with a processor, a chat template and safetensors weights"


class ImageTextModel:
    """An image-text model on one device.

    Args:
        location: save_pretrained folder.
        device: Where it runs.
        dtype: Number format of its weights.

    Raises:
        UserError: the folder is missing or lacks safetensors weights, weights of the model or a
            chat template, or its tokenizer has no single token for yes or no.
    """

    def __init__(self, location: str, *, device: str, dtype: str) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        self._location = location
        with loading(f"judge.source: {location} cannot be used as an image-text model", _EXPECTED):
            # Without torchvision transformers takes the processors that work on Pillow images.
            self._processor = load_part(AutoProcessor, location)
            model, missing = load_model(
                AutoModelForImageTextToText, location, dtype=getattr(torch, dtype)
            )
        if missing:
            raise self._unusable(f"weights are missing: {missing[0]}")
        self._template = chat_template(getattr(self._processor, "chat_template", None))
        if self._template is None:
            raise self._unusable("it has no chat template")
        self._model = on_device(model, device)
        self._device = device
        # Logits of all tokens would take gigabytes where the vocabulary is large.
        known = inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        tokenizer = getattr(self._processor, "tokenizer", None)
        if tokenizer is None:
            raise self._unusable("it has no processor with a tokenizer")
        # The answer is read behind the last token, so that must be the same place in each row.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._tokens = {verdict: self._single_tokens(words) for verdict, words in _WORDS.items()}

    def yes(self, questions: Sequence[tuple[str, bytes | None]]) -> list[bool | None]:
        """Return for each (question, image's file or None) whether yes is likelier than no.

        None where the model gives no number. All have an image, or none has.

        Raises:
            UserError: A file is no image.
        """
        import torch

        inputs = self._inputs(questions)
        with torch.inference_mode():
            logits_bv = self._model(**inputs, **self._last_only).logits[:, -1].float()
            yes_b = torch.logsumexp(logits_bv[:, self._tokens[True]], dim=1)
            no_b = torch.logsumexp(logits_bv[:, self._tokens[False]], dim=1)
        finite = torch.isfinite(yes_b) & torch.isfinite(no_b)
        return [
            bool(yes) if known else None
            for yes, known in zip((yes_b > no_b).tolist(), finite.tolist(), strict=True)
        ]

    def say(self, text: str, image: bytes | None) -> str:
        """Return the first line of the likeliest answer, token by token, of few tokens.

        Raises:
            UserError: The file is no image.
        """
        import torch

        tokenizer = self._processor.tokenizer
        inputs = self._inputs([(text, image)])
        with torch.inference_mode():
            said_bt = self._model.generate(
                **inputs,
                max_new_tokens=_MOST_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        new_t = said_bt[0, inputs["input_ids"].shape[1] :]
        answer: str = tokenizer.decode(new_t, skip_special_tokens=True)
        return answer.strip().partition("\n")[0]

    def _inputs(self, questions: Sequence[tuple[str, bytes | None]]) -> Any:
        chats = []
        images = []
        for text, image in questions:
            content: list[dict[str, str]] = [{"type": "text", "text": text}]
            if image is not None:
                content.insert(0, {"type": "image"})
                images.append([_picture(image)])
            chats.append(content)
        prompts = [self._prompt(chat) for chat in chats]
        # The chat template has written the beginning-of-text token itself, if there is one.
        start = self._processor.tokenizer.bos_token
        own_start = bool(start) and prompts[0].startswith(start)
        with loading(f"judge.source: {self._location} cannot take a question", _EXPECTED):
            return self._processor(
                images=images or None,
                text=prompts,
                return_tensors="pt",
                padding=True,
                add_special_tokens=not own_start,
            ).to(self._device, self._model.dtype)

    def _prompt(self, content: list[dict[str, str]]) -> str:
        """The question of `content` as the chat template writes it, up to the answer.

        Raises UserError where the template fails or does not write the question.
        """
        try:
            written = self._processor.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=self._template,
                add_generation_prompt=True,
                tokenize=False,
                **VARIABLES,
            )
        except Exception as error:
            raise template_error(error) from error
        if content[-1]["text"].strip() not in written:
            raise self._unusable("its chat template does not write the question that it is given")
        return str(written)

    def _single_tokens(self, words: Sequence[str]) -> list[int]:
        tokenizer = self._processor.tokenizer
        ids_of = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        ids = sorted({ids[0] for ids in ids_of if len(ids) == 1} - {tokenizer.unk_token_id})
        if not ids:
            raise self._unusable(f"its tokenizer has no single token for {words[0]!r}")
        return ids

    def _unusable(self, reason: str) -> UserError:
        return UserError(
            f"judge.source: {self._location} cannot be used as an image-text model ({reason}); "
            f"expected {_EXPECTED}"
        )


def model_digest(location: str) -> str:
    """Return a digest of a model's files, which distinguishes it from others of its name."""
    folder = Path(location)
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _FILES and path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.relative_to(folder).as_posix()}={digest}\n".encode())
    return whole.hexdigest()[:12]


def _picture(image: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(image)) as picture:
            return to_rgb(picture)
    except Exception as error:  # decoders may raise anything on a damaged file
        raise UserError(
            "judge: an image cannot be read; check the images of the records"
        ) from error
