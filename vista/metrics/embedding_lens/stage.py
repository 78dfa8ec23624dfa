"""Stage: read words at the visual tokens by the nearest input embeddings.

Legend of shape suffixes: v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.engine.job import StageJob, stage
from vista.inputs.visual_tokens import ENTERING
from vista.metrics.embedding_lens import EmbeddingLensSettings
from vista.metrics.word_stage import (
    Reader,
    ReadoutInputs,
    nearest_reader,
    require_words,
    run_readout,
)

if TYPE_CHECKING:
    from vista.language.model import LanguageModel


class EmbeddingLensOrder(Settings):
    """The language model, how its visual tokens are read, and at which layers."""

    llm: LanguageSettings
    embedding_lens: EmbeddingLensSettings
    layers: tuple[int, ...]


@stage(EmbeddingLensOrder, ReadoutInputs)
def run(job: StageJob[EmbeddingLensOrder, ReadoutInputs]) -> None:
    """Read projector, features, records and LLM; write the result, and items.parquet with the
    nearest words of every image's patches by layer.

    Gemma multiplies embeddings by a number on the way into block 0; a cosine does not see that.

    Raises UserError where no image of the split has an object, or the model has too few words.
    """
    import torch

    from vista.language.nearest import WordVectors

    settings = job.settings.embedding_lens
    k = max(settings.ks)

    def make_reader(llm: LanguageModel, words: Sequence[str], word_v: NDArray[np.int64]) -> Reader:
        require_words("embedding_lens", len(words) - 1, k)
        embedding_vd = llm.model.get_input_embeddings().weight.detach()
        # Rows that no token has are no words.
        numbers_v = np.zeros(len(embedding_vd), np.int64)
        numbers_v[: len(word_v)] = word_v[: len(embedding_vd)]
        vectors = WordVectors(embedding_vd, torch.from_numpy(numbers_v), len(words))
        size = embedding_vd.numel() * embedding_vd.element_size()
        return Reader(nearest_reader(vectors, k), len(embedding_vd), size)

    layers = (ENTERING, *job.settings.layers)
    run_readout(job, "embedding_lens", job.settings.llm, settings, layers, make_reader)
