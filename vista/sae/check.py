"""The gate: how well an SAE reconstructs held-out *text* in the model that it is used with.

An SAE of another model, layer or scale still runs, and every figure after it would be noise. An SAE
is trained on text, so it must reconstruct text. Its error on visual tokens is a result, not a test.

FVU = mean squared error / variance of the stream, both over tokens and dimensions. Some tokens have
a norm hundreds of times that of others and carry most of the variance: an SAE that reconstructs
them alone has a low FVU. So FVU is measured again without them.

Shape legend: n token, d width of the residual stream, s dictionary latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

from vista.config.sae import CheckSaeSettings, SaeBounds
from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.progress import progress
from vista.sae.activations import norm_median, peeked, text_activations
from vista.sae.neutral import SparseAutoencoder

# Tokens of a larger norm, in medians, are massive.
MASSIVE = 4.0
# An FVU with and without massive tokens that differs by more than this factor is worth a warning.
_FAR_APART = 2.0


class SaeCheck(BaseModel):
    """Figures of one SAE on held-out tokens: of text (BOS and padding left out), or patches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sae: str = Field(description="name of the SAE")
    layer: int = Field(description="block after which it reads, from 0")
    d_sae: int = Field(description="latents in the dictionary")
    tokens: int = Field(description="held-out tokens measured on")
    mse: float = Field(description="mean squared error over tokens and dimensions")
    fvu: float = Field(description="fraction of variance unexplained")
    explained_variance: float = Field(description="1 - fvu")
    l0: float = Field(description="mean active latents a token")
    dead_share: float = Field(description="share of latents that never fired on these tokens")
    normal_fvu: float | None = Field(
        description="fvu over the tokens whose norm is at most 4 x the median; None where these "
        "do not vary"
    )
    normal_tokens: int = Field(description="number of these tokens")
    massive_variance: float = Field(
        description="share of the variance of all tokens that the others carry"
    )


def measure_sae(
    llm: LanguageModel, sae: SparseAutoencoder, texts: Sequence[str], settings: CheckSaeSettings
) -> SaeCheck:
    """Run `sae` over held-out `texts` until `settings.tokens` tokens have passed.

    Raises UserError where the texts hold no token or the SAE's layer is not one of the model's.
    """
    batches = text_activations(llm, texts, sae.config.layer, settings.text, settings.tokens)
    return measure_on(sae, (batch.stream_nd for batch in batches))


class _Sums:
    """Running sums over tokens, from which a variance and an FVU follow."""

    def __init__(self, d_in: int) -> None:
        self.tokens = 0
        self.error = self.square = 0.0
        self.sum_d = torch.zeros(d_in, dtype=torch.float64)

    def add(self, x_nd: torch.Tensor, error_nd: torch.Tensor) -> None:
        self.tokens += len(x_nd)
        self.error += float(error_nd.square().sum())
        self.square += float(x_nd.square().sum())
        self.sum_d += x_nd.sum(dim=0)

    def variance(self, mean_d: torch.Tensor) -> float:
        """Summed squared distance of all tokens to `mean_d`."""
        mean = float(self.tokens * mean_d.square().sum() - 2 * mean_d @ self.sum_d)
        return self.square + mean

    @property
    def mean_d(self) -> torch.Tensor:
        return self.sum_d / self.tokens


def measure_on(sae: SparseAutoencoder, batches: Iterable[torch.Tensor]) -> SaeCheck:
    """Run `sae` over all tokens of `batches` ([n, d] each, at least one token in all)."""
    d_in, d_sae = sae.config.d_in, sae.config.d_sae
    every, normal = _Sums(d_in), _Sums(d_in)
    fired_s = torch.zeros(d_sae, dtype=torch.int64)
    first, batches = peeked(batches)
    limit = MASSIVE * norm_median(first)
    for batch_nd in progress(batches, desc="check", unit="batch"):
        for start in range(0, len(batch_nd), sae.dense_rows):
            x_nd = batch_nd[start : start + sae.dense_rows].to(sae.b_dec.device)
            with torch.no_grad():
                z_ns = sae.encode(x_nd)
                error_nd = (sae.decode(z_ns, like=x_nd) - x_nd).cpu().double()
            fired_s += (z_ns > 0).sum(dim=0).cpu()
            x_nd = x_nd.cpu().double()  # not every accelerator has float64
            every.add(x_nd, error_nd)
            normal_n = x_nd.norm(dim=1) <= limit
            normal.add(x_nd[normal_n], error_nd[normal_n])
    tokens, variance = every.tokens, every.variance(every.mean_d)
    fvu = every.error / variance
    spread = normal.variance(normal.mean_d)
    return SaeCheck(
        sae=sae.config.name,
        layer=sae.config.layer,
        d_sae=d_sae,
        tokens=tokens,
        mse=every.error / tokens / d_in,
        fvu=fvu,
        explained_variance=1.0 - fvu,
        l0=float(fired_s.sum()) / tokens,
        dead_share=float((fired_s == 0).double().mean()),
        normal_fvu=normal.error / spread if spread > 0 else None,
        normal_tokens=normal.tokens,
        massive_variance=max(0.0, 1.0 - normal.variance(every.mean_d) / variance),
    )


def massive_warning(check: SaeCheck) -> str | None:
    """A sentence where massive tokens make the FVU another one than that of all others."""
    fvu = check.normal_fvu
    if fvu is None or max(fvu, check.fvu) <= _FAR_APART * min(fvu, check.fvu):
        return None
    massive = check.tokens - check.normal_tokens
    return (
        f"SAE {check.sae} at layer {check.layer}: FVU {check.fvu:.3g} on all tokens is "
        f"{fvu:.3g} without the {massive} of {check.tokens} tokens whose norm exceeds "
        f"{MASSIVE:g} x the median; they carry {check.massive_variance:.0%} of the variance. "
        "saes.tokens.max_norm_ratio leaves them out"
    )


def enforce_bounds(
    check: SaeCheck, settings: SaeBounds, model_name: str, key: str, tokens: str = "text tokens"
) -> None:
    """Raise UserError that names SAE, layer, figure and bound, if any bound is broken.

    `key` is where the bounds stand in the config, e.g. `check_sae`; `tokens` says what they were
    measured on. A figure that is not a number breaks its bound.
    """
    bounds = (
        ("FVU", check.fvu, "exceeds", settings.max_fvu, "max_fvu"),
        ("L0", check.l0, "is below", settings.min_l0, "min_l0"),
        ("L0", check.l0, "exceeds", settings.max_l0, "max_l0"),
        ("dead share", check.dead_share, "exceeds", settings.max_dead_share, "max_dead_share"),
    )
    broken = []
    for figure, value, verb, bound, name in bounds:
        if bound is None or (value <= bound if verb == "exceeds" else value >= bound):
            continue
        broken.append(f"{figure} {value:.3g} {verb} the bound {bound:g} (key {key}.{name})")
    if broken:
        raise UserError(
            f"SAE {check.sae} at layer {check.layer} of {model_name}: on {check.tokens} held-out "
            f"{tokens}, {'; '.join(broken)}; choose the SAE made for this model and layer, "
            "train it longer, or move the bound"
        )
