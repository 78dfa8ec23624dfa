"""Latents saved the usual way: one image at a time, dense, float32, one file an image.

Shape suffixes as in `benchmarks.usual.models`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.usual.models import JumpReluSae, patch_tokens, spliced


@torch.no_grad()
def save_images(
    folder: Path,
    vision: Any,
    projector: nn.Module,
    language: Any,
    saes: Mapping[int, JumpReluSae],
    images: Sequence[Tensor],
    prompts: Sequence[tuple[Tensor, Tensor]],
) -> None:
    """Save the latents of every token of each image's prompt, and of the control text.

    `images` are pixels [1, 3, h, w], `prompts` ids [1, t] with placeholders, and of the control.
    """
    for i, (image, (ids_bt, control_bt)) in enumerate(zip(images, prompts, strict=True)):
        seen = spliced(language, ids_bt, projector(patch_tokens(vision, image)))
        with_image = language(inputs_embeds=seen, output_hidden_states=True, use_cache=False)
        without = language(input_ids=control_bt, output_hidden_states=True, use_cache=False)
        save_tokens(folder / f"{i}.pt", {"image": with_image, "control": without}, saes)


def save_tokens(path: Path, outputs: Mapping[str, Any], saes: Mapping[int, JumpReluSae]) -> None:
    """Save latents, reconstructions and residuals of all tokens but BOS, by layer and text."""
    saved = {}
    for kind, out in outputs.items():
        for layer, sae in saes.items():
            x_td = out.hidden_states[layer + 1][0, 1:].float()
            z_ts = sae.encode(x_td)
            saved[f"{kind}/{layer}"] = {
                "latents": z_ts,
                "reconstruction": sae.decode(z_ts),
                "residual": x_td,
            }
    torch.save(saved, path)
