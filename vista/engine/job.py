"""Typed jobs: a stage declares the types of its settings and of its inputs, and receives both.

    @dataclass(frozen=True, kw_only=True)
    class Inputs:
        latents: Artifact                                    # required
        world: Artifact | None = None                        # optional
        labels: list[Artifact] = field(default_factory=list) # a list
        judges: Mapping[str, Artifact] = roles_beginning("judge_")

    @stage(LocalizationSettings, Inputs)
    def run(job: StageJob[LocalizationSettings, Inputs]) -> None: ...

The types are named in the decorator, and not in the annotation alone, because they then belong to
the code of the stage: `vista.engine.code` follows decorators.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from vista.engine.artifacts import CHECKPOINTS, Artifact

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SettingsType = TypeVar("SettingsType", bound=BaseModel)
InputsType = TypeVar("InputsType", bound="DataclassInstance")

# Key of a field's metadata: the text that the roles of a family begin with.
_PREFIX = "roles_beginning"


@dataclass(frozen=True)
class Job:
    """One run of a stage: settings as JSON values, opened inputs by role, a folder to write into.

    A job with a `part`, (k, n) with 1 <= k <= n, does the k-th of n parts and leaves the artifact
    unfinished; a job without one does everything that is missing.
    """

    stage: str
    settings: dict[str, Any]
    inputs: dict[str, Artifact | list[Artifact]]
    work: Path
    threads: int = 1
    part: tuple[int, int] | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder for what a resumed job reads; it is removed when the artifact is published."""
        return self.work / CHECKPOINTS


@dataclass(frozen=True)
class NoInputs:
    """The inputs of a stage that reads no artifact."""


@dataclass(frozen=True)
class StageJob(Generic[SettingsType, InputsType]):
    """What a stage's `run` receives: its settings and inputs, typed, and a folder to write into.

    Attributes:
        settings: All settings of the job, validated.
        inputs: The opened input artifacts, by role.
        order: The untyped job, for `vista.engine.processes`.
    """

    settings: SettingsType
    inputs: InputsType
    order: Job

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self.order.stage

    @property
    def work(self) -> Path:
        """The folder to write into."""
        return self.order.work

    @property
    def threads(self) -> int:
        """The CPU threads that the job may use."""
        return self.order.threads

    @property
    def part(self) -> tuple[int, int] | None:
        """The part of the work to do, as in `Job`."""
        return self.order.part

    @property
    def checkpoints(self) -> Path:
        """Folder for what a resumed run reads, as in `Job`."""
        return self.order.checkpoints


@dataclass(frozen=True)
class Stage(Generic[SettingsType, InputsType]):
    """A stage's `run`, called with a `Job`.

    Attributes:
        run: The decorated function.
        settings_type: Model of all settings.
        inputs_type: Dataclass with a field for each input role.
    """

    run: Callable[[StageJob[SettingsType, InputsType]], None]
    settings_type: type[SettingsType]
    inputs_type: type[InputsType]

    def __call__(self, job: Job) -> None:
        """Validate the settings, name the inputs and run.

        Raises:
            ValidationError: The settings are not those of the stage.
            TypeError: The inputs are not those of the stage.
        """
        settings = self.settings_type.model_validate(job.settings)
        self.run(StageJob(settings, named_inputs(self.inputs_type, job), job))


def stage(
    settings_type: type[SettingsType], inputs_type: type[InputsType]
) -> Callable[
    [Callable[[StageJob[SettingsType, InputsType]], None]], Stage[SettingsType, InputsType]
]:
    """Declare the settings and the inputs of a stage; decorates its `run`."""
    return lambda run: Stage(run, settings_type, inputs_type)


def roles_beginning(prefix: str) -> Any:
    """Declare a field that holds all inputs whose role begins with `prefix`, by role."""
    return field(default_factory=dict, metadata={_PREFIX: prefix})


def roles(inputs_type: type[DataclassInstance]) -> tuple[str, ...]:
    """Return the roles that a stage's inputs can have; a family of roles as "judge_*"."""
    return tuple(
        f"{role.metadata[_PREFIX]}*" if _PREFIX in role.metadata else role.name
        for role in dataclasses.fields(inputs_type)
    )


def named_inputs(inputs_type: type[InputsType], job: Job) -> InputsType:
    """Return the inputs of a job as attributes.

    Raises TypeError if the job has a role that `inputs_type` does not name, lacks a required one,
    or has a list in the place of one artifact or vice versa.
    """
    types = get_type_hints(inputs_type)
    rest: dict[str, Artifact | list[Artifact]] = dict(job.inputs)
    values: dict[str, Any] = {}
    for role in dataclasses.fields(inputs_type):
        if _PREFIX in role.metadata:
            family = [name for name in rest if name.startswith(role.metadata[_PREFIX])]
            values[role.name] = {name: rest.pop(name) for name in family}
        elif role.name in rest:
            values[role.name] = rest.pop(role.name)
            if not _fits(values[role.name], types[role.name]):
                kind = "a list" if isinstance(values[role.name], list) else "one artifact"
                raise TypeError(f"{job.stage}: input {role.name} is {kind}")
        elif role.default is role.default_factory is dataclasses.MISSING:
            raise TypeError(f"{job.stage}: input {role.name} is missing")
    if rest:
        raise TypeError(f"{job.stage}: input {min(rest)} is not declared by {inputs_type.__name__}")
    return inputs_type(**values)


def _fits(value: Artifact | list[Artifact], annotation: Any) -> bool:
    """Whether an input has the type of its field, or one of several."""
    members = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    wanted = list if isinstance(value, list) else Artifact
    return wanted in [get_origin(member) or member for member in members]
