"""A vision model on pixels that already lie in memory: its bare forward, and nothing else.

Shape suffixes as in `benchmarks.usual.models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.usual.models import patch_tokens


@torch.no_grad()
def encode(vision: Any, pixels_b3hw: Tensor, batch_size: int) -> Sequence[Tensor]:
    """Patch tokens [b, p, d] batch by batch."""
    return [patch_tokens(vision, part) for part in pixels_b3hw.split(batch_size)]
