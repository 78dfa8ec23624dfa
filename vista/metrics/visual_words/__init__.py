"""Visual words: words that a trained head reads at visual tokens (arXiv 2403.07720)."""

from __future__ import annotations

from vista.config.metric import Metric
from vista.config.word_readout import ReadoutSettings


class VisualWordsReadoutSettings(ReadoutSettings):
    """Share of patches, and of images, whose likeliest words under the head of visual words name an
    object there (VW-LMM, arXiv 2403.07720): at the projector's output, layer -1. Measured of
    projectors that are trained with `visual_words`; the figures are ours."""


METRIC = Metric(
    name="visual_words",
    makes="words that the head of visual words reads at visual tokens",
    settings=VisualWordsReadoutSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "judge", "files"),
    section="probing",
    position=173,
    gpu=True,
    message="reading visual tokens by the head of visual words in",
)
