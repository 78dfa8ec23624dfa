"""Settings of the metrics of interventions: removal and replacement of objects in captions."""

from __future__ import annotations

from pydantic import Field

from vista.config.base import Settings
from vista.config.judges import JudgeChoice
from vista.config.metrics import BootstrapSettings


class InterventionMetricSettings(Settings):
    """How edited captions are scored; the same settings serve removal and replacement."""

    judge: JudgeChoice = Field(
        "lexical", description="Judge of what captions name: see vista.judges."
    )
    attributes: tuple[str, ...] = Field(
        (),
        description="Attribute words (colours, places) that count as new details where an edited "
        "caption names one that neither the image's reference texts nor the unedited caption has.",
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )
