"""Embedding lens: the input word embeddings that are nearest to visual tokens."""

from __future__ import annotations

from vista.config.metric import Metric
from vista.config.word_readout import ReadoutSettings


class EmbeddingLensSettings(ReadoutSettings):
    """Share of patches, and of images, of which the nearest rows of the language model's input
    embedding, by cosine, name an object there: at the projector's output (layer -1) and after each
    block with an SAE. A baseline of LatentLens (arXiv 2602.00462); the figures are ours."""


METRIC = Metric(
    name="embedding_lens",
    makes="words whose input embeddings are nearest to visual tokens",
    settings=EmbeddingLensSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "judge", "files"),
    section="probing",
    position=171,
    gpu=True,
    message="reading visual tokens by the word embeddings of the language model in",
)
