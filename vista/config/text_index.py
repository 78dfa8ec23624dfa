"""Settings of the index of words in context."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vista.config.base import Settings


class TextIndexSettings(Settings):
    """Which tokens of the text keep their residual stream, to be searched by cosine.

    Disk: at most min(tokens, words x per_word) x layers x width x 2 bytes (float16); a job that
    reads the index holds it in memory.
    """

    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        min_length=1,
        description="blocks after which the stream is kept, counted from 0; null: those with an "
        "SAE. The nearest vectors are searched over all of them",
    )
    tokens: int = Field(
        60_000, gt=0, description="text tokens that are read, of documents in random order"
    )
    per_word: int = Field(
        50,
        gt=0,
        description="most tokens of one word that are kept, those of short documents first",
    )
    skip_first: int = Field(
        1, ge=0, description="tokens at the start of each document that are left out, BOS apart"
    )
    context: int = Field(
        60, ge=0, description="characters before a token that are kept as its context"
    )
    batch_documents: int = Field(64, gt=0, description="documents a forward pass")
    max_length: int = Field(512, gt=1, description="tokens a document; the rest is cut off")
    seed: int = Field(0, ge=0, description="seed of the order of documents")

    def most_vectors(self, n_words: int | None) -> int:
        """Return the most vectors that are kept of a text of `n_words` words (None: unknown)."""
        tokens = self.tokens if n_words is None else min(self.tokens, n_words * self.per_word)
        return tokens * len(self.layers or ())
