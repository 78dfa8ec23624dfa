"""Chat templates: the choice among several, and text that does not depend on the date."""

from __future__ import annotations

import datetime
import re
from functools import lru_cache
from typing import Any

from vista.errors import UserError, reason_of

# The date that templates write: Llama 3.1's own default.
DAY = datetime.date(2024, 7, 26)
# Standard variables of templates. Without a date Llama 3.2 writes today's into the prompt.
VARIABLES = {"date_string": DAY.strftime("%d %b %Y")}

_CLOCK = "strftime_now"
_FORMATS = [f"%{form}" for form in ("-d", "-m", *"aAbBdehHIjmMpSUuwWxXyYZ")]
# Defined in the template, the macro hides transformers' function of the same name, which reads
# the clock. Jinja drops the line break after a block, so the template itself stays as it is.
_FIXED_CLOCK = (
    f"{{% macro {_CLOCK}(format) %}}{{{{ format"
    + "".join(f" | replace('{form}', '{DAY.strftime(form)}')" for form in _FORMATS)
    + " }}{% endmacro %}\n"
)
_RANDOM = re.compile(r"\|\s*random\b|\blipsum\s*\(")


def chat_template(templates: Any) -> str | None:
    """The template to take of a tokenizer's or a processor's `chat_template`, which may be several
    by name; None where there is none. `strftime_now` writes a fixed day in it.

    Raises UserError where none of several is named "default", where it is no text, and where it
    draws at random.
    """
    if isinstance(templates, dict):
        if "default" not in templates:
            raise UserError(
                f"chat template: none of {', '.join(sorted(map(str, templates))) or 'several'} is "
                'named "default"; save the tokenizer with the one to take as its chat_template'
            )
        templates = templates["default"]
    if templates is None:
        return None
    if not isinstance(templates, str):
        raise UserError(
            f"chat template: expected a text, not {type(templates).__name__}; correct chat_template"
            " of the tokenizer"
        )
    return _repeatable(templates)


@lru_cache(maxsize=64)
def _repeatable(template: str) -> str:
    template = template.removeprefix("\ufeff")
    if _RANDOM.search(template):
        raise UserError(
            "chat template: it draws at random, so a prompt would differ from run to run; give a "
            "template without `random` and `lipsum`"
        )
    return _FIXED_CLOCK + template if _CLOCK in template else template


def template_error(error: Exception) -> UserError:
    """The error for a chat that could not be written: a template's sandbox may raise anything."""
    return UserError(
        f"chat template: it cannot write a question and its answer ({reason_of(error)}); give the "
        "tokenizer another chat_template"
    )
