"""What the note below a figure's title says: n, and what error bars are."""

from __future__ import annotations

from collections.abc import Sequence

from vista.metrics.figure import Figure


def span(numbers: Sequence[int]) -> str:
    """Return the smallest and the largest of some numbers, or the one that all are."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def bar_note(figures: Sequence[Figure]) -> str:
    """Return the sentence on seeds and error bars of a figure with a dot for each seed."""
    seeds = len({f.seed for f in figures})
    if seeds < 2:
        return "Error bars: intervals over images; one seed."
    return (
        f"Mean over {seeds} seeds (small dots); error bars: intervals over images, from "
        "the lowest to the highest end of any seed."
    )
