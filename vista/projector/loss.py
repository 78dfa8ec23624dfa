"""The SAE term of the projector's loss; the other term is `vista.language.loss`.

Legend of shape suffixes: b image, p patch token, t token, d LLM width, n visual token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vista.config.projector import Normalise, Penalised
from vista.sae.through import reconstruct

if TYPE_CHECKING:
    from vista.sae.neutral import SparseAutoencoder


@dataclass(frozen=True)
class Moments:
    """Sums over visual tokens at one layer, in float64: of parts of a batch they add up.

    Attributes:
        count: number of tokens.
        total_d: sum of the stream [d].
        square: sum of the squared norms.
        error: sum of the squared errors of the SAE.
        active: sum of the numbers of active latents.
    """

    count: float
    total_d: Tensor
    square: float
    error: float
    active: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.total_d + other.total_d,
            self.square + other.square,
            self.error + other.error,
            self.active + other.active,
        )

    @property
    def variance(self) -> float:
        """Mean over tokens of the squared distance from their mean, summed over dimensions."""
        mean_d = self.total_d / self.count
        return self.square / self.count - float(mean_d.square().sum())

    @property
    def fvu(self) -> float:
        """Mean squared error over variance; NaN where all tokens are equal."""
        return self.error / self.count / self.variance if self.variance > 0 else float("nan")

    @property
    def l0(self) -> float:
        """Mean number of active latents of a token."""
        return self.active / self.count


def sae_term(
    stream: Mapping[int, Tensor],
    saes: Mapping[int, SparseAutoencoder],
    visual: slice,
    normalise: Normalise = "none",
    batch: Mapping[int, Moments] | None = None,
    penalises: Penalised = "error",
) -> Tensor:
    """Return the mean over layers of the SAE's squared error at the visual tokens (a scalar).

    `stream` gives the residual stream [b, t, d] after each block of the layer set, `visual` the
    positions of the visual tokens. Per layer it is the mean over images, visual tokens and
    dimensions of (SAE(x) - x)^2; the target x is not detached (VISTA paper, loss; method notes).

    Args:
        stream: residual stream by layer.
        saes: SAEs by layer.
        visual: positions of the visual tokens.
        normalise: "variance" divides the error of a layer by the variance of its visual tokens and
            gives the FVU. Its gradient is that of the ratio: with a constant denominator, or none,
            tokens that all move to their mean lower the term, though the SAE reconstructs what is
            left of their differences no better. "norm" divides by the mean squared norm as by a
            constant, since a gradient of it would reward a common offset of all tokens.
        batch: moments of the whole batch by layer where `stream` is a part of it; the terms of the
            parts, weighted by their shares of the images, then add up to the term of the batch.
        penalises: "stream" penalises the mean squared stream, as if the SAEs reconstructed nothing;
            `normalise` does not apply then.
    """
    assert saes, "the SAE term needs at least one layer"
    errors = []
    for layer, sae in saes.items():
        x_bpd = stream[layer][:, visual]
        if penalises == "stream":
            errors.append(x_bpd.float().square().mean())
            continue
        # In float32 whatever the SAE's dtype: the difference is far smaller than its terms.
        error = (reconstruct(sae, x_bpd).float() - x_bpd.float()).square().mean()
        if normalise != "none":
            whole = batch[layer] if batch else _moments(x_bpd, float(error.detach()))
            error = _normalised(error, x_bpd.float(), normalise, whole)
        errors.append(error)
    # Layers of a model that is spread over several devices lie on different ones.
    return torch.stack([error.to(errors[0].device) for error in errors]).mean()


def _normalised(error: Tensor, x_bpd: Tensor, normalise: Normalise, whole: Moments) -> Tensor:
    """The mean squared error of a part of the batch `whole` in the unit of the whole's stream.

    The derivative of E / V is dE / V - (E / V^2) dV, so with the E and V of the whole batch, those
    of its parts add up. V needs no derivative of the mean, which makes it smallest.
    """
    width = x_bpd.shape[-1]
    if normalise == "norm":
        return error * (width * whole.count / whole.square)
    mean_d = (whole.total_d / whole.count).to(x_bpd)
    spread = (x_bpd - mean_d).square().mean()
    per_value = whole.variance / width
    return error / per_value - whole.fvu / per_value * (spread - per_value)


def batch_moments(
    stream: Mapping[int, Tensor], saes: Mapping[int, SparseAutoencoder], visual: slice
) -> Iterator[tuple[int, Moments]]:
    """Yield the moments of the visual tokens of each layer; arguments as in `sae_term`."""
    for layer, sae in saes.items():
        with torch.no_grad():
            x_bpd = stream[layer][:, visual]
            z_bps = sae.encode(x_bpd)
            restored_bpd = sae.decode(z_bps, like=x_bpd)
            error = (restored_bpd.float() - x_bpd.float()).square().mean()
            yield layer, _moments(x_bpd, float(error), float((z_bps > 0).sum()))


def _moments(x_bpd: Tensor, error: float, active: float = 0.0) -> Moments:
    x_nd = x_bpd.detach().flatten(0, -2).double()
    return Moments(
        len(x_nd),
        x_nd.sum(0),
        float(x_nd.square().sum()),
        error * x_nd.numel(),
        active,
    )
