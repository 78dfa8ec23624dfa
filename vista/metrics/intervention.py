"""Removal and replacement: what captions name before and after visual tokens were edited.

The score of the VISTA paper (arXiv 2605.24946), an image each: 0 where the edit failed, 1 where it
succeeded but the caption now tells details that the image does not show, 2 where it succeeded and
nothing was invented; MS = (2 n2 + n1) / N over all images. Beside it stand the rates that one
number hides, and the same edit outside the object as control.

An item is one image with its source (what is to go) and target (what is to come, or None). Items
of one image are resampled together. Suffixes: i items, b images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from vista.metrics.bootstrap import bootstrap_ratio
from vista.metrics.edited_captions import Edit, ItemKey, Scored, edit_order
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, estimate

FloatArray = NDArray[np.float64]
Task = Literal["remove", "replace"]
Draws = tuple[int, int, float]

# Where the published edit acts, and its control, which has the object's coefficient.
OBJECT, CONTROL = "object", "outside"
# How the metric of each task is called, in stages and in the long table.
METRIC: dict[Task, str] = {"remove": "removal", "replace": "replacement"}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_BLOCKS = (
    "Blocks after which the stream was edited; None: each latent's own, or none in feature space."
)


class EditFigures(_Part):
    """One place of the edit at its chosen coefficient and blocks, on the test images."""

    variant: str = Field(
        description="Patches that were edited: object, all, active; outside is the control."
    )
    coefficient: float = Field(
        description="Coefficient of the largest development MS, chosen together with the blocks "
        "(ties: fewer blocks, then the smaller coefficient); the control has the object's."
    )
    blocks: tuple[int, ...] | None = Field(description=_BLOCKS)
    development_ms: float = Field(description="MS of that choice on development images.")
    ms: Estimate = Field(description="(2 n2 + n1) / N, 0 to 2, over all items.")
    clean: Estimate = Field(description="Share of items with score 2: done, nothing invented.")
    new_details: Estimate = Field(description="Share of items with score 1: done, details added.")
    failed: Estimate = Field(description="Share of items with score 0.")
    removed: Estimate = Field(
        description="Share of the items whose source the unedited caption names in which the "
        "edited one names it no more."
    )
    removed_of_all: Estimate = Field(description="The same, over all items.")
    replaced: Estimate | None = Field(
        description="As removed, and the target is named; None for removal."
    )
    replaced_of_all: Estimate | None = Field(description="The same, over all items.")
    both_named: Estimate | None = Field(
        description="Share of all items whose edited caption names source and target."
    )
    objects_kept: Estimate = Field(
        description="Of the objects beside source and target that unedited captions name, the "
        "share that is still named; n counts those mentions."
    )
    attributes_kept: Estimate = Field(
        description="The same for attribute words; nothing where no such words are given."
    )
    new_objects: Estimate = Field(
        description="Objects that are named and not shown (CHAIR; the target apart), edited less "
        "unedited, per caption."
    )
    nats: Estimate = Field(
        description="Change of the negative log likelihood of the reference's words that concern "
        "neither source nor target, in nats a token, edited less unedited; n counts items."
    )
    empty: Estimate = Field(description="Share of edited captions without a word; they fail.")

    @property
    def edit(self) -> Edit:
        """What was edited: place, coefficient, blocks."""
        return (self.variant, self.coefficient, self.blocks)

    def figures(self, metric: str) -> list[Figure]:
        """Return a row a figure, called <metric>_<figure>_<variant>."""
        named = {
            name: value
            for name in type(self).model_fields
            if isinstance(value := getattr(self, name), Estimate)
        }
        n = self.ms.n
        chosen = Estimate(value=self.coefficient, n=n)
        return [
            *(each.figure(f"{metric}_{name}_{self.variant}") for name, each in named.items()),
            chosen.figure(f"{metric}_coefficient_{self.variant}"),
        ]


class CurvePoint(_Part):
    """One coefficient of a response curve, on the test images."""

    variant: str = Field(description="Patches that were edited.")
    coefficient: float = Field(description="Length of the added direction.")
    blocks: tuple[int, ...] | None = Field(description=_BLOCKS)
    chosen: bool = Field(description="Whether the reported figures are of this point.")
    development_ms: float = Field(description="MS on the development images.")
    ms: Estimate = Field(description="MS on the test images.")
    done: Estimate = Field(description="Share of all items removed, or replaced for replacement.")


class InterventionResult(MetricResult):
    """One method at one point: coefficients and blocks chosen on development images, figures on
    test."""

    task: Task = Field(description="remove or replace.")
    method: str = Field(description="Where the directions come from.")
    space: str = Field(description="stream (after blocks of the LLM) or features (of the encoder).")
    how: str = Field(description="How the direction is applied.")
    judge: str = Field(description="Name of the judge of what captions name.")
    n_attributes: int = Field(description="Attribute words that count as details.")
    n_development: int = Field(description="Development items that edits are chosen by.")
    n_images: int = Field(description="Test images.")
    n_items: int = Field(description="Test items: pairs of an image and what is asked of it.")
    n_edits: int = Field(description="Distinct (source, target) asked for on test.")
    n_edits_found: int = Field(description="Those for which the method has a direction.")
    found: Estimate = Field(description="Share of items for which the method has a direction.")
    named_before: Estimate = Field(
        description="Share of items whose unedited caption names the source: the largest share "
        "that any edit can reach."
    )
    edits: tuple[EditFigures, ...] = Field(description="Figures by place of the edit.")
    curve: tuple[CurvePoint, ...] = Field(
        description="Every coefficient and choice of blocks, by place of the edit."
    )

    def response(self, variant: str) -> list[CurvePoint]:
        """Return the curve of one place over coefficients, at the blocks chosen for it."""
        chosen = [edit.blocks for edit in self.edits if edit.variant == variant]
        return [
            point for point in self.curve if point.variant == variant and point.blocks in chosen
        ]

    def figures(self) -> list[Figure]:
        """Return what holds for every edit, then the figures of each place."""
        metric = METRIC[self.task]
        return [
            self.found.figure(f"{metric}_found"),
            self.named_before.figure(f"{metric}_named_before"),
            *(row for edit in self.edits for row in edit.figures(metric)),
        ]


def intervention_figures(
    task: Task,
    development: Sequence[Scored],
    test: Sequence[Scored],
    *,
    method: str,
    space: str,
    how: str,
    judge_name: str,
    n_attributes: int,
    seed: int,
    resamples: int,
    level: float,
) -> InterventionResult:
    """Choose coefficient and blocks for each place of the edit on development, report on test.

    The chance level of each figure at the object's patches is the same figure of the control: as
    many patches outside the object, edited likewise. Other places have no control.

    Args:
        task: What the edits were to do.
        development: Scored items of the development images, every edit.
        test: Scored items of the test images, the same edits.
        method: Name of the method, for the record, as are space and how.
        space: Where the direction lives.
        how: How it is applied.
        judge_name: Name of the judge that scored.
        n_attributes: Attribute words that the scores know.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.

    Raises:
        ValueError: A split has no item, there is no edit but the control, or test lacks an edit
            that development chose.
    """
    if any(all(each.variant == CONTROL for each in items) for items in (development, test)):
        raise ValueError("an intervention needs scored items on development and on test")
    draws = (seed, resamples, level)
    chosen = choose_edits(development)
    if OBJECT in chosen and CONTROL in chosen:
        chosen[CONTROL] = (CONTROL, *chosen[OBJECT][1:])
    else:
        chosen.pop(CONTROL, None)
    on_dev, on_test = _by_edit(development), _by_edit(test)
    control: EditFigures | None = None
    edits: dict[str, EditFigures] = {}
    # The control comes first: the object's figures name it as their chance level.
    for place in sorted(chosen, key=_control_first):
        edit = chosen[place]
        if edit not in on_test:
            raise ValueError(f"the test captions lack the edit {edit}")
        against = control if place == OBJECT else None
        edits[place] = _edit_figures(task, edit, on_dev[edit], on_test[edit], against, draws)
        control = edits.get(CONTROL)
    # Every edit but the control has the same items, so any one tells what holds for all.
    asked = on_test[next(edit for place, edit in chosen.items() if place != CONTROL)]
    pairs = {(each.source, each.target) for each in asked}
    found_pairs = {(each.source, each.target) for each in asked if each.found}
    return InterventionResult(
        task=task,
        method=method,
        space=space,
        how=how,
        judge=judge_name,
        n_attributes=n_attributes,
        n_development=len({each.key for each in development}),
        n_images=len({each.image_id for each in asked}),
        n_items=len({each.key for each in asked}),
        n_edits=len(pairs),
        n_edits_found=len(found_pairs),
        found=_share(asked, lambda each: each.found, draws),
        named_before=_share(asked, lambda each: each.named_before, draws),
        edits=tuple(edits[place] for place in sorted(edits)),
        curve=tuple(
            CurvePoint(
                variant=edit[0],
                coefficient=edit[1],
                blocks=edit[2],
                chosen=chosen.get(edit[0]) == edit,
                development_ms=mean_score(on_dev[edit]),
                ms=_ratio(on_test[edit], lambda each: each.score, None, draws),
                done=_share(on_test[edit], lambda each: _done(task, each), draws),
            )
            for edit in sorted(set(on_test) & set(on_dev), key=edit_order)
        ),
    )


def choose_edits(items: Iterable[Scored]) -> dict[str, Edit]:
    """Return the edit with the largest MS for each place.

    Of equal ones that of fewer blocks, then of the smaller coefficient, then of earlier blocks.
    """
    best: dict[str, tuple[tuple[int, int, float, tuple[int, ...]], Edit]] = {}
    for edit, scored in _by_edit(items).items():
        place, coefficient, blocks = edit
        # All edits have the same items: whole sums tie exactly where means might not.
        total = sum(each.score for each in scored)
        rank = (-total, len(blocks or ()), coefficient, blocks or ())
        if place not in best or rank < best[place][0]:
            best[place] = rank, edit
    return {place: edit for place, (_, edit) in sorted(best.items())}


def mean_score(items: Sequence[Scored]) -> float:
    """Return MS = (2 n2 + n1) / N of the items of one edit."""
    return sum(each.score for each in items) / len(items)


def paired_ms_difference(
    ours: Sequence[Mapping[ItemKey, int]],
    theirs: Sequence[Mapping[ItemKey, int]],
    *,
    seed: int,
    resamples: int,
    level: float,
) -> Estimate:
    """MS of one method less that of another, on the same items of the same projectors.

    Whole images are resampled, each with all its items under all projectors: the interval is that
    of the mean over these projectors, as it would vary with other images. How projectors differ
    it does not tell.

    Args:
        ours: Score of each item (image, source, target), by projector (seed of its training).
        theirs: The same of the other method, the same projectors in the same order. Items that
            one of them lacks are left out.
        seed: Seed of the draws.
        resamples: Number of resamples.
        level: Coverage of the interval.

    Returns:
        The difference with its interval; n counts the shared items, each once.
    """
    shared = shared_items([*ours, *theirs])
    image = {image_id: b for b, image_id in enumerate(sorted({key[0] for key in shared}))}
    columns = np.zeros((len(image), 2))
    for mine, other in zip(ours, theirs, strict=True):
        for key in shared:
            columns[image[key[0]]] += (mine[key] - other[key], 1.0)
    interval = bootstrap_ratio(columns[:, 0], columns[:, 1], seed, resamples, level)
    return estimate(interval, len(shared))


def shared_items(scores: Sequence[Mapping[ItemKey, int]]) -> list[ItemKey]:
    """Return the items that all of `scores` have, in a fixed order; none of no scores."""
    return sorted(set.intersection(*map(set, scores)), key=str) if scores else []


def _edit_figures(
    task: Task,
    edit: Edit,
    development: Sequence[Scored],
    test: Sequence[Scored],
    control: EditFigures | None,
    draws: Draws,
) -> EditFigures:
    def against(name: str) -> float | None:
        found = getattr(control, name) if control else None
        return found.value if found else None

    def share(name: str, is_so: Callable[[Scored], bool], of: _Of = None) -> Estimate:
        return _ratio(test, lambda each: float(is_so(each)), of, draws, against(name))

    def ratio(name: str, value: Callable[[Scored], float], of: _Of = None) -> Estimate:
        return _ratio(test, value, of, draws, against(name))

    def named(each: Scored) -> float:
        return float(each.named_before)

    replaces = task == "replace"
    told = sum(each.loss_tokens > 0 for each in test)
    nats = ratio("nats", lambda each: each.loss_change, lambda each: each.loss_tokens)
    return EditFigures(
        variant=edit[0],
        coefficient=edit[1],
        blocks=edit[2],
        development_ms=mean_score(development),
        ms=ratio("ms", lambda each: each.score),
        clean=share("clean", lambda each: each.score == 2),
        new_details=share("new_details", lambda each: each.score == 1),
        failed=share("failed", lambda each: each.score == 0),
        removed=share("removed", lambda each: each.removed, named),
        removed_of_all=share("removed_of_all", lambda each: each.removed),
        replaced=share("replaced", lambda each: each.replaced, named) if replaces else None,
        replaced_of_all=share("replaced_of_all", lambda each: each.replaced) if replaces else None,
        both_named=share("both_named", lambda each: each.both_named) if replaces else None,
        objects_kept=ratio(
            "objects_kept", lambda each: each.objects_kept, lambda each: each.objects_before
        ),
        attributes_kept=ratio(
            "attributes_kept",
            lambda each: each.attributes_kept,
            lambda each: each.attributes_before,
        ),
        new_objects=ratio("new_objects", lambda each: each.hallucinated_change),
        nats=nats.model_copy(update={"n": told}),
        empty=share("empty", lambda each: each.empty),
    )


_Of = Callable[[Scored], float] | None


def _share(items: Sequence[Scored], is_so: Callable[[Scored], bool], draws: Draws) -> Estimate:
    return _ratio(items, lambda each: float(is_so(each)), None, draws)


def _ratio(
    items: Sequence[Scored],
    value: Callable[[Scored], float],
    of: _Of,
    draws: Draws,
    chance: float | None = None,
) -> Estimate:
    """Sum of `value` over the sum of `of` (1 an item if None), resampled over images."""
    image = {image_id: b for b, image_id in enumerate(sorted({each.image_id for each in items}))}
    sums = np.zeros((len(image), 2))
    for each in items:
        sums[image[each.image_id]] += (value(each), 1.0 if of is None else of(each))
    sums = sums[sums[:, 1] > 0]
    interval = bootstrap_ratio(sums[:, 0], sums[:, 1], *draws)
    return estimate(interval, int(sums[:, 1].sum()), chance if len(sums) else None)


def _by_edit(items: Iterable[Scored]) -> dict[Edit, list[Scored]]:
    found: dict[Edit, list[Scored]] = {}
    for each in items:
        found.setdefault(each.edit, []).append(each)
    # Sums of floats depend on their order; the order of rows must not show.
    return {
        edit: sorted(found[edit], key=lambda each: str(each.key))
        for edit in sorted(found, key=edit_order)
    }


def _control_first(place: str) -> tuple[bool, str]:
    return (place != CONTROL, place)


def _done(task: Task, each: Scored) -> bool:
    return each.replaced if task == "replace" else each.removed
