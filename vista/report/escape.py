"""Text of unknown origin (labels, names, captions) made harmless where it is shown.

A label may hold anything: Markdown tables, HTML tags, matplotlib's mathtext between dollar signs,
control characters that break an SVG. Each place where text is shown has its own function.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata

# Marks that mean something inside a line or a table cell; those of a line's beginning never come
# first in a cell.
_MARKDOWN = re.compile(r"([\\`*_\[\]|~>$<&])")


def clean(text: str, longest: int = 80) -> str:
    """Return one line of printable text: control characters become spaces, long text is cut.

    Surrogates, unassigned and private characters and direction overrides go too: none of them can
    be drawn, and some change how the text around them reads.
    """
    kept = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)
    line = " ".join(kept.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def markdown(text: str, longest: int = 80) -> str:
    """Return text for a Markdown table cell or sentence: no markup, link, HTML or math in it."""

    def escape(match: re.Match[str]) -> str:
        mark = match.group(1)
        # Not every renderer knows backslashes in front of these.
        entity = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;", "$": "&#36;"}
        return entity.get(mark, "\\" + mark)

    escaped = _MARKDOWN.sub(escape, clean(text, longest))
    # Some renderers make links of bare addresses.
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")


def html(text: str, longest: int = 80) -> str:
    """Return text for HTML content or a quoted attribute."""
    return _html.escape(clean(text, longest), quote=True)


def mathtext(text: str, longest: int = 80) -> str:
    """Return text for matplotlib: dollar signs are drawn, not read as mathematics."""
    return clean(text, longest).replace("$", r"\$")
