"""Articles of nouns."""

from __future__ import annotations

import pytest

from vista.data.phrases import is_plural, with_article


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [
        ("cat", "a cat"),
        ("owl", "an owl"),
        ("Apple", "an Apple"),
        ("scissors", "scissors"),
        ("glasses", "glasses"),
        ("trousers", "trousers"),
        ("sun glasses", "sun glasses"),
        ("bus", "a bus"),
        ("dress", "a dress"),
        ("iris", "an iris"),
        ("lens", "a lens"),
        ("broccoli", "broccoli"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
    ],
)
def test_articles(noun: str, phrase: str) -> None:
    assert with_article(noun) == phrase


def test_nouns_without_a_plural_are_no_plurals() -> None:
    assert is_plural("scissors")
    assert not is_plural("broccoli")
