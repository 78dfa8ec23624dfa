"""Patch tokens averaged to a coarser grid.

Legend of shape suffixes: b image, p patch token (row-major), r and c rows and columns of the
patches, i and j those of the cells that they are averaged to, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cell_weights(side: int, cells: int, device: torch.device | None = None) -> Tensor:
    """The share of each cell [i, r] that each patch fills, along one axis; rows sum to 1.

    `side` patches of equal size are covered by `cells` cells of equal size, so a patch may lie in
    two cells: 9 patches in 4 cells of 2.25.
    """
    ratio = side / cells
    edges = torch.arange(cells, dtype=torch.float64, device=device)[:, None] * ratio
    patches = torch.arange(side, dtype=torch.float64, device=device)[None]
    shared = torch.minimum(edges + ratio, patches + 1) - torch.maximum(edges, patches)
    return (shared.clamp(min=0) / ratio).float()


def pool_tokens(tokens_bpd: Tensor, cells: int) -> Tensor:
    """Average the tokens of a square grid over `cells` x `cells` cells, weighted by area.

    Where the number of patches a side is a multiple of `cells`, a cell is the plain mean of the
    patches in it.

    Returns:
        [b, cells * cells, d], row-major.
    """
    side = round(tokens_bpd.shape[1] ** 0.5)
    weight_ir = cell_weights(side, cells, tokens_bpd.device)
    tokens_brcd = tokens_bpd.reshape(len(tokens_bpd), side, side, -1)
    return torch.einsum("ir,jc,brcd->bijd", weight_ir, weight_ir, tokens_brcd).flatten(1, 2)
