"""Forward passes with the residual stream of some tokens replaced after one block.

Shape suffixes: b sample, p visual token, t token, d width of the stream, n chosen token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vista.language.loss import sample_cross_entropy
from vista.language.model import Edit, Forward, LanguageModel
from vista.language.prompt import Batch
from vista.sae.neutral import SparseAutoencoder


@dataclass(frozen=True)
class Samples:
    """Samples of one batch, and the tokens at which the stream is replaced.

    Attributes:
        batch: ids and what is scored, on the language model's device.
        mask_bt: whether the stream of a token is replaced.
        visual_bpd: visual tokens; None for text alone.
    """

    batch: Batch
    mask_bt: Tensor
    visual_bpd: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """Nats over the scored tokens of each sample, [b] float64 on the CPU.

    Attributes:
        tokens_b: number of scored tokens, int64.
        clean_b: with nothing replaced.
        layers: by layer, then by what takes the stream's place: "spliced", "mean", "zero".
    """

    tokens_b: Tensor
    clean_b: Tensor
    layers: Mapping[int, Mapping[str, Tensor]]


def of_images(llm: LanguageModel, batch: Batch, visual_bpd: Tensor) -> Samples:
    """Return samples with an image, whose visual tokens are replaced."""
    mask_bt = torch.zeros_like(batch.text_mask)
    mask_bt[:, batch.visual_start : batch.visual_start + batch.n_visual] = True
    return Samples(batch.to(llm.device), mask_bt.to(llm.device), visual_bpd)


def of_text(llm: LanguageModel, batch: Batch) -> Samples:
    """Return samples of text alone, whose text after the opening is replaced."""
    return Samples(batch.to(llm.device), batch.text_mask.to(llm.device))


def replaced(mask_bt: Tensor, values: Callable[[Tensor], Tensor]) -> Edit:
    """Return an edit of a stream [b, t, d] that puts `values(x_nd)`, [n, d] or what broadcasts to
    it, in the place of the masked tokens' stream x_nd (float32); all others keep their bits."""

    def edit(h_btd: Tensor) -> Tensor:
        # In a model on several devices the block may lie elsewhere than the inputs.
        here_bt = mask_bt.to(h_btd.device)
        x_nd = h_btd[here_bt].float()
        out_btd = h_btd.clone()
        out_btd[here_bt] = values(x_nd).to(h_btd).expand(x_nd.shape)
        return out_btd

    return edit


def reconstructed(sae: SparseAutoencoder, x_nd: Tensor) -> Tensor:
    """Return the SAE's reconstruction of tokens [n, d], so many at once as its latents allow."""
    return torch.cat([sae(part_nd) for part_nd in torch.split(x_nd, sae.dense_rows)])


@torch.no_grad()
def spliced_losses(
    llm: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    means: Mapping[int, Tensor],
    samples: Samples,
) -> Losses:
    """Score samples as they are, and with the stream after each layer replaced in three ways.

    Args:
        llm: The language model.
        saes: Its SAEs by layer.
        means: By layer, the stream [d] that mean ablation puts at every masked token.
        samples: What is scored, and where the stream is replaced.
    """
    batch = samples.batch

    def score(edits: Mapping[int, Edit] | None) -> tuple[Tensor, Tensor]:
        logits_nv = _forward(llm, samples, edits=edits, logits_at=batch.predict_mask).logits
        assert logits_nv is not None
        loss_b, tokens_b = sample_cross_entropy(logits_nv, batch)
        return loss_b.cpu().double(), tokens_b.cpu()  # not every accelerator has float64

    clean_b, tokens_b = score(None)
    layers: dict[int, dict[str, Tensor]] = {}
    for layer, sae in saes.items():
        values: dict[str, Callable[[Tensor], Tensor]] = {
            "spliced": lambda x_nd, sae=sae: reconstructed(sae, x_nd),  # type: ignore[misc]
            "mean": lambda x_nd, layer=layer: means[layer],  # type: ignore[misc]
            "zero": lambda x_nd: x_nd.new_zeros(x_nd.shape[1]),
        }
        layers[layer] = {
            name: score({layer: replaced(samples.mask_bt, value)})[0]
            for name, value in values.items()
        }
    return Losses(tokens_b, clean_b, layers)


@torch.no_grad()
def mean_streams(
    llm: LanguageModel, layers: Iterable[int], parts: Iterable[Samples]
) -> dict[int, Tensor]:
    """Return the mean stream [d], float32, over the masked tokens of some batches, by layer.

    Raises ValueError where no token is masked.
    """
    taps = sorted(layers)
    sums = {layer: torch.zeros(llm.d_model, dtype=torch.float64) for layer in taps}
    count = 0
    for samples in parts:
        streams = _forward(llm, samples, taps=taps, stop_after=taps[-1]).taps
        count += int(samples.mask_bt.sum())
        for layer in taps:
            here_bt = samples.mask_bt.to(streams[layer].device)
            sums[layer] += streams[layer][here_bt].float().cpu().double().sum(0)
    if not count:
        raise ValueError("a mean over no token")
    return {layer: (sums[layer] / count).float() for layer in taps}


def _forward(
    llm: LanguageModel,
    samples: Samples,
    *,
    taps: Iterable[int] = (),
    stop_after: int | None = None,
    edits: Mapping[int, Edit] | None = None,
    logits_at: Tensor | None = None,
) -> Forward:
    return llm.forward(
        samples.batch.input_ids,
        samples.batch.attention_mask,
        visual=samples.visual_bpd,
        visual_start=samples.batch.visual_start,
        taps=list(taps),
        stop_after=stop_after,
        edits=edits,
        logits_at=logits_at,
    )
