"""The strict judge: the object's own name and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from vista.config.judge_base import JudgeSettings
from vista.judges import Resources
from vista.judges.words import columns, phrase_table, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(JudgeSettings):
    """The object's own name as whole words, singular or plural; the published localization."""

    kind: Literal["whole_word"] = "whole_word"


class WholeWordJudge:
    """Strict: the object's own name as whole words, singular or plural, no synonyms.

    This is how the VISTA paper picks the latents of its pointing game (arXiv 2605.24946).
    """

    name = "whole_word"
    looks = False

    def judge(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.bool_]:
        """Return [texts, objects]: True where the text holds the object's name."""
        import numpy as np

        phrases = phrase_table({name: [name] for name in objects})
        longest = max(map(len, phrases), default=0)
        column = columns(objects)
        named = np.zeros((len(texts), len(objects)), dtype=bool)
        for i, text in enumerate(texts):
            text_words = words(text or "")
            for start in range(len(text_words)):
                for size in range(1, longest + 1):
                    for name in phrases.get(tuple(text_words[start : start + size]), ()):
                        named[i, column[name]] = True
        return named


def create(settings: Settings, resources: Resources) -> WholeWordJudge:
    """Return the judge; it needs nothing."""
    return WholeWordJudge()
