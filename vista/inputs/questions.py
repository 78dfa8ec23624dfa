"""Questions that the language model is asked about images."""

from __future__ import annotations

from collections.abc import Sequence

from vista.data.records import Record

# The question about images whose data hold no conversation.
DEFAULT_QUESTION = "Describe the image."


def first_questions(shown: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """Return the first question about each image of `shown`.

    An image without a question has the first one of the data (`records`), else the default.
    """
    questions = (record.turns[0].question for record in records if record.turns)
    default = next(questions, DEFAULT_QUESTION)
    return [record.turns[0].question if record.turns else default for record in shown]
