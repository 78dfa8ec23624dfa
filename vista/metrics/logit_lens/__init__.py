"""Logit lens: words that the model's own head reads at visual tokens (arXiv 2403.07720)."""

from __future__ import annotations

from vista.config.metric import Metric
from vista.config.word_readout import ReadoutSettings


class LogitLensSettings(ReadoutSettings):
    """Share of patches, and of images, whose likeliest words under the model's own head name an
    object there: the logit lens on visual tokens (arXiv 2403.07720), the figures ours."""


METRIC = Metric(
    name="logit_lens",
    makes="words that the model's own head reads at visual tokens",
    settings=LogitLensSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "judge", "files"),
    section="probing",
    position=170,
    gpu=True,
    message="reading visual tokens by the head of the language model in",
)
