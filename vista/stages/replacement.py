"""Stage: does an edit make captions name another object instead, and what else does it change?"""

from __future__ import annotations

from vista.engine.artifacts import Job
from vista.stages.intervention_inputs import score_edits


def run(job: Job) -> None:
    """Read edited captions of development and test, and records; write result and scores."""
    score_edits(job, "replace")
