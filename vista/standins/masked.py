"""The self-supervised, patch-level objective of the Dinov2 stand-in: visual words, no labels.

Patches are clustered by their pixels (k-means, once); from partly masked images the model predicts
each patch's own cluster and the bag of clusters around it (bags of visual words: Gidaris et al.,
2020, arXiv 2002.12247; masked patches: BEiT, arXiv 2106.08254), and the patch's mean colour.

Legend: n image, b image of the batch, p patch, k visual word, w patch of the 3x3 neighbourhood.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vista.config.encoders import StandinEncoder

# A patch whose brightness differs from its image's median by less than this (norm over its pixels,
# in units of the normalised image) shows bare ground: word 0.
_BARE = 4.0
_SOFTEN = 2.0
_CLUSTERED = 30_000
_ROUNDS = 15
# Share of the bare patches that enter the loss: they are most of all patches, and alike.
_BARE_SHARE = 0.1
# Without the colour the model forgets it: a linear probe falls from .98 to .6.
_OWN_WEIGHT, _COLOUR_WEIGHT = 0.5, 3.0


class VisualWords:
    """Dinov2Model with heads that are thrown away after training."""

    def __init__(self, settings: StandinEncoder, pixels_nchw: Tensor) -> None:
        from transformers import Dinov2Config, Dinov2Model

        self._settings = settings
        self._pixels = pixels_nchw
        self._side = settings.image_size // settings.patch
        self._words_np = visual_words(pixels_nchw, settings)
        self._colour_np3 = functional.avg_pool2d(pixels_nchw, settings.patch).flatten(2).mT
        self._around_wp = _neighbours(self._side)
        self.model: Any = Dinov2Model(
            Dinov2Config(
                hidden_size=settings.d_vision,
                num_hidden_layers=settings.n_blocks,
                num_attention_heads=settings.n_heads,
                mlp_ratio=4,
                image_size=settings.image_size,
                patch_size=settings.patch,
                layerscale_value=1.0,
                use_mask_token=True,
            )
        )
        self.model.train()
        words = settings.visual_words
        self._bag = nn.Linear(settings.d_vision, words)
        self._own = nn.Linear(settings.d_vision, words + 1)
        self._colour = nn.Linear(settings.d_vision, 3)
        heads = [*self._bag.parameters(), *self._own.parameters(), *self._colour.parameters()]
        self.parameters = [
            *self.model.named_parameters(),
            *((f"head.{i}", parameter) for i, parameter in enumerate(heads)),
        ]

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss on the images `rows`: each patch's word + bag of words + mean colour."""
        words_bp = self._words_np[rows]
        b, p = words_bp.shape
        masked_bp = torch.rand(b, p, generator=generator) < self._settings.mask_share
        out = self.model(self._pixels[rows], bool_masked_pos=masked_bp).last_hidden_state
        tokens_bpd = out[:, 1:]
        shown_bp = words_bp > 0
        chosen_bp = shown_bp | (torch.rand(b, p, generator=generator) < _BARE_SHARE)
        word = functional.cross_entropy(self._own(tokens_bpd[chosen_bp]), words_bp[chosen_bp])
        around_bwp = torch.where(self._around_wp >= 0, words_bp[:, self._around_wp.clamp(min=0)], 0)
        around_nw = around_bwp.mT[shown_bp]
        spoken_nk = functional.log_softmax(self._bag(tokens_bpd[shown_bp]), -1)
        present_nw = around_nw > 0
        log_p_nw = spoken_nk.gather(1, (around_nw - 1).clamp(min=0)) * present_nw
        bag = -(log_p_nw.sum(1) / present_nw.sum(1).clamp(min=1)).mean()
        colour = (self._colour(tokens_bpd) - self._colour_np3[rows]).square().mean()
        total: Tensor = _OWN_WEIGHT * word + bag + _COLOUR_WEIGHT * colour
        return total


def visual_words(pixels_nchw: Tensor, settings: StandinEncoder) -> Tensor:
    """Return the visual word [n, p] of each patch, 1..k, and 0 for bare ground."""
    median_nc = pixels_nchw.flatten(2).median(2).values
    grey_n1hw = (pixels_nchw - median_nc[:, :, None, None]).mean(1, keepdim=True)
    patches = functional.unfold(grey_n1hw, settings.patch, stride=settings.patch).mT
    flat = patches.flatten(0, 1)
    norm = flat.norm(dim=1)
    shown = norm > _BARE
    points = flat / (norm[:, None] + _SOFTEN)
    generator = torch.Generator().manual_seed(settings.seed)
    sample = points[shown]
    sample = sample[torch.randperm(len(sample), generator=generator)[:_CLUSTERED]]
    centres = k_means(sample, settings.visual_words, _ROUNDS, generator)
    words = torch.zeros(len(flat), dtype=torch.int64)
    words[shown] = 1 + _nearest(points[shown], centres)
    return words.reshape(len(pixels_nchw), -1)


def k_means(points: Tensor, k: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Return up to `k` centres by Lloyd's algorithm from random points; an empty one stays."""
    centres = points[torch.randperm(len(points), generator=generator)[:k]].clone()
    for _ in range(rounds):
        nearest = _nearest(points, centres)
        count = torch.bincount(nearest, minlength=len(centres))
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(count[:, None] > 0, total / count[:, None].clamp(min=1), centres)
    return centres


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    half = centres.square().sum(1) / 2
    parts = torch.split(points, 8192)
    return torch.cat([(part @ centres.T - half).argmax(1) for part in parts])


def _neighbours(side: int) -> Tensor:
    """The patches of the 3x3 neighbourhood of each patch, [9, p]; -1 beyond the border."""
    index = torch.arange(1, side * side + 1, dtype=torch.float32).reshape(1, 1, side, side)
    around = functional.unfold(functional.pad(index, [1] * 4), 3)[0]
    return around.long() - 1
