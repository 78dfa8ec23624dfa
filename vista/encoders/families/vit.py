"""Any other vision transformer that AutoModel loads and whose config has the patch size.

What the other families declare is derived from the model: prefix tokens from its config, else from
the learnt tokens beside the patch embeddings; the final norm from a probe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vista.encoders.preprocessing import square
from vista.encoders.registry import EncoderFamily, only_blocks
from vista.errors import UserError

# Parameters [1, n, d] or [d] that models put before the patches.
PREFIX_PARAMETERS = (
    "cls_token",
    "class_token",
    "class_embedding",
    "distillation_token",
    "dist_token",
    "register_tokens",
    "storage_tokens",
)


def prefix_tokens(tower: Any) -> int:
    """Tokens before the patches: the config's `num_prefix_tokens`, else the learnt ones.

    The encoder checks the count against the tokens that come out.
    """
    count = getattr(tower.config, "num_prefix_tokens", None)
    if count is not None:
        return int(count)
    sizes = {
        name.rpartition(".")[2]: parameter.shape[-2] if parameter.ndim > 1 else 1
        for name, parameter in tower.named_parameters()
    }
    return sum(sizes.get(name, 0) for name in PREFIX_PARAMETERS)


@torch.no_grad()
def final_norm(tower: Any) -> Any | None:
    """The module that turns the last block's output into `last_hidden_state`; None: they are equal.

    Raises:
        UserError: no module does, or the model gives one image two different outputs.
    """
    name = tower.config.model_type
    seen: list[tuple[Any, Any, Any]] = []

    def watch(module: Any, inputs: Any, output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            seen.append((module, inputs[0], output))

    last: list[Tensor] = []
    blocks = only_blocks(tower)
    inside = {id(module) for module in blocks.modules()}
    handles = [
        module.register_forward_hook(watch)
        for module in tower.modules()
        if id(module) not in inside
    ]
    handles.append(
        blocks[-1].register_forward_hook(
            lambda _module, _inputs, out: last.append(out[0] if isinstance(out, tuple) else out)
        )
    )
    try:
        pixels = _probe(tower)
        first = tower(pixel_values=pixels).last_hidden_state
        steps = list(seen)
        again = tower(pixel_values=pixels).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    # A masked autoencoder drops and shuffles patches at random: its tokens have no grid.
    if first.shape != again.shape or not torch.equal(first, again):
        raise UserError(
            f"vision encoder: the {name} model answers one image in two ways, so its tokens have "
            "no fixed place; take the encoder without random masking"
        )
    if first.shape == last[0].shape and torch.equal(first, last[0]):
        return None
    for module, before, after in steps:
        alike = before.shape == last[0].shape == after.shape == first.shape
        if alike and torch.equal(before, last[0]) and torch.equal(after, first):
            return module
    raise UserError(
        f"vision encoder: the {name} model's last_hidden_state is not a norm of its last block's "
        "output; set final_norm: false"
    )


def _probe(tower: Any) -> Tensor:
    """One image of noise [1, 3, size, size] in the model's own size."""
    size = square(getattr(tower.config, "image_size", None), "image_size")
    first = next(tower.parameters())
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    return noise.to(first.device, first.dtype)


FAMILY = EncoderFamily(
    model_types=(),
    prefix_tokens=prefix_tokens,
    norm=final_norm,
    resample=2,
)
