"""The one exception that means "the user can mend this"; reasons of other programs' errors."""

from __future__ import annotations

import re

_LONGEST_REASON = 300  # characters
# What libraries say before they come to the point.
_PREAMBLES = re.compile(
    r"Error\(s\) in loading state_dict|Could not (import|load) module|Traceback \(most recent"
)


class UserError(Exception):
    """A mistake in a config, a file or an artifact, told in one short sentence.

    The message names the file or key, says what was expected and what to do. The command line
    prints it without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """The message without control characters: names in it come from files, and what they hold
        must not act on a terminal.
        """
        text = super().__str__()
        return "".join(each if each.isprintable() or each == "\n" else "�" for each in text)


def reason_of(error: BaseException) -> str:
    """Why a foreign call failed, on one line, for a message of one sentence.

    A first line that only announces the reason (it ends in a colon) is followed by the lines
    after it. An error without text is told by its type, as are those whose text is only a key.
    """
    if isinstance(error, OSError) and error.strerror:
        named = f": {error.filename}" if error.filename else ""
        return _shortened(f"{error.strerror}{named}")
    first = error.args[0] if error.args else ""
    text = first.decode(errors="replace") if isinstance(first, bytes) else str(error)
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    reason = lines.pop(0)
    while lines and (reason.endswith(":") or _PREAMBLES.match(reason)):
        reason = lines.pop(0) if _PREAMBLES.match(reason) else f"{reason} {lines.pop(0)}"
    if isinstance(error, LookupError | AttributeError | TypeError):
        reason = f"{type(error).__name__}: {reason}"
    return _shortened(reason)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."
