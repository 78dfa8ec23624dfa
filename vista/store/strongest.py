"""The latents that fire at an image's tokens, each once.

Shape legend: t token, k slot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Active(NamedTuple):
    """A latent that fires at an image.

    Attributes:
        latent: Its number.
        value: Its activation there.
        token: The visual token of that activation.
    """

    latent: int
    value: float
    token: int


def strongest(
    index_tk: NDArray[Any], value_tk: NDArray[Any], used_tk: NDArray[np.bool_]
) -> list[Active]:
    """Return the latents in the slots that are used, each at the token where it fires most,
    strongest first."""
    token_n, slot_n = np.nonzero(used_tk)
    value_n = value_tk[token_n, slot_n].astype(np.float64)
    found: dict[int, Active] = {}
    # Stable: of equal activations the first token's counts.
    for n in np.argsort(-value_n, kind="stable").tolist():
        latent = int(index_tk[token_n[n], slot_n[n]])
        found.setdefault(latent, Active(latent, float(value_n[n]), int(token_n[n])))
    return list(found.values())
