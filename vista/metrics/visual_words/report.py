"""Note on names of several tokens; the figures stand in the section of all readouts."""

from __future__ import annotations

from vista.metrics.logit_lens.report import one_token_note
from vista.report.shown import Shown

SHOWN = Shown(note=one_token_note("Visual words"))
