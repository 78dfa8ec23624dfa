"""Judges say whether a label (or a caption) names an object: one interface, chosen by name.

A new judge is a class with a method `judge` and one line in `_JUDGES`; it is imported only when a
run asks for it. Labels are text of unknown origin: a judge reads them and never acts on them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from vista.errors import UserError


class Judge(Protocol):
    """Decides which of the objects each text names."""

    name: str

    def judge(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.bool_]:
        """Return [texts, objects]: True where the text names the object.

        Args:
            texts: Labels of latents or captions. None and "" name nothing.
            objects: Names of objects, such as COCO's categories. "" is never named.
        """
        ...


# name -> "module:class". Lazy, so that a judge may need heavy packages without burdening others.
_JUDGES: dict[str, str] = {}


def register_judge(name: str, target: str) -> None:
    """Make the class `target` ("module:class") known as the judge `name`.

    Raises:
        ValueError: There is a judge of that name already.
    """
    if name in _JUDGES:
        raise ValueError(f"judge {name!r} is registered twice: {_JUDGES[name]} and {target}")
    _JUDGES[name] = target


register_judge("lexical", "vista.judges.lexical:LexicalJudge")
register_judge("whole_word", "vista.judges.lexical:WholeWordJudge")


def judge_names() -> list[str]:
    """Return the names that `load_judge` knows, sorted."""
    return sorted(_JUDGES)


def load_judge(name: str) -> Judge:
    """Return a new judge of the registered `name`.

    Raises:
        UserError: No judge has that name.
    """
    if name not in _JUDGES:
        raise UserError(f"judge: {name!r} is unknown; choose one of {', '.join(judge_names())}")
    module, _, attribute = _JUDGES[name].partition(":")
    judge_class: Any = getattr(importlib.import_module(module), attribute)
    return cast(Judge, judge_class())
