"""The objectives of the CLIP and SigLIP stand-ins: match each image with its caption.

CLIP: symmetric cross-entropy over the batch (Radford et al., 2021, arXiv 2103.00020). SigLIP: a
sigmoid for each pair (Zhai et al., 2023, arXiv 2303.15343). Words are dropped from captions at
random, frequent ones more often, so that places and colours alone do not suffice.

Legend: n image, b image of the batch, t word of a caption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vista.config.encoders import StandinEncoder
from vista.errors import UserError

PAD, BOS = 0, 1
TEXT_WIDTH = 64


class CaptionMatching:
    """CLIPModel or SiglipModel with a small text tower over a vocabulary of the captions' words."""

    def __init__(
        self, settings: StandinEncoder, pixels_nchw: Tensor, captions: Sequence[str]
    ) -> None:
        if not any(captions):
            raise UserError(
                f"encoder {settings.family}: the images have no captions to learn from; "
                "use family dinov2, or data with captions"
            )
        self._settings = settings
        self._pixels = pixels_nchw
        words = sorted({word for caption in captions for word in caption.split()})
        self._eos = 2 + len(words)
        self._ids_nt = _encode(captions, {word: i + 2 for i, word in enumerate(words)}, self._eos)
        self._keep = _keep_share(self._ids_nt, self._eos, settings.word_balance)
        self.model = _build(settings, self._eos, self._ids_nt.shape[1])
        self.model.train()
        self.parameters = list(self.model.named_parameters())

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return the family's own loss on the images `rows` and their thinned captions."""
        ids_bt = _thin(self._ids_nt[rows], self._keep, generator)
        inputs: dict[str, Any] = {"input_ids": ids_bt, "pixel_values": self._pixels[rows]}
        if self._settings.family == "clip":
            inputs["attention_mask"] = (ids_bt != PAD).long()
            logits_bb = self.model(**inputs).logits_per_image
            own_b = torch.arange(len(rows))
            images = functional.cross_entropy(logits_bb, own_b)
            return (images + functional.cross_entropy(logits_bb.T, own_b)) / 2
        logits_bb = self.model(**inputs).logits_per_image
        sign_bb = 2 * torch.eye(len(rows)) - 1
        return -functional.logsigmoid(logits_bb * sign_bb).sum() / len(rows)


def _encode(captions: Sequence[str], ids: dict[str, int], eos: int) -> Tensor:
    """BOS, words, EOS, then padding, [n, t]."""
    rows = [[BOS, *(ids[word] for word in caption.split()), eos] for caption in captions]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def _keep_share(ids_nt: Tensor, eos: int, balance: float) -> Tensor:
    """The probability of keeping each word: (median share / share) ** balance, at most 1."""
    count = torch.zeros(eos + 1)
    for row in ids_nt:
        count[row.unique()] += 1
    share = count / len(ids_nt)
    median = share[share > 0].median()
    keep = (median / share.clamp(min=1e-9)).clamp(max=1.0) ** balance
    keep[[PAD, BOS, eos]] = 1.0
    return keep


def _thin(ids_bt: Tensor, keep: Tensor, generator: torch.Generator) -> Tensor:
    """Drop words at random and close the gaps."""
    kept_bt = (torch.rand(ids_bt.shape, generator=generator) < keep[ids_bt]) & (ids_bt != PAD)
    order_bt = torch.argsort((~kept_bt).long(), dim=1, stable=True)
    packed_bt = torch.where(kept_bt, ids_bt, PAD).gather(1, order_bt)
    return packed_bt[:, : int(kept_bt.sum(1).max())]


def _build(settings: StandinEncoder, eos: int, longest: int) -> Any:
    import transformers

    vision: dict[str, Any] = {
        "hidden_size": settings.d_vision,
        "num_hidden_layers": settings.n_blocks,
        "num_attention_heads": settings.n_heads,
        "intermediate_size": 4 * settings.d_vision,
        "image_size": settings.image_size,
        "patch_size": settings.patch,
    }
    clip = settings.family == "clip"
    width = TEXT_WIDTH if clip else settings.d_vision
    text: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "vocab_size": eos + 1,
        "max_position_embeddings": longest,
        "bos_token_id": BOS,
        "eos_token_id": eos,
        "pad_token_id": PAD,
    }
    if clip:
        size: dict[str, Any] = {"projection_dim": TEXT_WIDTH}
        parts: dict[str, Any] = {
            "text_config": {**text, **size},
            "vision_config": {**vision, **size},
        }
        return transformers.CLIPModel(transformers.CLIPConfig(**parts, **size))
    parts = {"text_config": {**text, "projection_size": width}, "vision_config": vision}
    model = transformers.SiglipModel(transformers.SiglipConfig(**parts))
    with torch.no_grad():
        # As in the paper: most pairs do not match, so the sigmoids start near 0.
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-math.log(settings.batch_size) - 1)
    return model
