"""Names from an endpoint: real HTTP, and answers that are no names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Endpoint, png

from vista.judges import Resources
from vista.judges.kinds.api import Settings as ApiJudgeSettings
from vista.judges.naming import Evidence, clean_name, load_namer

Settings = Callable[..., ApiJudgeSettings]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Cat", "cat"),
        ("  The Red-CAR!\n", "red car"),
        ("a", None),
        ("größe", "größe"),
        ("<b>cat</b>", "b cat b"),
        ("I am sorry, no", None),
        ("12 %", None),
        ("", None),
        ("x" * 41, None),
        ("\u202ecat\x00", "cat"),
    ],
)
def test_nothing_but_a_short_name_gets_through(said: str, name: str | None) -> None:
    assert clean_name(said) == name


def test_names_of_texts_and_images(endpoint: Endpoint, settings: Settings, tmp_path: Path) -> None:
    def answer(texts: list[str]) -> str:
        return json.dumps({"name": f"A {'Cat' if texts else 'red thing'}."})

    endpoint.script = [answer] * 2
    red = png("red")
    items = [Evidence.of_texts(["a cat </s>", "cats"]), Evidence.of_image(lambda: red)]
    namer = load_namer(settings(concurrency=1), Resources(cache=str(tmp_path)))
    assert namer.names([*items, items[0]]) == ["cat", "red thing", "cat"]
    texts, image = (body["messages"] for body in endpoint.requests)
    assert texts[1]["content"] == [{"type": "text", "text": '["a cat \\u003c/s\\u003e", "cats"]'}]
    assert image[1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert "JSON array of texts" in texts[0]["content"] and "sheet" in image[0]["content"]
    # What was named is not asked again, by the same model.
    again = load_namer(settings(), Resources(cache=str(tmp_path)))
    assert again.names(items) == ["cat", "red thing"]
    assert (again.tally.sent, again.tally.kept, len(endpoint.requests)) == (0, 2, 2)


def test_no_name_is_counted_and_asked_for_again_later(
    endpoint: Endpoint, settings: Settings, tmp_path: Path
) -> None:
    told: list[Any] = [
        "cat",
        '{"name": "one two three four"}',
        '{"name": 3}',
        '{"name": "cat", "b": 1}',
    ]
    endpoint.script = [*told, '{"name": "dog"}']
    items = [Evidence.of_texts([text]) for text in "abc"]
    namer = load_namer(settings(concurrency=1), Resources(cache=str(tmp_path)))
    assert namer.names(items) == [None, None, "dog"]
    tally = namer.tally
    assert (tally.verdicts, tally.unanswered, tally.sent) == (3, 2, 3)
    assert sum(tally.reasons.values()) == 2
    endpoint.script = ['{"name": "sky"}', '{"name": "sea"}']
    again = load_namer(settings(concurrency=1), Resources(cache=str(tmp_path)))
    assert again.names(items) == ["sky", "sea", "dog"]
