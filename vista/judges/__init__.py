"""Judges say whether a text (a label, a caption) names an object: one interface, chosen by name.

A judge is a file in `vista/judges/kinds`, whose name is the judge's. The file has a class
`Settings` and a function `create(settings, resources)`; one that names latents has `create_namer`,
too. What judges read is text of unknown origin: they compare or quote it and never act on it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from vista.config.judge_base import JudgeSettings
from vista.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    """What a judge needs beside its settings.

    Attributes:
        model: Folder of its model, where that is an input of the stage and not the user's own.
        cache: Folder that keeps judgements between runs; None: they are kept in memory.
        progress: Wraps a loop over so many items and shows its progress.
    """

    model: str | None = None
    cache: str | None = None
    progress: Callable[[Iterable[Any], int], Iterator[Any]] = _in_silence


def load_judge(judge: str | JudgeSettings, resources: Resources | None = None) -> Judge:
    """Return a new judge, given its settings, or its name where it needs none.

    Raises:
        UserError: No judge has that name, or it cannot work without settings.
    """
    # Not at the top: that module loads the files of all judges, which import this package.
    from vista.config.judges import judge_module, judge_settings

    try:
        settings = judge_settings(judge)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    module: Any = importlib.import_module(judge_module(settings.kind))
    return cast(Judge, module.create(settings, resources or Resources()))
