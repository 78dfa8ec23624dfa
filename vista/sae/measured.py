"""Tokens through an SAE: what is stored of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from vista.sae.neutral import SparseAutoencoder


class MeasuredTokens(NamedTuple):
    """Active latents of n tokens, in as many slots as the fullest one uses, and their errors.

    Attributes:
        index_nk: Number of each active latent, strongest first; 0 in slots that are not used.
        value_nk: Its activation; 0 in slots that are not used.
        nnz_n: Slots in use.
        error_n: Mean over channels of (SAE(x) - x)^2.
        norm2_n: Mean over channels of x^2.
    """

    index_nk: torch.Tensor
    value_nk: torch.Tensor
    nnz_n: torch.Tensor
    error_n: torch.Tensor
    norm2_n: torch.Tensor


def measured_tokens(sae: SparseAutoencoder, x_nd: torch.Tensor, slots: int) -> MeasuredTokens:
    """Encode tokens of the residual stream [n, d].

    Raises:
        UserError: A token has more than `slots` active latents.
    """
    x_nd = x_nd.float()
    codes = sae.encode_sparse(x_nd, slots, "latents.max_active")
    # Not sae(x), which would encode once more.
    error_n = (sae.decode_sparse(codes, x_nd) - x_nd).square().mean(-1)
    index_nk, value_nk, nnz_n = codes
    # Most slots are empty where there are many: they need not leave the device.
    used = int(nnz_n.max()) if len(nnz_n) else 0
    norm2_n = x_nd.square().mean(-1)
    return MeasuredTokens(index_nk[:, :used], value_nk[:, :used], nnz_n, error_n, norm2_n)
