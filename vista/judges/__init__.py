"""Judges say whether a text (a label, a caption) names an object: one interface, chosen by name.

A judge lives in a module of its own, which has a function `create(settings, resources)`; a new one
is such a module, its settings in `vista.config.judges`, and one line below. What judges read is
text of unknown origin: they compare or quote it and never act on it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from vista.config.judges import JudgeSettings
from vista.errors import UserError

T = TypeVar("T")

# Verdicts of a judge that may fail to give one.
NO, YES, UNANSWERED = 0, 1, -1


class Judge(Protocol):
    """Decides which of the objects each text names. `looks`: it can be shown images too."""

    name: str
    looks: bool

    def judge(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.bool_]:
        """Return [texts, objects]: True where the text names the object.

        Args:
            texts: Labels of latents or captions. None and "" name nothing.
            objects: Names of objects, such as COCO's categories. "" is never named.
        """
        ...


@dataclass(frozen=True)
class Shown:
    """An image and what may be in it.

    image: reads the bytes of the image's file (PNG, JPEG, ...), when they are needed.
    labels: one or more; None and "" are never in an image.
    """

    image: Callable[[], bytes]
    labels: Sequence[str | None]


class LookingJudge(Judge, Protocol):
    """A judge that can be shown images."""

    def judge_images(self, items: Sequence[Shown]) -> NDArray[np.int8]:
        """Return [items, labels]: YES, NO or UNANSWERED for each label of each image.

        Raises:
            ValueError: The items differ in their number of labels.
        """
        ...


def _in_silence(items: Iterable[Any], total: int) -> Iterator[Any]:
    yield from items


@dataclass(frozen=True)
class Resources:
    """What a judge is given beside its settings.

    Attributes:
        model: Folder of its model, where that is an input of the stage and not the user's own.
        cache: Folder that keeps judgements between runs; None: they are kept in memory.
        progress: Wraps a loop over that many items and tells how far it is.
    """

    model: str | None = None
    cache: str | None = None
    progress: Callable[[Iterable[Any], int], Iterator[Any]] = _in_silence


# A judge lives in the module of its name; it is imported when a run asks for it.
_NAMES: list[str] = []


def register_judge(name: str) -> None:
    """Make the judge of the module `vista.judges.<name>` known.

    Raises:
        ValueError: There is a judge of that name already.
    """
    if name in _NAMES:
        raise ValueError(f"judge {name!r} is registered twice")
    _NAMES.append(name)


register_judge("api")
register_judge("embedding")
register_judge("lexical")
register_judge("vlm")
register_judge("whole_word")


def judge_names() -> list[str]:
    """Return the names that `load_judge` knows, sorted."""
    return sorted(_NAMES)


def load_judge(judge: str | JudgeSettings, resources: Resources | None = None) -> Judge:
    """Return a new judge, given its settings, or its name where it needs none.

    Raises:
        UserError: No judge has that name, or it cannot work without settings.
    """
    settings: Any = _settings(judge) if isinstance(judge, str) else judge
    module: Any = importlib.import_module(f"vista.judges.{settings.kind}")
    return cast(Judge, module.create(settings, resources or Resources()))


def _settings(name: str) -> JudgeSettings:
    if name not in _NAMES:
        raise UserError(f"judge: {name!r} is unknown; choose one of {', '.join(judge_names())}")
    adapter: TypeAdapter[JudgeSettings] = TypeAdapter(JudgeSettings)
    try:
        return adapter.validate_python({"kind": name})
    except ValidationError as error:
        missing = ", ".join(str(each["loc"][-1]) for each in error.errors())
        raise UserError(
            f"judge: {name!r} needs settings ({missing}); give `judge: {{kind: {name}, ...}}`"
        ) from None
