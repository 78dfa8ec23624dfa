"""Gated cross-attention: text tokens of a frozen language model read an image's patches.

After chosen blocks, h <- h + tanh(gate) * attention(h, patches), with a gate that starts at 0
(Flamingo, arXiv 2204.14198): at step 0 the model is the plain language model. AGE-VLM (arXiv
2511.17793) pulls the attention of a phrase to a mask of its object; the form of that loss is not
public, and -log of the attention on the object's patches is our choice.

Shape suffixes: b caption, t token, p patch, v encoder width, d LLM width, h head, l layer, n chosen
token, m token of a mention.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from vista.engine.artifacts import canonical_json
from vista.errors import UserError, reason_of
from vista.language.model import LanguageModel
from vista.language.prompt import Batch

WEIGHTS = "cross_attention.safetensors"
CONFIG = "cross_attention.json"
# Attention on an object below this gives no larger loss.
_LEAST = 1e-6


class GatedCrossAttention(nn.Module):
    """The cross-attention after one block: [b, t, d], [b, p, v] -> [b, t, d], [b, h, t, p]."""

    def __init__(self, d_vision: int, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_vision, d_model, bias=False)
        self.value = nn.Linear(d_vision, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, h_btd: Tensor, x_bpv: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stream after the attention, and its weights."""
        h = functional.layer_norm(h_btd.float(), h_btd.shape[-1:])
        x = functional.layer_norm(x_bpv.float(), x_bpv.shape[-1:])
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(h), self.key(x), self.value(x))
        )
        scores_bhtp = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        weights_bhtp = scores_bhtp.softmax(-1)
        read_btd = self.out((weights_bhtp @ value).transpose(1, 2).flatten(2))
        return h_btd + (torch.tanh(self.gate) * read_btd).to(h_btd), weights_bhtp


class CrossAttention(nn.Module):
    """The cross-attention after some blocks of one language model."""

    def __init__(self, d_vision: int, d_model: int, blocks: Sequence[int], heads: int) -> None:
        super().__init__()
        self.d_vision, self.d_model, self.heads = d_vision, d_model, heads
        self.blocks = tuple(blocks)
        self.layers = nn.ModuleDict(
            {str(block): GatedCrossAttention(d_vision, d_model, heads) for block in self.blocks}
        )

    def gates(self) -> list[float]:
        """Return tanh of the gate after each block."""
        gates = [layer.gate for layer in self.modules() if isinstance(layer, GatedCrossAttention)]
        return [float(torch.tanh(gate.detach())) for gate in gates]

    def read(self, llm: LanguageModel, batch: Batch, x_bpv: Tensor) -> tuple[Tensor, Tensor]:
        """Read captions with their images.

        Args:
            llm: The language model.
            batch: Captions without visual tokens, on its device.
            x_bpv: Patch features.

        Returns:
            Logits [n, v] at `batch.predict_mask`, and the attention to patches, [b, t, l, h, p].
        """
        kept: list[Tensor] = []

        def edit(layer: nn.Module, h_btd: Tensor) -> Tensor:
            out_btd, weights_bhtp = layer(h_btd, x_bpv.to(h_btd.device))
            kept.append(weights_bhtp.to(llm.device))
            return out_btd  # type: ignore[no-any-return]

        edits = {
            block: lambda h_btd, layer=self.layers[str(block)]: edit(layer, h_btd)
            for block in sorted(self.blocks)
        }
        logits_nv = llm.forward(
            batch.input_ids,
            batch.attention_mask,
            edits=edits,
            logits_at=batch.predict_mask,
        ).logits
        assert logits_nv is not None
        return logits_nv, torch.stack(kept, dim=1).permute(0, 3, 1, 2, 4)


@dataclass(frozen=True)
class WordTokens:
    """Tokens of objects' words in a batch.

    Attributes:
        sample_m: Sample of each token.
        place_m: Its place.
        region_mp: Patches of its object, bool.
    """

    sample_m: Tensor
    place_m: Tensor
    region_mp: Tensor = field(repr=False)


def attention_loss(weights_btlhp: Tensor, words: WordTokens) -> Tensor:
    """Return the mean over words' tokens of -log of the attention on the object's patches.

    The attention is the mean over layers and heads.
    """
    maps_mp = weights_btlhp[words.sample_m, words.place_m].mean(dim=(1, 2))
    return -(maps_mp * words.region_mp).sum(-1).clamp_min(_LEAST).log().mean()


def make_cross_attention(
    d_vision: int, llm: LanguageModel, blocks: Sequence[int] | None, heads: int, seed: int
) -> CrossAttention:
    """Return fresh cross-attention that depends on `seed` alone, with gates of 0.

    Args:
        d_vision: Width of the features.
        llm: The language model.
        blocks: Blocks after which text reads the image; None: all but the last.
        heads: Heads of each.
        seed: Seed of the weights.

    Raises:
        UserError: The model has no such block, or its width is no multiple of `heads`.
    """
    chosen = tuple(range(max(1, llm.n_blocks - 1))) if blocks is None else tuple(sorted(blocks))
    if max(chosen) >= llm.n_blocks:
        raise UserError(
            f"cross_attention.train.blocks: {max(chosen)} is no block of the language model, which "
            f"has 0..{llm.n_blocks - 1}"
        )
    if llm.d_model % heads:
        raise UserError(
            f"cross_attention.train.heads: {heads} does not divide the language model's width "
            f"{llm.d_model}"
        )
    module = CrossAttention(d_vision, llm.d_model, chosen, heads)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
    for block in chosen:
        module.layers[str(block)].to(llm.layer_device(block))
    return module


def save_cross_attention(folder: Path, module: CrossAttention) -> None:
    """Write the weights and a JSON of the shape into `folder`."""
    weights = {name: value.detach().cpu().contiguous() for name, value in module.named_parameters()}
    save_file(weights, folder / WEIGHTS)
    shape = {"blocks": list(module.blocks), "heads": module.heads, "d_vision": module.d_vision}
    (folder / CONFIG).write_text(canonical_json(shape) + "\n")


def load_cross_attention(folder: Path, *, d_vision: int, llm: LanguageModel) -> CrossAttention:
    """Read the cross-attention in `folder`, frozen.

    Raises UserError where a file is missing or damaged, or it is of other models.
    """
    try:
        shape = json.loads((folder / CONFIG).read_text())
        blocks, heads = [int(block) for block in shape["blocks"]], int(shape["heads"])
        module = make_cross_attention(d_vision, llm, blocks, heads, 0)
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder}: not the cross-attention of these models ({reason_of(error)}); train it "
            "again"
        ) from error
    return module.requires_grad_(False).eval()
