"""Settings of a run's interventions: the methods that are compared, their edits, their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from vista.config.base import Settings
from vista.config.data import Split
from vista.config.edits import PRESETS, DirectionSettings, EditSettings, EditTask
from vista.config.judges import JudgeChoice
from vista.config.metrics import BootstrapSettings
from vista.config.sweep import Point

# Method names become folder names and stand in the table.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_]*$"
Task = Literal["removal", "replacement"]
# What the edits of each task do.
EDIT_TASKS: Mapping[Task, EditTask] = {"removal": "remove", "replacement": "replace"}


class MethodEntry(Settings):
    """One method of the comparison: the source of its directions, and its edits."""

    directions: DirectionSettings = Field(
        DirectionSettings(), description="the direction of each concept"
    )
    vision_sae: str | None = Field(
        None, description="an entry of `vision_saes`; for directions of a method that reads one"
    )
    sae_weights: tuple[float, ...] | None = Field(
        None, description="only projectors with these weights of the SAE term; null: all"
    )
    encoders: tuple[str, ...] | None = Field(
        None, description="only these encoders; null: all that interventions are measured on"
    )
    removal: dict[str, Any] | None = Field(
        default_factory=dict,
        description="what differs from interventions.removal; null: not measured",
    )
    replacement: dict[str, Any] | None = Field(
        default_factory=dict,
        description="what differs from interventions.replacement; null: not measured",
    )

    def includes(self, point: Point) -> bool:
        """Whether the method is measured at a point at which interventions are measured."""
        return (self.sae_weights is None or point.sae_weight in self.sae_weights) and (
            self.encoders is None or point.encoder in self.encoders
        )


class InterventionMetricSettings(Settings):
    """How edited captions are scored; the same settings serve removal and replacement."""

    judge: JudgeChoice = Field(
        "lexical", description="Judge of what captions name: see vista.judges."
    )
    attributes: tuple[str, ...] = Field(
        (),
        description="Attribute words (colours, places) that count as new details where an edited "
        "caption names one that neither the image's reference texts nor the unedited caption has.",
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )


class InterventionsSettings(Settings):
    """Removal and replacement of objects in captions by edits of visual tokens."""

    methods: dict[Annotated[str, Field(pattern=NAME)], MethodEntry] = Field(
        default_factory=lambda: {"latent": MethodEntry()},
        min_length=1,
        description="what is compared, by name",
    )
    removal: EditSettings | None = Field(
        EditSettings(task="remove", how="subtract"), description="the edit; null: not measured"
    )
    replacement: EditSettings | None = Field(
        EditSettings(task="replace", how="remove_add"), description="the edit; null: not measured"
    )
    development: Split = Field(
        "validation", description="images that the coefficient of each method is chosen on"
    )
    test: Split = Field("test", description="images that figures are reported on")
    scores: InterventionMetricSettings = Field(
        InterventionMetricSettings(), description="how edited captions are scored"
    )
    encoders: tuple[str, ...] | None = Field(None, description="names; null: all of the sweep")
    llms: tuple[str, ...] | None = Field(None, description="names; null: all of the sweep")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.development == self.test:
            raise ValueError("`development` and `test` name the same split: choose two")
        for task, edit_task in EDIT_TASKS.items():
            edits: dict[str, EditSettings | None] = {task: getattr(self, task)}
            for method in self.methods:
                edits[f"methods.{method}.{task}"] = self.edit(method, task)
            for key, edit in edits.items():
                if edit is None:
                    continue
                if edit.task != edit_task:
                    raise ValueError(f"{key}.task must be {edit_task!r}")
                if "split" in edit.model_fields_set:
                    raise ValueError(
                        f"{key}.split is read by nobody: images are edited of `development` "
                        "and `test`; set those"
                    )
        return self

    def includes(self, point: Point) -> bool:
        """Whether interventions are measured at a point of the sweep."""
        return point.encoder in (self.encoders or (point.encoder,)) and (
            point.llm in (self.llms or (point.llm,))
        )

    def edit(self, method: str, task: Task) -> EditSettings | None:
        """Return the edit of one method for one task; None where it is not measured.

        Later values replace earlier ones: those of all methods, those of the preset that the
        method names, those of the method.

        Raises:
            ValidationError: The values together are no valid edit.
        """
        shared: EditSettings | None = getattr(self, task)
        changes: dict[str, Any] | None = getattr(self.methods[method], task)
        if shared is None or changes is None:
            return None
        name = changes.get("preset")
        preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
        try:
            return EditSettings.model_validate(
                {**shared.model_dump(exclude_unset=True), **preset, **changes}
            )
        except ValidationError as error:
            raise _below(("methods", method, task), error) from None

    def edits(self, method: str) -> Iterator[tuple[Task, EditSettings]]:
        """Yield the tasks that a method is measured in, each with the method's edit."""
        for task in EDIT_TASKS:
            if (edit := self.edit(method, task)) is not None:
                yield task, edit


def _below(key: tuple[str, ...], error: ValidationError) -> ValidationError:
    """Return the same error with all of its keys below `key`."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(detail["type"], detail["msg"]),
            loc=(*key, *detail["loc"]),
            input=detail["input"],
        )
        for detail in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, details)
