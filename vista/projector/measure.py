"""What a batch tells of a projector beside its loss; nothing here changes what is learnt.

Legend of shape suffixes: b image, p patch token, d LLM width, n text token.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vista.projector.module import Projector
from vista.projector.passes import Losses
from vista.projector.ranks import total

MEASURED = ("fvu", "l0", "entropy_gradient", "term_gradient", "visual_norm", "text_norm")


def measure(projector: Projector, losses: Losses, chosen: NDArray[np.int64]) -> dict[str, float]:
    """Return MEASURED, `cross_entropy` and `term`, the SAE term, on the batch of the images
    `chosen`.

    `fvu` and `l0` are means over layers; `entropy_gradient` and `term_gradient` the norms of the
    gradients of the cross-entropy and of the SAE term, without its weight, on the projector's
    parameters; `visual_norm` and `text_norm` the root mean square norms of visual tokens and of
    text in the stream that enters block 0. Without SAEs, what they are needed for is NaN.
    """
    llm, ranks = losses.llm, losses.ranks
    parts, n_answer = losses.parts(chosen)
    moments = losses.moments(projector, parts) if losses.saes else {}
    parameters = list(projector.parameters())
    gradients = [[torch.zeros_like(value) for value in parameters] for _ in range(2)]
    entropy = term = squares = texts = 0.0
    counts = [0.0, 0.0]
    for part in parts:
        batch = part.batch.to(llm.device)
        visual_bpd = losses.visual(projector, part)
        entropy_part, term_part, _ = losses.of_part(visual_bpd, batch, moments or None)
        terms = [entropy_part / n_answer, term_part * part.share][: 2 if losses.saes else 1]
        for value, sums in zip(terms, gradients, strict=False):
            for sum_, found in zip(
                sums, torch.autograd.grad(value, parameters, retain_graph=True), strict=True
            ):
                sum_ += found
        entropy += float(entropy_part.detach()) / n_answer
        term += float(term_part.detach()) * part.share
        squares += float(visual_bpd.detach().float().square().sum())
        text_nd = llm.embed(batch.input_ids)[batch.text_mask].float()
        texts += float(text_nd.square().sum())
        counts[0] += math.prod(visual_bpd.shape[:2])
        counts[1] += len(text_nd)
    entropy, term, squares, texts, *counts = total(ranks, entropy, term, squares, texts, *counts)
    norms = [_norm(losses, sums) for sums in gradients]
    none = math.nan
    return {
        "cross_entropy": entropy,
        "term": term,
        "fvu": _mean([found.fvu for found in moments.values()]),
        "l0": _mean([found.l0 for found in moments.values()]),
        "entropy_gradient": norms[0],
        "term_gradient": norms[1] if losses.saes else none,
        "visual_norm": math.sqrt(squares / counts[0]),
        "text_norm": math.sqrt(texts / counts[1]) if counts[1] else none,
    }


def _norm(losses: Losses, gradient: list[Tensor]) -> float:
    """The norm of a gradient that the ranks have parts of."""
    whole = torch.cat([part.flatten() for part in gradient])
    if losses.ranks.num_processes > 1:
        whole = losses.ranks.reduce(whole, reduction="sum")
    return float(whole.norm())


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
