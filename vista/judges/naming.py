"""Judges that name: a word or a few for what the texts or images that fire a latent share.

An answer is text of unknown origin, and nothing but a short name gets through: letters in lower
case, a few words. What is longer or empty is no name, and is counted as unanswered.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from vista.config.judge_base import JudgeSettings
from vista.judges import Resources
from vista.judges.asking import Tally
from vista.judges.backends.judgements import Judgements
from vista.judges.prompts import quoted_list

_MOST_WORDS, _LONGEST = 3, 40
_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class Evidence:
    """What fires a latent most: texts, or the file of an image (a sheet of several).

    subject: the texts as a JSON array, or the SHA-256 of the image's file.
    """

    subject: str
    image: Callable[[], bytes] | None = field(default=None, compare=False)

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Evidence:
        """Texts, strongest first."""
        return cls(quoted_list(texts))

    @classmethod
    def of_image(cls, image: Callable[[], bytes]) -> Evidence:
        """An image, read once now and once when it is asked about."""
        return cls(hashlib.sha256(image()).hexdigest(), image)


class NameAsker(Protocol):
    """A model behind a namer."""

    def __call__(self, items: Sequence[Evidence]) -> Iterator[tuple[int, str | None, str | None]]:
        """Yield (number of the item, answer or None, reason where it is None), each item once."""
        ...


class Namer:
    """Asks a model for names, once for the same evidence, in this run and later ones.

    Args:
        kind: Name of the judge.
        model: Name of the model that it asks.
        prompt: Identity of the prompt.
        asker: The model.
        resources: Folder of the kept names, and progress.
        served: Further values that an answer depends on.
    """

    def __init__(
        self,
        kind: str,
        model: str,
        prompt: str,
        asker: NameAsker,
        resources: Resources,
        served: Mapping[str, str | float | None] | None = None,
    ) -> None:
        self.name = f"{kind}:{model}"
        self.tally = Tally(0, 0, 0, 0, {})
        self._asker = asker
        self._progress = resources.progress
        self._kept: Judgements[str] = Judgements(
            resources.cache, judge=f"{kind}-names", model=model, prompt=prompt, **(served or {})
        )

    def names(self, items: Sequence[Evidence]) -> list[str | None]:
        """Return a name for each item; None where the model gave none (`tally` counts them).

        Raises:
            UserError: The model cannot be asked. Earlier names are kept.
        """
        named: dict[Evidence, str | None] = {}
        for item in dict.fromkeys(items):
            if (known := self._kept.find(item.image is not None, item.subject, ())) is not None:
                named[item] = clean_name(known[0]) if known else None
        self.tally.kept += len(named)
        new = [item for item in dict.fromkeys(items) if item not in named]
        for number, text, reason in self._progress(self._asker(new), len(new)):
            item, name = new[number], None if text is None else clean_name(text)
            if name is None:
                reason = reason or "no name"
                self.tally.reasons[reason] = self.tally.reasons.get(reason, 0) + 1
            self._kept.add(
                item.image is not None,
                item.subject,
                (),
                None if name is None else (name,),
                reason if name is None else None,
            )
            self.tally.sent += 1
            named[item] = name
        self.tally.verdicts += len(named)
        self.tally.unanswered += sum(name is None for name in named.values())
        return [named[item] for item in items]


def clean_name(text: str) -> str | None:
    """A name out of a model's answer: at most three words of letters, in lower case, without an
    article before them. None where it is longer, as a sentence is, or has no letter."""
    words = re.findall(r"[^\W\d_]+", text[:1000].lower())
    if words and words[0] in _ARTICLES:
        words = words[1:]
    name = " ".join(words)
    return name if 0 < len(words) <= _MOST_WORDS and len(name) <= _LONGEST else None


def load_namer(settings: JudgeSettings, resources: Resources) -> Namer:
    """Return the judge that names, from the module of its kind.

    Raises:
        UserError: Its model cannot be loaded, or its key is not set.
    """
    # As in `vista.judges.load_judge`.
    from vista.config.judges import judge_module

    module: Any = importlib.import_module(judge_module(settings.kind))
    return cast(Namer, module.create_namer(settings, resources))
