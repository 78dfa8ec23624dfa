"""The logit lens: what the model's own final norm and head read from its residual stream.

Shape suffixes: n position, d width of the residual stream, v vocabulary, t token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vista.errors import UserError
from vista.language.model import BLOCK_PATHS, LanguageModel

Lens = Callable[[Tensor], Tensor]

# The final norm's name beside the list of blocks, by family.
NORM_NAMES = ("norm", "ln_f", "final_layer_norm")
# Logits of one pass may differ that much, as a share of the largest, by their order of summation.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@torch.no_grad()
def logit_lens(llm: LanguageModel) -> Lens:
    """Return what maps a residual stream [n, d] after any block to float32 logits [n, v].

    After the last block it gives the model's own logits, Gemma's soft cap included; this is tried
    on one pass before it is returned.

    Raises:
        UserError: the model has no final norm under a known name, or does something else on the
            way from its last block to its logits.
    """
    norm, head = _final_norm(llm), llm.model.get_output_embeddings()
    cap = getattr(llm.model.config.get_text_config(), "final_logit_softcapping", None)

    def lens(stream_nd: Tensor) -> Tensor:
        normed_nd = norm(stream_nd.to(next(norm.parameters())))
        logits_nv: Tensor = head(normed_nd.to(head.weight.device)).float()
        return logits_nv if cap is None else torch.tanh(logits_nv / cap) * cap

    last = llm.n_blocks - 1
    ids_bt = torch.arange(min(8, head.weight.shape[0]), device=llm.device)[None]
    plain = llm.forward(ids_bt, taps=(last,))
    assert plain.logits is not None
    own_tv = plain.logits[0].float()
    error = (lens(plain.taps[last][0]).to(own_tv.device) - own_tv).abs().max()
    if not error <= _TOLERANCE.get(llm.dtype, 5e-2) * own_tv.abs().max():
        raise UserError(
            f"logit lens: {type(llm.model).__name__} does more than norm, head and soft cap after "
            "its last block; set probing.logit_lens to null, or add it to vista/language/lens.py"
        )
    return lens


def _final_norm(llm: LanguageModel) -> nn.Module:
    """The norm between the last block and the head: it stands beside the list of blocks."""
    for path in BLOCK_PATHS:
        parent: Any = llm.model
        *above, name = path.split(".")
        for part in above:
            parent = getattr(parent, part, None)
        if getattr(parent, name, None) is llm.blocks:
            for norm in NORM_NAMES:
                module = getattr(parent, norm, None)
                if isinstance(module, nn.Module):
                    return module
    raise UserError(
        f"logit lens: the final norm of {type(llm.model).__name__} was not found beside its blocks "
        f"as {', '.join(NORM_NAMES)}; add its name to NORM_NAMES in vista/language/lens.py"
    )
