"""The exception for mistakes that the user can correct; reasons of other libraries' errors."""

from __future__ import annotations

import re

USER_ERROR = 2  # exit status of the command line
_LONGEST_REASON = 300  # characters
# First lines of messages that do not hold the reason.
_PREAMBLES = re.compile(
    r"Error\(s\) in loading state_dict|Could not (import|load) module|Traceback \(most recent"
)


class UserError(Exception):
    """A mistake in a config, a file or an artifact, described in one short sentence.

    The message names the file or key, says what was expected and what to do. The command line
    prints it without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """Return the message without control characters.

        Names in it come from files and must not control the terminal.
        """
        text = super().__str__()
        return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def reason_of(error: BaseException) -> str:
    """Return why a call of another library failed, on one line.

    If the first line only announces the reason (it ends in a colon), the next lines are added. An
    error without text is described by its type; one whose text may be only a key, by both.
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
