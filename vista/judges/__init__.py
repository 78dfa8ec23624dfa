"""Judges say whether a label (or a caption) names an object: one interface, chosen by name.

A new judge is a class with a method `judge` in a module of its own, and one line below. Labels
are text of unknown origin: a judge reads them and never acts on them.
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


# A judge lives in the module of its name, as `JUDGE`; it is imported when a run asks for it.
_NAMES: list[str] = []


def register_judge(name: str) -> None:
    """Make the judge of the module `vista.judges.<name>` known.

    Raises:
        ValueError: There is a judge of that name already.
    """
    if name in _NAMES:
        raise ValueError(f"judge {name!r} is registered twice")
    _NAMES.append(name)


register_judge("lexical")
register_judge("whole_word")


def judge_names() -> list[str]:
    """Return the names that `load_judge` knows, sorted."""
    return sorted(_NAMES)


def load_judge(name: str) -> Judge:
    """Return a new judge of the registered `name`.

    Raises:
        UserError: No judge has that name.
    """
    if name not in _NAMES:
        raise UserError(f"judge: {name!r} is unknown; choose one of {', '.join(judge_names())}")
    judge_class: Any = importlib.import_module(f"vista.judges.{name}").JUDGE
    return cast(Judge, judge_class())
