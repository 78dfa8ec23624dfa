"""Every judgement of a model, kept by the content of its question.

One file of JSON lines for each (judge, model, prompt, endpoint). A line is appended with one write
and an fsync, so a killed process loses at most the line that it was writing; a line that is torn or
altered is passed over, its question asked again, and the number of such lines printed. Several
processes may append to one file.

    {"verdicts": [true | false, ..] (of a namer: [name]) or null with "reason", "labels": [..]
     (of a namer: []), "subject": a text, or
     where "seen" is true the SHA-256 of an image's file, "judge", "model", "prompt", for an
     endpoint "base_url" and "temperature", "key": SHA-256 over all the others}
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from vista.engine.disk import force_to_disk
from vista.errors import UserError, reason_of

Verdicts = tuple[bool, ...]
A = TypeVar("A", bool, str)
_Key = tuple[bool, str, tuple[str, ...]]
# More than any line of ours; what is longer was not written here.
_LONGEST_LINE = 1 << 20


class Judgements(Generic[A]):
    """The judgements of one model under one prompt.

    Args:
        folder: Where their file lies; None: they are kept in memory only.
        judge: Name of the judge.
        model: Name of the model.
        prompt: Identity of the prompt.
        served: Further values that distinguish the model from others.

    Raises:
        UserError: The file cannot be read or created.
    """

    def __init__(
        self,
        folder: str | None,
        *,
        judge: str,
        model: str,
        prompt: str,
        **served: str | float | None,
    ) -> None:
        self._source = {"judge": judge, "model": model, "prompt": prompt, **served}
        self._known: dict[_Key, tuple[A, ...]] = {}
        self._path: Path | None = None
        if folder is not None:
            self._path = Path(folder) / f"{judge}-{_digest(self._source)[:10]}.jsonl"
            self._read(self._path)

    def find(self, seen: bool, subject: str, labels: tuple[str, ...]) -> tuple[A, ...] | None:
        """Return the verdicts on `labels`, None where the question has no answer yet."""
        return self._known.get((seen, subject, labels))

    def add(
        self,
        seen: bool,
        subject: str,
        labels: tuple[str, ...],
        verdicts: tuple[A, ...] | None,
        reason: str | None = None,
    ) -> None:
        """Keep the answer to a question, on disk before this returns.

        An unanswered question is written for the record, and asked again by the next run.
        """
        if verdicts is not None:
            self._known[seen, subject, labels] = verdicts
        if self._path is None:
            return
        line: dict[str, Any] = {
            "verdicts": None if verdicts is None else list(verdicts),
            "labels": list(labels),
            "subject": subject,
            "seen": seen,
            **self._source,
        }
        if reason is not None:
            line["reason"] = reason
        line["key"] = _digest(line)
        self._append(self._path, json.dumps(line) + "\n")

    def _append(self, path: Path, line: str) -> None:
        try:
            # "a+": an incomplete last line must be seen before a line is appended.
            with path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        line = f"\n{line}"
                data = line.encode()
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({reason_of(error)}); free space or correct its rights: "
                "the judgements before this one are kept"
            ) from error

    def _read(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab"):
                force_to_disk(path.parent)
            with path.open("rb") as file:
                damaged = 0
                while line := file.readline(_LONGEST_LINE):
                    if not line.isspace() and not self._learn(line):
                        damaged += 1
        except OSError as error:
            raise UserError(f"{path} cannot be read or created ({reason_of(error)})") from error
        if damaged:
            print(f"{path}: {damaged} damaged lines passed over; their questions are asked again")

    def _learn(self, line: bytes) -> bool:
        """Read one line; return False where this class did not write it."""
        try:
            row = json.loads(line)
            key = row.pop("key")
            if key != _digest(row) or any(row[k] != v for k, v in self._source.items()):
                return False
            seen, subject, labels = row["seen"], row["subject"], tuple(row["labels"])
            if row["verdicts"] is not None:
                self._known[seen, subject, labels] = tuple(row["verdicts"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        return True


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
