"""Stage: measure whether an edit makes captions name another object, and what else it changes."""

from __future__ import annotations

from vista.config.intervention_metrics import InterventionMetricSettings
from vista.engine.job import StageJob, stage
from vista.stages.intervention_inputs import Inputs, score_edits


@stage(InterventionMetricSettings, Inputs)
def run(job: StageJob[InterventionMetricSettings, Inputs]) -> None:
    """Read edited captions of development and test, and records; write result and scores."""
    score_edits(job, "replace")
