"""Request of the metric: the default one, with the layers that are read."""

from __future__ import annotations

from vista.metrics.logit_lens.plan import request

__all__ = ["request"]
