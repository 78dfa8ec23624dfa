"""Visual words: a head that reads visual tokens as distributions over the vocabulary, and its term.

VW-LMM (arXiv 2403.07720; visual_words/model/language_model/vw_llama.py of its authors, stage 4).
The head is a linear layer without bias on the visual tokens. The term is

    KL( softmax(head(e_{t+1})) || softmax(logits_t) )

where e_{t+1} is a visual token and logits_t are the language model's own at the position before it:
the words of a visual token are the target, and what the language model expects there is pulled to
them. As published, neither side is detached. Their language model learns, too; ours is frozen, so
the head and the projector meet what it expects.

Legend of shape suffixes: b image, p visual token, d LLM width, v vocabulary.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from vista.errors import UserError, reason_of

HEAD = "visual_words.safetensors"


class WithHead(nn.Module):
    """A projector and its head as one module, so that both are trained and checkpointed."""

    def __init__(self, projector: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.projector, self.head = projector, head

    def forward(self, features_bpv: Tensor) -> Tensor:
        """Return the visual tokens."""
        tokens_bpd: Tensor = self.projector(features_bpv)
        return tokens_bpd


def make_head(d_model: int, vocabulary: int, seed: int) -> nn.Linear:
    """Return a fresh head whose weights, uniform in +-1 / sqrt(d_model), depend on `seed` alone."""
    head = nn.Linear(d_model, vocabulary, bias=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.uniform_(-(d_model**-0.5), d_model**-0.5, generator=generator)
    return head


def expecting(visual_start: int, n_visual: int) -> slice:
    """Return the positions whose logits tell what is expected at visual tokens: those before them.
    The first token has none where nothing stands before it."""
    return slice(max(visual_start - 1, 0), visual_start + n_visual - 1)


def words_term(head: nn.Linear, visual_bpd: Tensor, logits_bpv: Tensor) -> Tensor:
    """Return the mean over visual tokens of KL(words of the token || expected words), in nats.

    Args:
        head: From visual tokens to logits of the vocabulary.
        visual_bpd: Visual tokens; the last of them where fewer are expected.
        logits_bpv: The language model's logits at the positions before them.
    """
    words_bpv = head(visual_bpd[:, -logits_bpv.shape[1] :]).float().log_softmax(-1)
    expected_bpv = logits_bpv.float().log_softmax(-1)
    each_bpv = functional.kl_div(expected_bpv, words_bpv, reduction="none", log_target=True)
    return each_bpv.sum(-1).mean()


def save_head(folder: Path, head: nn.Linear) -> None:
    """Write the head into the folder of its projector."""
    save_file({"weight": head.weight.detach().float().cpu().contiguous()}, folder / HEAD)


def load_head(folder: Path, *, d_model: int, vocabulary: int) -> nn.Linear:
    """Read the head in the folder of a projector, frozen.

    Raises UserError where there is none, it is damaged, or it belongs to another language model.
    """
    path = folder / HEAD
    head = nn.Linear(d_model, vocabulary, bias=False)
    try:
        head.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{path}: not the head of visual words of a language model of width {d_model} with "
            f"{vocabulary} tokens ({reason_of(error)}); train the projector again with "
            "`projector.visual_words`"
        ) from error
    return head.requires_grad_(False).eval()
