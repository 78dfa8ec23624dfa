"""Text coverage: how often the text that SAEs learn from names the objects of the images."""

from __future__ import annotations

from pydantic import Field

from vista.config.metric import Metric, MetricSettings


class TextCoverageSettings(MetricSettings):
    """Share of the object names that the text names often enough for a latent of their own.

    An SAE has no latent for a word that its text hardly has: what an image shows of such a thing
    cannot be read from latents, however good the projector is.
    """

    min_occurrences: int = Field(
        30, ge=1, description="occurrences in the text, below which a name is listed"
    )


METRIC = Metric(
    name="text_coverage",
    makes="how often the text of the SAEs names the objects of the images",
    settings=TextCoverageSettings,
    per="run",
    reads=("records", "text"),
    position=40,
    message="counting object names in the text for",
)
