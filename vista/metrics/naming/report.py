"""Note of the report on the nouns of the data that no latent stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report.escape import markdown
from vista.report.shown import MetricPlace, Shown

_MOST = 40


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str | None:
    """Return the classes without a latent of their own, by layer; None where all have one."""
    parts = []
    for layer in result["layers"]:
        unnamed = [markdown(word, 40) for word in layer["unnamed"]]
        if unnamed:
            more = f" and {len(unnamed) - _MOST} more" if len(unnamed) > _MOST else ""
            parts.append(f"layer {layer['layer']}: {', '.join(unnamed[:_MOST])}{more}")
    if not parts:
        return None
    llm = markdown(place.llm or "–")
    return f"Nouns of the data without a latent of their own ({llm}): {'; '.join(parts)}."


SHOWN = Shown(note=_note)
