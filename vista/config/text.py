"""Texts that a run reads: `text:` of a config.

`text` is one of six kinds, told apart by its key `kind`:

- `drawn`     the documents that the drawn world writes beside its images;
- `captions`  the captions of the run's own images;
- `lines`     text files, one document a line;
- `json`      a field of the records of a JSON file, e.g. summaries of Wikipedia;
- `wordnet`   glosses: WordNet's definitions and examples;
- `mixed`     several of these together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from vista.config.base import Settings, later
from vista.config.packages import PackageFile, refuse_outside

PartOfSpeech = Literal["noun", "verb", "adjective", "adverb"]
# As WordNet calls its files: data.noun, data.verb, data.adj, data.adv.
WORDNET_FILES: dict[PartOfSpeech, str] = {
    "noun": "data.noun",
    "verb": "data.verb",
    "adjective": "data.adj",
    "adverb": "data.adv",
}


class DrawnText(Settings):
    """The language corpus that the drawn world writes beside its images."""

    kind: Literal["drawn"] = "drawn"


class LinesText(Settings):
    """Text files, one document a line."""

    kind: Literal["lines"]
    train: str = Field(description="File of documents to label latents on (and train on).")
    heldout: str = Field(description="File of documents to check the dictionaries on.")
    limit: int | None = Field(None, ge=1, description="At most so many documents per split.")


class CaptionsText(Settings):
    """The captions of the run's own images; the first answer of those that have none.

    Split `train` gives the documents to label on, `validation` and `test` those to check on.
    """

    kind: Literal["captions"]
    limit: int | None = Field(None, ge=1, description="At most so many documents per split.")


class _DividedText(Settings):
    """Settings of documents that have no split of their own."""

    heldout: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Share of the documents to check the dictionaries on; which, follows from a "
        "hash of a document's text, so that equal documents are in one split.",
    )
    limit: int | None = Field(
        None, ge=1, description="At most so many documents per split: those with the lowest hashes."
    )


class JsonText(_DividedText, PackageFile):
    """A document a record of a JSON file.

    Its top is a list of records or an object with a record a key; or it has a record a line
    (.jsonl). Either may be compressed (.gz).
    """

    kind: Literal["json"]
    key: str | None = Field(
        None, description="Field of a record that holds the text; none: a record is a text."
    )


class WordNetText(_DividedText):
    """A document a meaning: its words, a colon, its gloss (a definition, often with examples)."""

    kind: Literal["wordnet"]
    package: str | None = later(None, description="Entry of `packages` that holds the folder.")
    folder: str = Field(
        min_length=1,
        description="Folder of data.noun, data.verb, data.adj and data.adv: its path in the "
        "package, such as usr/share/wordnet of Debian's wordnet-base, or else the user's own path.",
    )
    parts_of_speech: tuple[PartOfSpeech, ...] = Field(
        tuple(WORDNET_FILES), min_length=1, description="Whose glosses."
    )

    @model_validator(mode="after")
    def _in_package(self) -> Self:
        if self.package is not None:
            refuse_outside(self.folder, "path in the package")
        return self

    def paths(self) -> list[str]:
        """Return the paths of WordNet's files, in the package or the user's own."""
        parts = dict.fromkeys(self.parts_of_speech)
        return [str(Path(self.folder) / WORDNET_FILES[part]) for part in parts]


TextPart = Annotated[
    DrawnText | LinesText | CaptionsText | JsonText | WordNetText, Field(discriminator="kind")
]


class MixedText(Settings):
    """The documents of several corpora in random order; each keeps its split."""

    kind: Literal["mixed"]
    parts: tuple[TextPart, ...] = Field(min_length=1, description="The corpora.")
    seed: int = Field(0, ge=0, description="Seed of the order.")
    words: tuple[str, ...] = Field(
        (),
        description="Documents that hold one of these words, or its plural in -s or -es, come "
        "before all others: with a `limit`, a small corpus is one in which these words are not "
        "rare. It is then no sample of the language: their latents are denser than in one.",
    )
    limit: int | None = Field(
        None, ge=1, description="At most so many documents per split, the first in that order."
    )


OneText = DrawnText | LinesText | CaptionsText | JsonText | WordNetText
AnyText = OneText | MixedText
TextSettings = Annotated[AnyText, Field(discriminator="kind")]
TEXT_SETTINGS: TypeAdapter[AnyText] = TypeAdapter(TextSettings)


def text_parts(settings: AnyText) -> tuple[OneText, ...]:
    """Return the corpora of a mixed one, or the one that there is."""
    return settings.parts if isinstance(settings, MixedText) else (settings,)


def text_files(settings: AnyText) -> list[str]:
    """Return the user's own text files, sorted: what a rule must watch for changes.

    Files of packages are none of them: they are input artifacts.
    """
    return sorted({name for part in text_parts(settings) for name in _files(part)})


def _files(part: OneText) -> Iterator[str]:
    if isinstance(part, LinesText):
        yield from (part.train, part.heldout)
    elif isinstance(part, JsonText) and part.package is None:
        yield part.file
    elif isinstance(part, WordNetText) and part.package is None:
        yield from part.paths()
