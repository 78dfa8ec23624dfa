"""Control: each visual token replaced by the nearest word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vista.config.control_base import ControlSettings

if TYPE_CHECKING:
    from vista.controls.sources import Sources
    from vista.projector.control_tokens import ControlTokens


class Settings(ControlSettings):
    """Each visual token of the point, replaced by the input embedding that is nearest to it (by
    cosine): what the readout gains where tokens lie where text lies."""


def make(sources: Sources, settings: Settings) -> ControlTokens:
    """Return the token of the nearest input embedding at each patch, of all evaluated images;
    special tokens are none that text has."""
    import numpy as np
    import torch

    from vista.language.nearest import nearest_words
    from vista.projector.control_tokens import ControlTokens

    tokenizer = sources.llm.tokenizer
    # A scale that the model puts on embeddings, as Gemma does, changes no cosine.
    table_vd = sources.llm.model.get_input_embeddings().weight
    among_v = torch.arange(len(table_vd)) < len(tokenizer)
    among_v[[i for i in tokenizer.all_special_ids if i < len(table_vd)]] = False
    ids_rp = np.zeros((len(sources.records), sources.features.shape[1]), dtype=np.int64)
    for rows, tokens_bpd in sources.tokens(sources.evaluated()):
        nearest_n = nearest_words(tokens_bpd.flatten(0, 1), table_vd, among_v)
        ids_rp[rows] = nearest_n.reshape(len(rows), -1)
    return ControlTokens(words=ids_rp)
