"""LatentLens: the words in context whose residual stream is nearest to visual tokens."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vista.config.metric import Metric
from vista.config.text_index import TextIndexSettings
from vista.config.word_readout import ReadoutSettings


class LatentLensSettings(ReadoutSettings):
    """Share of patches, and of images, of which the nearest vectors of words in a text, by cosine
    and over all layers of the index, name an object there (LatentLens, arXiv 2602.00462): at the
    projector's output (layer -1) and after each block with an SAE. A word is read once, however
    many of its vectors are near, so that all readouts have as many words to be judged by; published
    neighbours repeat words. The figures are ours."""

    # An artifact of its own, which the projectors of a language model share.
    placing: ClassVar[frozenset[str]] = frozenset({"index"})

    index: TextIndexSettings = Field(
        default_factory=TextIndexSettings, description="vectors of words in the text of the run"
    )


METRIC = Metric(
    name="latent_lens",
    makes="words in context whose residual stream is nearest to visual tokens",
    settings=LatentLensSettings,
    per="point",
    reads=("features", "records", "projector", "llm", "index", "judge", "files"),
    section="probing",
    position=172,
    gpu=True,
    message="reading visual tokens by words in context in",
)
