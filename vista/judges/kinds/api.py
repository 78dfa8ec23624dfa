"""The judge behind an OpenAI-compatible endpoint: images in, a JSON list of verdicts out."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

from vista.config.judge_base import EndpointSettings
from vista.errors import UserError
from vista.judges import Resources
from vista.judges.asking import Answer, AskingJudge, Question
from vista.judges.backends.answers import Malformed, loads
from vista.judges.naming import Evidence, Namer, clean_name
from vista.judges.prompts import NAMING, PROMPTS, NamingPrompt, Prompt, quoted, quoted_list

# What endpoints read, by the first bytes of a file.
_MEDIA = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"))


class Settings(EndpointSettings):
    """Any endpoint that speaks OpenAI's chat completions: images in, JSON out."""

    names: ClassVar[bool] = True
    kind: Literal["api"] = "api"


def create(settings: Settings, resources: Resources) -> AskingJudge:
    """Return the judge.

    Raises:
        UserError: The environment variable that should hold the key is not set.
    """
    prompt = PROMPTS[settings.prompt]
    return AskingJudge(
        "api",
        settings.model,
        prompt.identity,
        ApiAsker(settings, prompt),
        resources,
        max_labels=settings.labels_per_question,
        max_unanswered=settings.max_unanswered,
        served=_served(settings),
    )


def create_namer(settings: Settings, resources: Resources) -> Namer:
    """Return the judge that names. Raises UserError as `create`."""
    prompt = NAMING[settings.prompt]
    asker = ApiNameAsker(settings, prompt)
    return Namer("api", settings.model, prompt.identity, asker, resources, _served(settings))


def _served(settings: Settings) -> dict[str, str | float | None]:
    # Two endpoints may call two models by one name.
    return {"base_url": settings.base_url, "temperature": settings.temperature}


class ApiAsker:
    """Turns questions into chat messages and answers into verdicts."""

    def __init__(self, settings: Settings, prompt: Prompt) -> None:
        from vista.judges.backends.chat import ChatEndpoint

        self._prompt = prompt
        # One endpoint for all calls: its budget is that of the stage.
        self._questions: Sequence[Question] = ()
        self._endpoint = ChatEndpoint(settings, self._parse)

    def __call__(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield the number of a question and its answer, as they come."""
        self._questions = questions
        for number, verdicts, reason in self._endpoint.ask([self._asked(q) for q in questions]):
            yield number, Answer(verdicts, reason)

    def _asked(self, question: Question) -> Callable[[], list[dict[str, Any]]]:
        return lambda: chat_messages(question, self._prompt)

    def _parse(self, number: int, text: str) -> tuple[bool, ...]:
        return parse_answer(text, len(self._questions[number].labels))


class ApiNameAsker:
    """Turns evidence into chat messages."""

    def __init__(self, settings: Settings, prompt: NamingPrompt) -> None:
        from vista.judges.backends.chat import ChatEndpoint

        self._prompt = prompt
        self._endpoint = ChatEndpoint(settings, parse_name)

    def __call__(self, items: Sequence[Evidence]) -> Iterator[tuple[int, str | None, str | None]]:
        """Yield the number of an item, its name and why there is none, as they come."""
        return self._endpoint.ask([self._asked(item) for item in items])

    def _asked(self, item: Evidence) -> Callable[[], list[dict[str, Any]]]:
        def messages() -> list[dict[str, Any]]:
            question, data = self._prompt.texts, [{"type": "text", "text": item.subject}]
            if item.image is not None:
                question, data = self._prompt.images, [_image_part(item.image())]
            instruction = f"{question} {self._prompt.as_json}"
            return _messages(instruction, data)

        return messages


def parse_name(number: int, text: str) -> str:
    """Return the name of an answer: {"name": a word or a few} and nothing else.

    Raises:
        Malformed: It is anything else.
    """
    answer = loads(text)
    value = answer.get("name") if isinstance(answer, dict) and len(answer) == 1 else None
    name = clean_name(value) if isinstance(value, str) else None
    if name is None:
        raise Malformed('no object with a short "name" alone')
    return name


def chat_messages(question: Question, prompt: Prompt) -> list[dict[str, Any]]:
    """Return the messages of one question: instruction, then the data alone.

    Raises:
        UserError: The image is of no format that endpoints read.
    """
    labels = quoted_list(question.labels)
    if question.image is None:
        data = f'{{"text": {quoted(question.subject)}, "names": {labels}}}'
        content: list[dict[str, Any]] = [{"type": "text", "text": data}]
    else:
        content = [
            _image_part(question.image()),
            {"type": "text", "text": labels},
        ]
    return _messages(prompt.text if question.image is None else prompt.image, content)


def _messages(instruction: str, content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": instruction}, {"role": "user", "content": content}]


def _image_part(image: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(image)}}


def data_url(image: bytes) -> str:
    """Return an image's file as a data URL.

    Raises:
        UserError: It is no PNG, JPEG, GIF or WebP.
    """
    media = next((name for start, name in _MEDIA if image.startswith(start)), None)
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        media = "webp"
    if media is None:
        raise UserError("judge: an image is no PNG, JPEG, GIF or WebP file; convert the images")
    return f"data:image/{media};base64,{base64.b64encode(image).decode()}"


def parse_answer(text: str, n: int) -> tuple[bool, ...]:
    """Return the verdicts of an answer: {"answers": [n times true or false]} and nothing else.

    Raises:
        Malformed: It is anything else.
    """
    answer = loads(text)
    if not isinstance(answer, dict) or set(answer) != {"answers"}:
        raise Malformed('no object with "answers" alone')
    verdicts = answer["answers"]
    if not isinstance(verdicts, list) or not all(isinstance(verdict, bool) for verdict in verdicts):
        raise Malformed("answers that are not all true or false")
    if len(verdicts) != n:
        raise Malformed("answers of another number than the labels")
    return tuple(verdicts)
