"""Through a frozen SAE: z W_dec with the gradient for its input, the SAE term's inner loop.

The weights take no gradient, so of the dense activations backward needs only which are not zero.
Where those are few, decoding and both products of backward visit the active latents alone.

Shape legend: n token, d width of the residual stream, s dictionary latent, k slot, e active latent
of one token or another, token by token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

if TYPE_CHECKING:
    from vista.sae.neutral import SparseAutoencoder

# Up to this share of active latents, gathering their rows is faster than the whole product (2304 x
# 16k on a CPU: a term and its gradient 3.3 times at .002, 1.8 times at .03, slower at .1).
_FEW = 1 / 32
# The products of a smaller dictionary cost next to nothing.
_LARGE = 4096


def reconstruct(sae: SparseAutoencoder, x_nd: Tensor) -> Tensor:
    """SAE(x) [..., d] of the residual stream x [..., d]: what `sae(x)` gives."""
    return sae.restored(_through(sae.centred(x_nd), sae) + sae.b_dec, x_nd)


def _through(x_nd: Tensor, sae: SparseAutoencoder) -> Tensor:
    """Return z W_dec [..., d], z the activations that `sae.activate` gives for `x_nd` [..., d]."""
    flat_nd = x_nd.flatten(0, -2)
    with torch.no_grad():
        z_ns = sae.activate(flat_nd)
        active_ns = z_ns > 0
        few = z_ns.shape[-1] >= _LARGE and active_ns.sum() <= _FEW * z_ns.numel()
    # torch types neither `apply` nor what it returns.
    dense, active_values = cast(Any, _Dense).apply, cast(Any, _Active).apply
    if not few:
        out_nd: Tensor = dense(flat_nd, z_ns, active_ns, sae)
    else:
        count_n = active_ns.sum(-1)
        latent_e, first_n = active_ns.nonzero()[:, 1], count_n.cumsum(0) - count_n
        value_e = active_values(flat_nd, z_ns[active_ns], latent_e, first_n, sae)
        out_nd = _weighted_rows(sae.W_dec, latent_e, first_n, value_e)
    return out_nd.view_as(x_nd)


def _weighted_rows(rows_sd: Tensor, latent_e: Tensor, first_n: Tensor, weight_e: Tensor) -> Tensor:
    """For each token the sum of its latents' rows [n, d]; its own begin at `first_n`."""
    return embedding_bag(latent_e, rows_sd, first_n, mode="sum", per_sample_weights=weight_e)


class _Active(torch.autograd.Function):
    """The activations of the active latents, as a function of the tokens."""

    @staticmethod
    def forward(
        ctx: Any, _: Tensor, value_e: Tensor, latent_e: Tensor, first_n: Tensor, sae: Any
    ) -> Tensor:
        ctx.save_for_backward(latent_e, first_n)
        ctx.sae = sae
        return value_e.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        latent_e, first_n = ctx.saved_tensors
        slope_s = ctx.sae.slope()
        grad_e = grads[0] if slope_s is None else grads[0] * slope_s[latent_e]
        grad_nd = _weighted_rows(ctx.sae.encoder_rows(), latent_e, first_n, grad_e)
        return grad_nd, None, None, None, None


class _Dense(torch.autograd.Function):
    """z W_dec; keeps one byte a latent for backward."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, z_ns: Tensor, active_ns: Tensor, sae: Any) -> Tensor:
        ctx.save_for_backward(active_ns)
        ctx.sae = sae
        return cast(Tensor, z_ns @ sae.W_dec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (active_ns,) = ctx.saved_tensors
        slope_s = ctx.sae.slope()
        grad_ns = (grads[0] @ ctx.sae.W_dec.T) * active_ns
        if slope_s is not None:
            grad_ns = grad_ns * slope_s
        return grad_ns @ ctx.sae.W_enc.T, None, None, None
