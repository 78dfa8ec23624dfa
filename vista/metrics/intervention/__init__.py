"""Interventions: do edits of visual tokens make captions stop naming an object, or name another?"""

from __future__ import annotations

from vista.config.interventions import InterventionMetricSettings
from vista.config.metric import Metric

METRIC = Metric(
    name="intervention",
    makes="does an edit make captions stop naming an object, or name another object instead",
    settings=InterventionMetricSettings,
    per="method",
    reads=("development", "test", "records", "method", "judge", "files"),
    section=None,
    position=80,
    message="measuring what edits do to captions of",
)
