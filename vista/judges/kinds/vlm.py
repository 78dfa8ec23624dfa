"""The judge that is a local image-text model: yes or no to one label at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from vista.config.checkpoint import Checkpoint
from vista.config.judge_base import AskingSettings, Device, Dtype, short_name
from vista.judges import Resources
from vista.judges.asking import Answer, AskingJudge, Question
from vista.judges.naming import Evidence, Namer
from vista.judges.prompts import NAMING, PROMPTS, NamingPrompt, Prompt, quoted

if TYPE_CHECKING:
    from vista.judges.backends.image_text import ImageTextModel


class Settings(AskingSettings):
    """A local image-text model that answers yes or no to one label at a time."""

    names: ClassVar[bool] = True
    kind: Literal["vlm"] = "vlm"
    source: Checkpoint = Field(
        description="Image-text model with a chat template that AutoModelForImageTextToText loads."
    )
    batch_size: int = Field(4, ge=1, description="Questions a forward pass.")
    device: Device = Field("cpu", description='"cpu", "cuda", "cuda:1" or "mps".')
    dtype: Dtype = Field("float32", description="Number format of the weights.")


def create(settings: Settings, resources: Resources) -> AskingJudge:
    """Return the judge.

    Raises:
        UserError: Its model cannot be loaded or used.
    """
    prompt = PROMPTS[settings.prompt]
    name, model = _load(settings, resources)
    return AskingJudge(
        "vlm",
        name,
        prompt.identity,
        VlmAsker(model, prompt, settings.batch_size),
        resources,
        max_labels=settings.labels_per_question,
        max_unanswered=settings.max_unanswered,
    )


def create_namer(settings: Settings, resources: Resources) -> Namer:
    """Return the judge that names. Raises UserError as `create`."""
    prompt = NAMING[settings.prompt]
    name, model = _load(settings, resources)
    return Namer("vlm", name, prompt.identity, VlmNameAsker(model, prompt), resources)


def _load(settings: Settings, resources: Resources) -> tuple[str, ImageTextModel]:
    from vista.judges.backends.image_text import ImageTextModel, model_digest

    location = resources.model or str(settings.source.path)
    model = ImageTextModel(location, device=settings.device, dtype=settings.dtype)
    # The number format can change an answer, so it names the model too.
    name = f"{short_name(settings.source)}-{model_digest(location)}-{settings.dtype}"
    return name, model


class VlmNameAsker:
    """Lets the model write a few tokens on each item."""

    def __init__(self, model: ImageTextModel, prompt: NamingPrompt) -> None:
        self._model = model
        self._prompt = prompt

    def __call__(self, items: Sequence[Evidence]) -> Iterator[tuple[int, str | None, str | None]]:
        """Yield the number of an item, the model's answer and None, in their order."""
        for number, item in enumerate(items):
            if item.image is None:
                text, image = f"{self._prompt.texts} {item.subject}", None
            else:
                text, image = self._prompt.images, item.image()
            yield number, self._model.say(f"{text} {self._prompt.alone}", image), None


class VlmAsker:
    """Asks about one label at a time, several a forward pass."""

    def __init__(self, model: ImageTextModel, prompt: Prompt, batch_size: int) -> None:
        self._model = model
        self._prompt = prompt
        self._batch_size = batch_size

    def __call__(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield the number of a question and its answer, in their order."""
        for number, question in enumerate(questions):
            image = None if question.image is None else question.image()
            prompts = [(self._text(question, label), image) for label in question.labels]
            verdicts: list[bool | None] = []
            for start in range(0, len(prompts), self._batch_size):
                verdicts += self._model.yes(prompts[start : start + self._batch_size])
            known = tuple(verdict for verdict in verdicts if verdict is not None)
            if len(known) < len(verdicts):
                yield number, Answer(None, "the model gives no number")
            else:
                yield number, Answer(known)

    def _text(self, question: Question, label: str) -> str:
        if question.image is not None:
            return self._prompt.one_image.format(label=quoted(label))
        text = quoted(question.subject)
        return self._prompt.one_text.format(text=text, label=quoted(label))
