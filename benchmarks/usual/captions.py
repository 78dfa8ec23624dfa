"""Edited captions made the usual way: one image at a time, no KV cache, the image encoded again for
every token.

Shape suffixes as in `benchmarks.usual.models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.usual.models import patch_tokens, spliced


@torch.no_grad()
def caption(
    vision: Any,
    projector: nn.Module,
    language: Any,
    image: Tensor,
    prompt: Sequence[int],
    blocks: Sequence[int],
    change_pd: Tensor,
    new_tokens: int,
) -> list[int]:
    """The greedy answer of `new_tokens` ids to a prompt of ids with placeholders after BOS.

    `change_pd` is added to the visual tokens after each of `blocks`.
    """
    after = 1 + len(change_pd)

    def edit(_module: Any, _inputs: Any, output: Any) -> Any:
        h_btd = (output[0] if isinstance(output, tuple) else output).clone()
        h_btd[:, 1:after] += change_pd
        return (h_btd, *output[1:]) if isinstance(output, tuple) else h_btd

    hooks = [language.model.layers[block].register_forward_hook(edit) for block in blocks]
    ids = list(prompt)
    for _ in range(new_tokens):
        visual_bpd = projector(patch_tokens(vision, image))
        stream_btd = spliced(language, torch.tensor([ids]), visual_bpd)
        logits = language(inputs_embeds=stream_btd, use_cache=False, logits_to_keep=1).logits
        ids.append(int(logits[0, -1].argmax()))
    for hook in hooks:
        hook.remove()
    return ids[len(prompt) :]
