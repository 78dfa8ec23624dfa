"""How long the conversations about images are: from tables of records that are there, else from
settings and annotation files.

Lengths are means, in words and punctuation marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vista.engine.node import Node

# Tokens a word or mark, of a pretrained tokenizer on plain captions; a stand-in's has one a word.
TOKENS_A_WORD = 1.1
# Tokens that a turn has beside its words: those of a chat template (Gemma 9, ChatML 10); line
# break and end without one; the end, as a stand-in writes it.
TEMPLATE_TOKENS, PLAIN_TOKENS, STANDIN_TOKENS = 10, 2, 1
# Words of one of COCO's captions (captions_train2017).
COCO_CAPTION = 11.3
# Rows of a table that are counted, from evenly spaced groups, and bytes of each end of a file.
_GROUPS, _ROWS, _WINDOW = 8, 256, 1 << 20

_WORD = re.compile(r"\w+|[^\w\s]")
_TEXT = r'"\s*:\s*"((?:[^"\\]|\\.)*)"'
_CAPTION, _VALUE = re.compile('"caption' + _TEXT), re.compile('"value' + _TEXT)


@dataclass(frozen=True)
class Conversation:
    """Means of a data set: turns of an image, words of all of them, words of the first one with its
    answer, and of that answer alone."""

    turns: float
    words: float
    first: float
    answer: float

    def tokens(self, llm: Mapping[str, Any]) -> float:
        """Tokens of all turns as a language model's settings write them."""
        return self.words * _rate(llm) + self.turns * _frame(llm)

    def first_tokens(self, llm: Mapping[str, Any]) -> float:
        """Tokens of the first turn, question and answer."""
        return self.first * _rate(llm) + _frame(llm)

    def answer_tokens(self, llm: Mapping[str, Any]) -> float:
        """Tokens of the first answer with its end."""
        return self.answer * _rate(llm) + 1


# Scenes of glyphs and digits: 200 of each were counted, 24.0 words in two turns.
DRAWN = Conversation(2, 24.0, 17.3, 13.3)


def _rate(llm: Mapping[str, Any]) -> float:
    return 1.0 if llm["source"]["kind"] == "standin" else TOKENS_A_WORD


def _frame(llm: Mapping[str, Any]) -> float:
    if llm.get("template") == "none":
        return PLAIN_TOKENS
    system = TOKENS_A_WORD * count_words(llm.get("system") or "")
    return system + (STANDIN_TOKENS if llm["source"]["kind"] == "standin" else TEMPLATE_TOKENS)


def count_words(text: str) -> int:
    """The words and punctuation marks of a text."""
    return len(_WORD.findall(text))


def counted(table: Path) -> Conversation | None:
    """The conversations of a table of records, from some hundred of its rows; None where it has
    none, or cannot be read."""
    import pyarrow.parquet as pq

    rows: list[Sequence[Mapping[str, str]]] = []
    try:
        with pq.ParquetFile(table) as file:
            groups = range(file.num_row_groups)
            for group in groups[:: max(1, len(groups) // _GROUPS)]:
                batches = file.iter_batches(_ROWS, row_groups=[group], columns=["turns"])
                rows += next(batches).column("turns").to_pylist()
        return _mean([[(turn["question"], turn["answer"]) for turn in row] for row in rows])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def expected(records: Node, world: Node | None) -> Conversation | None:
    """The conversations of records that are not there yet; None where nothing tells of them."""
    settings = records.settings
    if world is not None:
        if world.stage != "compose_scenes":
            return DRAWN
        pair = 3 * float(world.settings["pair_share"])  # ", and a noun"
        wordings = [_filled(wording) for wording in world.settings["captions"]]
        return _asked(settings["question"], pair + _mean_words(wordings))
    if settings.get("kind") == "folder" and settings.get("answer"):
        return _asked(settings["question"], count_words(_filled(settings["answer"])))
    if settings.get("kind") in ("coco", "llava"):
        return _of_files(settings)
    return None


def _of_files(settings: Mapping[str, Any]) -> Conversation | None:
    """COCO's captions or LLaVA's conversations: of the first file that is there."""
    entries = [*(settings.get("splits") or {}).values()]
    entries += [settings[key] for key in ("files", "file") if settings.get(key)]
    talks = [entry if isinstance(entry, str) else entry["conversations"] for entry in entries]
    if any(talks):
        lengths = (_talk(Path(talk)) for talk in talks if talk)
        return next((length for length in lengths if length), None)
    files = [Path(entry["captions"]) for entry in entries if entry["captions"]]
    if not files:
        return None
    captions = next((texts for file in files if (texts := _strings(_CAPTION, _ends(file)))), None)
    words = _mean_words(captions) if captions else COCO_CAPTION
    return _asked(settings["question"], words)


def _talk(path: Path) -> Conversation | None:
    text = _ends(path)
    values, talks = _strings(_VALUE, text), text.count('"conversations"')
    if not values or not talks:
        return None
    turns = max(1.0, len(values) / 2 / talks)
    words = _mean_words(value.replace("<image>", "") for value in values)
    answers = _mean_words(values[1::2]) if len(values) > 1 else words
    return Conversation(turns, 2 * turns * words, 2 * words, answers)


def _strings(pattern: re.Pattern[str], text: str) -> list[str]:
    """The strings of JSON that a pattern finds, without their escapes."""
    strings = []
    for found in pattern.findall(text):
        try:
            strings.append(json.loads(f'"{found}"', strict=False))
        except ValueError:
            continue
    return strings


def _ends(path: Path) -> str:
    """The two ends of a file, or all of a small one; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            content = file.read(_WINDOW)
            if size > _WINDOW:
                file.seek(max(_WINDOW, size - _WINDOW))
                content += file.read(_WINDOW)
    except (OSError, ValueError):
        return ""
    return content.decode("utf-8", "replace")


def _filled(wording: str) -> str:
    """A wording with as many words as a scene puts into it."""
    return re.sub(r"\{objects?\}", "a noun", wording).replace("{", "").replace("}", "")


def _asked(question: str, answer: float) -> Conversation:
    words = count_words(question) + answer
    return Conversation(1, words, words, answer)


def _mean(rows: Sequence[Sequence[tuple[str, str]]]) -> Conversation | None:
    told = [row for row in rows if row]
    if not told:
        return None
    answers = [count_words(row[0][1]) for row in told]
    words = [sum(count_words(text) for turn in row for text in turn) for row in told]
    first = [count_words(row[0][0]) + answer for row, answer in zip(told, answers, strict=True)]
    n = len(told)
    return Conversation(sum(map(len, told)) / n, sum(words) / n, sum(first) / n, sum(answers) / n)


def _mean_words(texts: Iterable[str]) -> float:
    counts = [count_words(text) for text in texts]
    return sum(counts) / max(1, len(counts))
