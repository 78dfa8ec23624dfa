"""Stage: read words at the visual tokens with the head of visual words.

Legend of shape suffixes: n visual token, d LLM width, v vocabulary.
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
from vista.metrics.logit_lens.stage import likeliest
from vista.metrics.visual_words import VisualWordsReadoutSettings
from vista.metrics.word_stage import Reader, ReadoutInputs, run_readout

if TYPE_CHECKING:
    from vista.language.model import LanguageModel


class VisualWordsOrder(Settings):
    """The language model, and how its visual tokens are read."""

    llm: LanguageSettings
    visual_words: VisualWordsReadoutSettings


@stage(VisualWordsOrder, ReadoutInputs)
def run(job: StageJob[VisualWordsOrder, ReadoutInputs]) -> None:
    """Read projector with its head, features, records and LLM; write the result, and items.parquet
    with the likeliest words of every image's patches.

    Raises UserError where no image of the split has an object, or the projector has no head.
    """
    from vista.projector.visual_words import load_head

    settings = job.settings.visual_words
    k = max(settings.ks)

    def make_reader(llm: LanguageModel, words: Sequence[str], word_v: NDArray[np.int64]) -> Reader:
        folder, size = job.inputs.projector.path, len(word_v)
        head = load_head(folder, d_model=llm.d_model, vocabulary=size).to(llm.device)
        return Reader(lambda stream_bpd: likeliest(head, stream_bpd.float(), words, word_v, k))

    run_readout(job, "visual_words", job.settings.llm, settings, (ENTERING,), make_reader)
