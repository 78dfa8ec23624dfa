"""Removal and replacement: what captions name before and after visual tokens were edited.

The score of an image is that of the VISTA paper (arXiv 2605.24946): 0 where the edit failed, 1
where it succeeded but the caption adds details that the image does not show, 2 where it succeeded
and the caption adds none; MS = (2 n2 + n1) / N over all images. Further figures are the rates
behind the score. The control is the same edit of patches outside the object. Captions of a control
of their own (another direction in place of the source's) are scored at the method's edit, as that
control is, and at the edit that is best for them on development images.

An item is one image with its source (what is to go) and target (what is to come, or None). Items
of one image are resampled together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vista.config.edits import EditControl, EditTask
from vista.config.interventions import EDIT_TASKS, Task
from vista.metrics.bootstrap import bootstrap_ratio
from vista.metrics.figure import Figure
from vista.metrics.intervention.captions import OUTSIDE, Edit, ItemKey, Scored, edit_order
from vista.metrics.intervention.choice import ControlOf, by_edit, choose_edits, mean_score
from vista.metrics.intervention.estimates import Draws, Value, mean_score_estimate, ratio, share
from vista.metrics.result import Estimate, MetricResult, estimate

# The place of the published edit, and that of its control, which has the object's coefficient.
OBJECT, CONTROL = "object", OUTSIDE
_TASK_OF: dict[EditTask, Task] = {edit: task for task, edit in EDIT_TASKS.items()}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_BLOCKS = (
    "Blocks after which the stream was edited; None: each latent's own, or none in feature space."
)


class EditFigures(_Part):
    """The figures of one place of the edit on test images, at its chosen coefficient and blocks."""

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
    damage: Estimate = Field(
        description="KL divergence of the next token, unedited from edited, in nats a token, on "
        "the unedited caption apart from its words for source and target; n counts items."
    )
    empty: Estimate = Field(description="Share of edited captions without a word; they fail.")

    @property
    def edit(self) -> Edit:
        """The edit: place, coefficient, blocks."""
        return (self.variant, self.coefficient, self.blocks)

    def figures(self, task: Task, control: EditControl | None = None) -> list[Figure]:
        """Return a figure for each estimate, and the coefficient; `set` is the place, or the
        control."""
        estimates = {name: getattr(self, name) for name in type(self).model_fields}
        return [
            estimate.figure(f"edit_{name}", of=task, set=control or self.variant)
            for name, estimate in (estimates | {"coefficient": self.strength}).items()
            if isinstance(estimate, Estimate)
        ]

    @property
    def strength(self) -> Estimate:
        """The coefficient, as a figure without an interval."""
        return Estimate(value=self.coefficient, n=self.ms.n)


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

    task: EditTask = Field(description="remove or replace.")
    method: str = Field(description="Where the directions come from.")
    space: str = Field(description="stream (after blocks of the LLM) or features (of the encoder).")
    how: str = Field(description="How the direction is applied.")
    control: EditControl | None = Field(
        None, description="What stands in place of the source's direction; None for the method."
    )
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
    edits: tuple[EditFigures, ...] = Field(
        description="Figures by place of the edit; of a control at the method's coefficient and "
        "blocks."
    )
    best: EditFigures | None = Field(
        None,
        description="Of a control: its figures at the coefficient and blocks that are best for it "
        "on development images.",
    )
    curve: tuple[CurvePoint, ...] = Field(
        description="Every coefficient and choice of blocks, by place of the edit."
    )

    def response(self, variant: str) -> list[CurvePoint]:
        """Return the curve of one place over coefficients, at the blocks chosen for it."""
        chosen = [edit.blocks for edit in self.edits if edit.variant == variant]
        return [
            point for point in self.curve if point.variant == variant and point.blocks in chosen
        ]

    @property
    def metric_task(self) -> Task:
        """The task in the words of the config and the table: removal or replacement."""
        return _TASK_OF[self.task]

    def figures(self) -> list[Figure]:
        """Return the figures of all edits, then those of each place of the edit.

        `of` is the task, `set` the place; of a control, its name.
        """
        task, control, best = self.metric_task, self.control, self.best
        figures = [
            self.found.figure("edit_found", of=task, set=control),
            self.named_before.figure("edit_named_before", of=task, set=control),
            *(figure for edit in self.edits for figure in edit.figures(task, control)),
        ]
        if best is not None:
            of_best = {"ms": best.ms, "damage": best.damage, "coefficient": best.strength}
            figures += [
                estimate.figure(f"edit_best_{name}", of=task, set=control)
                for name, estimate in of_best.items()
            ]
        return figures


def intervention_figures(
    task: EditTask,
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
    control_of: ControlOf | None = None,
) -> InterventionResult:
    """Choose coefficient and blocks for each place of the edit on development, report on test.

    The chance level of each figure at the object's patches is the same figure of the control: as
    many patches outside the object, edited likewise. Other places have no control.

    Args:
        task: What the edits do to the source.
        development: Scored items of the development images, every edit.
        test: Scored items of the test images, the same edits.
        method: Name of the method of directions, kept in the result, as are space and how.
        space: stream (after blocks of the LLM) or features (of the encoder).
        how: How the direction is applied.
        judge_name: Name of the judge that scored.
        n_attributes: Number of attribute words that count as details.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
        level: Coverage of the intervals.
        control_of: Where the captions are those of a control: which, and the method's edit.

    Raises:
        ValueError: A split has no item, there is no edit but the control, test lacks an edit that
            development chose, or either lacks the method's edit.
    """
    if any(all(item.variant == CONTROL for item in items) for items in (development, test)):
        raise ValueError("an intervention needs scored items on development and on test")
    draws = (seed, resamples, level)
    chosen = choose_edits(development)
    if OBJECT in chosen and CONTROL in chosen:
        chosen[CONTROL] = (CONTROL, *chosen[OBJECT][1:])
    else:
        chosen.pop(CONTROL, None)
    best_edit: Edit | None = None
    if control_of is not None:
        place = control_of.edit[0]
        best_edit, chosen = chosen.get(place), {place: control_of.edit}
    on_dev, on_test = by_edit(development), by_edit(test)

    def figures_of(edit: Edit, chance: EditFigures | None) -> EditFigures:
        for split, scored in (("development", on_dev), ("test", on_test)):
            if edit not in scored:
                raise ValueError(f"the {split} captions lack the edit {edit}")
        return _edit_figures(task, edit, on_dev[edit], on_test[edit], chance, draws)

    outside: EditFigures | None = None
    edits: dict[str, EditFigures] = {}
    # Outside comes first: its figures are the chance levels of the object's.
    for place in sorted(chosen, key=_control_first):
        edits[place] = figures_of(chosen[place], outside if place == OBJECT else None)
        outside = edits.get(CONTROL)
    # Every edit but the control has the same items: what no edit changes is counted on any one.
    items = on_test[next(edit for place, edit in chosen.items() if place != CONTROL)]
    pairs = {(item.source, item.target) for item in items}
    pairs_with_direction = {(item.source, item.target) for item in items if item.found}
    return InterventionResult(
        task=task,
        method=method,
        space=space,
        how=how,
        control=control_of.name if control_of else None,
        judge=judge_name,
        n_attributes=n_attributes,
        n_development=len({item.key for item in development}),
        n_images=len({item.image_id for item in items}),
        n_items=len({item.key for item in items}),
        n_edits=len(pairs),
        n_edits_found=len(pairs_with_direction),
        found=share(items, lambda item: item.found, level=level),
        named_before=share(items, lambda item: item.named_before, level=level),
        edits=tuple(edits[place] for place in sorted(edits)),
        best=figures_of(best_edit, None) if best_edit else None,
        curve=tuple(
            CurvePoint(
                variant=edit[0],
                coefficient=edit[1],
                blocks=edit[2],
                chosen=chosen.get(edit[0]) == edit,
                development_ms=mean_score(on_dev[edit]),
                ms=mean_score_estimate(on_test[edit], level),
                done=share(on_test[edit], lambda item: _done(task, item), level=level),
            )
            for edit in sorted(set(on_test) & set(on_dev), key=edit_order)
        ),
    )


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
    of the mean over these projectors, over images. It leaves out how projectors differ.

    Args:
        ours: Score of each item (image, source, target), by projector (seed of its training).
        theirs: The same of the other method, for the same projectors in the same order. Items
            that one of them lacks are left out.
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
    task: EditTask,
    edit: Edit,
    development: Sequence[Scored],
    test: Sequence[Scored],
    control: EditFigures | None,
    draws: Draws,
) -> EditFigures:
    def chance(name: str) -> float | None:
        level = getattr(control, name) if control else None
        return level.value if level else None

    def share_of(name: str, hits: Value, tries: Value | None = None) -> Estimate:
        return share(test, hits, tries, level=draws[2], chance=chance(name))

    def ratio_of(name: str, value: Value, weight: Value | None = None) -> Estimate:
        return ratio(test, value, weight, draws, chance(name))

    def named(item: Scored) -> float:
        return item.named_before

    replaces = task == "replace"
    n_with_loss = sum(item.loss_tokens > 0 for item in test)
    nats = ratio_of("nats", lambda item: item.loss_change, lambda item: item.loss_tokens)
    damage = ratio_of("damage", lambda item: item.damage_sum, lambda item: item.damage_tokens)
    replaced_of_all = share_of("replaced_of_all", lambda item: item.replaced)
    return EditFigures(
        variant=edit[0],
        coefficient=edit[1],
        blocks=edit[2],
        development_ms=mean_score(development),
        ms=mean_score_estimate(test, draws[2], chance("ms")),
        clean=share_of("clean", lambda item: item.score == 2),
        new_details=share_of("new_details", lambda item: item.score == 1),
        failed=share_of("failed", lambda item: item.score == 0),
        removed=share_of("removed", lambda item: item.removed, named),
        removed_of_all=share_of("removed_of_all", lambda item: item.removed),
        replaced=share_of("replaced", lambda item: item.replaced, named) if replaces else None,
        replaced_of_all=replaced_of_all if replaces else None,
        both_named=share_of("both_named", lambda item: item.both_named) if replaces else None,
        objects_kept=share_of(
            "objects_kept", lambda item: item.objects_kept, lambda item: item.objects_before
        ),
        attributes_kept=share_of(
            "attributes_kept",
            lambda item: item.attributes_kept,
            lambda item: item.attributes_before,
        ),
        new_objects=ratio_of("new_objects", lambda item: item.hallucinated_change),
        nats=nats.model_copy(update={"n": n_with_loss}),
        damage=damage.model_copy(update={"n": sum(item.damage_tokens > 0 for item in test)}),
        empty=share_of("empty", lambda item: item.empty),
    )


def _control_first(place: str) -> tuple[bool, str]:
    return (place != CONTROL, place)


def _done(task: EditTask, item: Scored) -> bool:
    return item.replaced if task == "replace" else item.removed
