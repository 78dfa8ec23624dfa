"""The choice of an edit (coefficient and blocks) by the score of development items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vista.config.edits import EditControl
from vista.metrics.intervention.captions import Edit, Scored, edit_order


@dataclass(frozen=True)
class ControlOf:
    """Which control captions are of, and the edit that was chosen for the method."""

    name: EditControl
    edit: Edit


def choose_edits(items: Iterable[Scored]) -> dict[str, Edit]:
    """Return the edit with the largest MS for each place.

    Of equal ones that of fewer blocks, then of the smaller coefficient, then of earlier blocks.
    """
    best: dict[str, tuple[tuple[int, int, float, tuple[int, ...]], Edit]] = {}
    for edit, scored in by_edit(items).items():
        place, coefficient, blocks = edit
        # All edits have the same items: whole sums tie exactly where means might not.
        total = sum(item.score for item in scored)
        rank = (-total, len(blocks or ()), coefficient, blocks or ())
        if place not in best or rank < best[place][0]:
            best[place] = rank, edit
    return {place: edit for place, (_, edit) in sorted(best.items())}


def mean_score(items: Sequence[Scored]) -> float:
    """Return MS = (2 n2 + n1) / N of the items of one edit."""
    return sum(item.score for item in items) / len(items)


def by_edit(items: Iterable[Scored]) -> dict[Edit, list[Scored]]:
    """Group items by edit, both in a fixed order."""
    groups: dict[Edit, list[Scored]] = {}
    for item in items:
        groups.setdefault(item.edit, []).append(item)
    # Sums of floats depend on their order: items are sorted, so that the order of rows does not
    # change a figure.
    return {
        edit: sorted(groups[edit], key=lambda item: str(item.key))
        for edit in sorted(groups, key=edit_order)
    }
