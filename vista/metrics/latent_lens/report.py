"""Note on names of several tokens and on the index; the figures stand in the section of all
readouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.metrics.logit_lens.report import one_token_note
from vista.report.shown import MetricPlace, Shown

_OF_TOKENS = one_token_note("Latent lens")


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    return (
        f"{_OF_TOKENS(place, result)} Its index has {result['n_vectors']:,} vectors "
        f"({result['vector_bytes'] / 1e6:,.1f} MB in memory) of the text that the SAEs learnt from."
    )


SHOWN = Shown(note=_note)
