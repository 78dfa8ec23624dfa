"""Stage: read words at the visual tokens by the nearest words in context (LatentLens).

Legend of shape suffixes: b image, p visual token, n token of the index, l its layers, d LLM width,
v vocabulary, r row of the index (a token after a layer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.visual_tokens import ENTERING
from vista.metrics.latent_lens import LatentLensSettings
from vista.metrics.word_readout import LayerWords
from vista.metrics.word_stage import (
    Reader,
    ReadoutInputs,
    nearest_reader,
    require_words,
    run_readout,
)
from vista.store.text_index import STORE, TextIndex

if TYPE_CHECKING:
    from vista.language.model import LanguageModel


class LatentLensOrder(Settings):
    """The language model, how its visual tokens are read, and at which layers."""

    llm: LanguageSettings
    latent_lens: LatentLensSettings
    layers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Inputs(ReadoutInputs):
    """Images by their features, the models, and the index of words in context."""

    index: Artifact


@stage(LatentLensOrder, Inputs)
def run(job: StageJob[LatentLensOrder, Inputs]) -> None:
    """Read projector, features, records, LLM and index; write the result, and items.parquet with
    the nearest words of every image's patches by layer, with the context of the nearest one.

    Raises UserError where no image of the split has an object, or the index does not fit the
    language model or has too few words.
    """
    settings, path = job.settings.latent_lens, job.inputs.index.store(STORE)

    def make_reader(llm: LanguageModel, words: Sequence[str], word_v: NDArray[np.int64]) -> Reader:
        index = TextIndex.read(path)
        if index.vectors_nld.shape[2] != llm.d_model:
            raise UserError(
                f"{path} holds vectors of width {index.vectors_nld.shape[2]}, the language model "
                f"has {llm.d_model}; run index_text with that model"
            )
        return index_reader(llm, index, word_v, len(words), max(settings.ks))

    layers = (ENTERING, *job.settings.layers)
    run_readout(job, "latent_lens", job.settings.llm, settings, layers, make_reader)


def index_reader(
    llm: LanguageModel, index: TextIndex, word_v: NDArray[np.int64], n_words: int, k: int
) -> Reader:
    """Return the readout by the vectors of an index, of all its layers together."""
    import torch

    from vista.language.nearest import WordVectors

    n, n_layers, _ = index.vectors_nld.shape
    word_r = np.repeat(word_v[index.id_n], n_layers)
    require_words("latent_lens", len(set(word_r.tolist()) - {0}), k)
    vectors_rd = torch.from_numpy(index.vectors_nld).flatten(0, 1).to(llm.device)
    vectors = WordVectors(vectors_rd, torch.from_numpy(word_r), n_words)

    def columns(entry: LayerWords) -> Mapping[str, pa.Array]:
        assert entry.vector_bp is not None
        token_bp, layer_bp = np.divmod(entry.vector_bp, n_layers)
        contexts = [[index.contexts[t] for t in row] for row in token_bp.tolist()]
        return {
            "contexts": pa.array(contexts, pa.list_(pa.string())),
            "index_layers": pa.array(
                np.array(index.layers)[layer_bp].tolist(), pa.list_(pa.int32())
            ),
        }

    return Reader(nearest_reader(vectors, k), n * n_layers, index.vectors_nld.nbytes, columns)
