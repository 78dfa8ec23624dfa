"""A run's interventions: which methods are compared, on which images, with which edits."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from vista.config.base import Settings
from vista.config.data import Split
from vista.config.intervention_metrics import InterventionMetricSettings
from vista.config.interventions import PRESETS, DirectionSettings, EditSettings, Task
from vista.config.sweep import Point
from vista.config.vision_sae import (
    CheckVisionSaeSettings,
    LabelVisionSettings,
    TrainVisionSaeSettings,
)

# Method names become folder names and stand in the table.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_]*$"


class VisionSaeEntry(Settings):
    """One SAE on the patch features of an encoder: training, gate, labels."""

    train: TrainVisionSaeSettings = Field(
        TrainVisionSaeSettings(), description="how it is trained on cached features"
    )
    check: CheckVisionSaeSettings = Field(
        CheckVisionSaeSettings(), description="bounds on held-out images"
    )
    labels: LabelVisionSettings = Field(
        LabelVisionSettings(), description="how latents are named by their top images"
    )


class MethodEntry(Settings):
    """One method of the comparison: where its directions come from, and what it edits with."""

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
        """Whether the method is measured with one projector, of those that interventions are."""
        return (self.sae_weights is None or point.sae_weight in self.sae_weights) and (
            self.encoders is None or point.encoder in self.encoders
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
    def _tasks(self) -> Self:
        if self.development == self.test:
            raise ValueError("`development` and `test` name the same split: choose two")
        for key, task in (("removal", "remove"), ("replacement", "replace")):
            edits: dict[str, EditSettings | None] = {key: getattr(self, key)}
            for name in self.methods:
                edits[f"methods.{name}.{key}"] = self.edit(name, key)
            for where, edit in edits.items():
                if edit is None:
                    continue
                if edit.task != task:
                    raise ValueError(f"{where}.task must be {task!r}")
                if "split" in edit.model_fields_set:
                    raise ValueError(
                        f"{where}.split is read by nobody: images are edited of `development` "
                        "and `test`; set those"
                    )
        return self

    def includes(self, point: Point) -> bool:
        """Whether interventions are measured with one projector of the sweep."""
        return point.encoder in (self.encoders or (point.encoder,)) and (
            point.llm in (self.llms or (point.llm,))
        )

    def edit(self, method: str, key: str) -> EditSettings | None:
        """Return what one method edits with in one task ("removal" or "replacement")."""
        common: EditSettings | None = getattr(self, key)
        changed: dict[str, Any] | None = getattr(self.methods[method], key)
        if common is None or changed is None:
            return None
        preset = changed.get("preset")
        # A preset of the method's own comes before what is common to all methods.
        own = PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        try:
            return EditSettings.model_validate(
                {**common.model_dump(exclude_unset=True), **own, **changed}
            )
        except ValidationError as error:
            raise _at(("methods", method, key), error) from None

    def tasks(self) -> dict[str, Task]:
        """The metrics that are asked for, each with its task."""
        found: dict[str, Task] = {}
        if self.removal is not None:
            found["removal"] = "remove"
        if self.replacement is not None:
            found["replacement"] = "replace"
        return found


def _at(place: tuple[str, ...], error: ValidationError) -> ValidationError:
    """Return the same complaints, each about a key below `place`."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(each["type"], each["msg"]),
            loc=(*place, *each["loc"]),
            input=each["input"],
        )
        for each in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, details)
