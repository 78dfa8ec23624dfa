"""Request of the metric: only projectors that have a head of visual words."""

from __future__ import annotations

from vista.metrics.visual_words.plan import request

__all__ = ["request"]
