"""The SAE term of the projector's loss; the other term is `vista.language.loss`.

Legend of shape suffixes: b image, p patch token, t token, d LLM width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vista.sae.through import reconstruct

if TYPE_CHECKING:
    from vista.sae.neutral import SparseAutoencoder


def sae_term(
    stream: Mapping[int, Tensor], saes: Mapping[int, SparseAutoencoder], visual: slice
) -> Tensor:
    """Return the mean over layers of the SAE's squared error at the visual tokens (a scalar).

    `stream` gives the residual stream [b, t, d] after each block of the layer set, `visual` the
    positions of the visual tokens. Per layer it is the mean over images, visual tokens and
    dimensions of (SAE(x) - x)^2; the target x is not detached (VISTA paper, loss; method notes).
    """
    assert saes, "the SAE term needs at least one layer"
    errors = []
    for layer, sae in saes.items():
        x_bpd = stream[layer][:, visual]
        # In float32 whatever the SAE's dtype: the difference is far smaller than its terms.
        errors.append((reconstruct(sae, x_bpd).float() - x_bpd.float()).square().mean())
    # Layers of a model that is spread over several devices lie on different ones.
    return torch.stack([error.to(errors[0].device) for error in errors]).mean()
