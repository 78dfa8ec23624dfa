"""A judge by the first letters of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vista.config.judge_base import JudgeSettings
from vista.judges import Resources

from .letters import beginning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(JudgeSettings):
    """A text names what begins with the same letters."""

    kind: Literal["first_letter"] = "first_letter"
    letters: int = Field(1, ge=1, description="letters that are compared")


class FirstLetterJudge:
    """Says yes where text and name begin alike."""

    name = "first_letter"
    looks = False

    def __init__(self, letters: int) -> None:
        self.letters = letters

    def judge(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.bool_]:
        """Return [texts, objects]: True where both begin with the same letters."""
        import numpy as np

        names = [beginning(name, self.letters) for name in objects]
        starts = [beginning(text or "", self.letters) for text in texts]
        rows = [[bool(start) and start == name for name in names] for start in starts]
        return np.array(rows, dtype=bool).reshape(len(texts), len(objects))


def create(settings: Settings, resources: Resources) -> FirstLetterJudge:
    """Return the judge."""
    return FirstLetterJudge(settings.letters)
