"""Edits of visual tokens: which tokens, which direction, how, where and how much, row by row.

One batch may hold the unedited, the edited and the control rows of the same image: an edit names
its own tokens and blocks and leaves every other value of the stream as it was, bit for bit.

Shape legend: b row of the batch, t position, p patch, n edited token, d width of the edited space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vista.config.edits import How
from vista.language.model import Edit
from vista.sae.neutral import SparseAutoencoder

__all__ = ["Concept", "Edit", "Latent", "RowEdit", "change", "edit_features", "stream_edits"]


@dataclass(frozen=True)
class Latent:
    """One latent of an SAE."""

    sae: SparseAutoencoder
    number: int

    def activation(self, x_nd: Tensor) -> Tensor:
        """How strongly the latent fires at tokens [n, d], [n] float32."""
        # In a model on several devices the SAE may lie elsewhere than the edited block.
        there_nd = x_nd.float().to(self.sae.W_enc.device)
        return self.sae.encode(there_nd)[:, self.number].to(x_nd.device)

    def row(self, x_nd: Tensor) -> Tensor:
        """What it writes into the reconstruction of each token when it fires with 1, [n, d].

        Its decoder row; under an SAE that normalises each token, times that token's scale.
        """
        row_d = self.sae.W_dec[self.number].to(x_nd.device, torch.float32)
        _, _, scale_n1 = self.sae.normalise(x_nd.float())
        return (scale_n1 * row_d).expand(x_nd.shape)


@dataclass(frozen=True)
class Concept:
    """A concept's unit direction [d], and the latents behind it, if any.

    `further` are directions [d] that belong to one block each.
    """

    direction_d: Tensor
    latents: tuple[Latent, ...] = ()
    further: Mapping[int, Tensor] = field(default_factory=dict)

    def direction(self, block: int | None) -> Tensor:
        """The unit direction [d] that is added after a block; None: to features."""
        return self.direction_d if block is None else self.further.get(block, self.direction_d)

    def written(self, x_nd: Tensor) -> Tensor:
        """What its latents write into the SAE's reconstruction of tokens [n, d], [n, d]."""
        parts = [latent.activation(x_nd)[:, None] * latent.row(x_nd) for latent in self.latents]
        return torch.stack(parts).sum(0)

    def fires(self, x_nd: Tensor) -> Tensor:
        """At which tokens [n, d] any of its latents fires, [n] bool."""
        return torch.stack([latent.activation(x_nd) > 0 for latent in self.latents]).any(0)


@dataclass(frozen=True)
class RowEdit:
    """What is done to one row of a batch.

    `patches_p` are the visual tokens to edit, `blocks` the blocks after which (none for an edit of
    the features). `source` is what is taken away and `target` what is put in its place; clamping
    acts on the target where there is one.
    """

    how: How
    coefficient: float
    patches_p: Tensor
    source: Concept | None = None
    target: Concept | None = None
    blocks: tuple[int, ...] = ()


def change(edit: RowEdit, x_nd: Tensor, block: int | None = None) -> Tensor:
    """What `edit` adds to tokens [n, d] after a block (None: features), [n, d] float32.

    With s, t the unit directions, c the coefficient, a and w a latent's activation and row:
    subtract -c s; add +c t; remove_add -c s + c t; ablate -c a w (the SAE's error stays);
    swap -c a w + c |a w| t; clamp (c - a) w.

    Raises:
        ValueError: The edit lacks the concept, or the concept the latents, that `how` asks for.
    """
    x_nd = x_nd.float()
    c, how = edit.coefficient, edit.how
    if how == "clamp":
        concept = edit.target or edit.source
        latents = () if concept is None else concept.latents
        if not latents:
            raise ValueError("clamp needs a latent")
        parts = [(c - latent.activation(x_nd))[:, None] * latent.row(x_nd) for latent in latents]
        return torch.stack(parts).sum(0)
    total_nd = torch.zeros_like(x_nd)
    length_n1: Tensor | float = 1.0
    if how in ("subtract", "remove_add"):
        total_nd = total_nd - c * _given(edit.source, how).direction(block).to(x_nd)
    if how in ("ablate", "swap"):
        source = _given(edit.source, how)
        if not source.latents:
            raise ValueError(f"{how} needs a latent")
        written_nd = source.written(x_nd)
        total_nd = total_nd - c * written_nd
        length_n1 = written_nd.norm(dim=-1, keepdim=True)
    if how in ("add", "remove_add", "swap"):
        total_nd = total_nd + c * length_n1 * _given(edit.target, how).direction(block).to(x_nd)
    return total_nd


def stream_edits(rows: Sequence[RowEdit | None], visual_start: int) -> dict[int, Edit]:
    """Edits for `LanguageModel.forward` and `generate`: one function a block, of the whole stream.

    Args:
        rows: The edit of each row of the batch, None for a row that stays as it is.
        visual_start: Position of the first visual token.
    """
    blocks = sorted({block for row in rows if row is not None for block in row.blocks})
    return {block: _block_edit(block, tuple(rows), visual_start) for block in blocks}


def edit_features(features_bpd: Tensor, rows: Sequence[RowEdit | None]) -> Tensor:
    """Patch features with the edits of their rows made; a copy, float32."""
    return _edited(features_bpd.float(), rows, 0, None)


def _block_edit(block: int, rows: tuple[RowEdit | None, ...], visual_start: int) -> Edit:
    here = [row if row is not None and block in row.blocks else None for row in rows]

    def edit(h_btd: Tensor) -> Tensor:
        return _edited(h_btd, here, visual_start, block)

    return edit


def _edited(h_btd: Tensor, rows: Sequence[RowEdit | None], start: int, block: int | None) -> Tensor:
    if len(rows) != len(h_btd):
        raise ValueError(f"edits of {len(rows)} rows for a batch of {len(h_btd)}")
    out_btd = h_btd.clone()
    for b, row in enumerate(rows):
        if row is None or not bool(row.patches_p.any()):
            continue
        at_n = (row.patches_p.nonzero()[:, 0] + start).to(h_btd.device)
        x_nd = h_btd[b, at_n].float()
        out_btd[b, at_n] = (x_nd + change(row, x_nd, block)).to(h_btd.dtype)
    return out_btd


def _given(concept: Concept | None, how: How) -> Concept:
    if concept is None:
        raise ValueError(f"{how} lacks a concept")
    return concept
