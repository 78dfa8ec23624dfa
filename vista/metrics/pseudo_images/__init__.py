"""Pseudo images: captions scored behind words in place of visual tokens (arXiv 2403.07720)."""

from __future__ import annotations

from pydantic import Field

from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class PseudoImagesSettings(MetricSettings):
    """Cross-entropy of the reference answers behind each visual token's expected word embedding,
    under the head of visual words, beside that behind the visual tokens: whether word embeddings
    can carry the image (pseudo image features of VW-LMM, arXiv 2403.07720). Here the language model
    was not trained on them. Measured of projectors that are trained with `visual_words`."""

    split: Split = Field("test", description="images whose reference answers are scored")
    batch_size: int = Field(64, ge=1, description="images a forward pass")
    max_length: int = Field(512, ge=1, description="tokens a sample, visual tokens included")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )


METRIC = Metric(
    name="pseudo_images",
    makes="cross-entropy of captions behind the expected words of visual tokens",
    settings=PseudoImagesSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "files"),
    section="probing",
    position=174,
    gpu=True,
    message="reading the expected words of visual tokens in",
)
