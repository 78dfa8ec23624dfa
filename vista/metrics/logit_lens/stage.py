"""Stage: read words at the visual tokens with the language model's own head (logit lens).

Legend of shape suffixes: b image, p visual token, d LLM width, n token of the batch, v vocabulary,
w word, k likeliest words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.engine.job import StageJob, stage
from vista.metrics.logit_lens import LogitLensSettings
from vista.metrics.word_readout import LayerWords
from vista.metrics.word_stage import Reader, ReadoutInputs, run_readout

if TYPE_CHECKING:
    from torch import Tensor

    from vista.language.lens import Lens
    from vista.language.model import LanguageModel

# Probabilities that are in memory at once: 64 MB of float32.
_CELLS = 1 << 24


class LogitLensOrder(Settings):
    """The language model, how its visual tokens are read, and at which layers."""

    llm: LanguageSettings
    logit_lens: LogitLensSettings
    layers: tuple[int, ...]


@stage(LogitLensOrder, ReadoutInputs)
def run(job: StageJob[LogitLensOrder, ReadoutInputs]) -> None:
    """Read projector, features, records and LLM; write the result, and items.parquet with the
    likeliest words of every image's patches by layer.

    Raises UserError where no image of the split has an object, or the model's head is not known.
    """
    from vista.language.lens import logit_lens

    settings = job.settings.logit_lens

    def make_reader(llm: LanguageModel, words: Sequence[str], word_v: NDArray[np.int64]) -> Reader:
        lens = logit_lens(llm)
        return Reader(lambda stream_bpd: likeliest(lens, stream_bpd, words, word_v, k))

    k = max(settings.ks)
    run_readout(job, "logit_lens", job.settings.llm, settings, job.settings.layers, make_reader)


def likeliest(
    lens: Lens, stream_bpd: Tensor, words: Sequence[str], word_v: NDArray[np.int64], k: int
) -> LayerWords:
    """Return the k likeliest words of each visual token.

    The probability of a word is the sum of those of its tokens. "" does not count as a word.
    """
    import torch

    best = []
    for part_nd in torch.split(stream_bpd.flatten(0, 1), max(1, _CELLS // len(word_v))):
        probability_nv = lens(part_nd).softmax(dim=-1)
        probability_nw = probability_nv.new_zeros(len(part_nd), len(words))
        probability_nw.index_add_(1, torch.from_numpy(word_v).to(part_nd.device), probability_nv)
        probability_nw[:, 0] = -1
        best.append(probability_nw.topk(min(k, len(words) - 1)))
    shape = (*stream_bpd.shape[:2], -1)
    value_nk, word_nk = (torch.cat(column).cpu().numpy() for column in zip(*best, strict=True))
    return LayerWords(word_nk.astype(np.int32).reshape(shape), value_nk.reshape(shape))
