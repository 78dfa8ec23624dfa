"""Choices of a judge in a config, of the kinds whose files stand in `vista/judges/kinds`.

Kinds are found by their files, so that a new one is its file and no line elsewhere. The code of a
kind counts for the nodes that name its module, not for all that hold a choice of judges.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import AfterValidator, Discriminator, Field, Tag

from vista.config.checkpoint import Checkpoint
from vista.config.data import Split
from vista.config.judge_base import JudgeSettings
from vista.config.registry import PACKAGE, names_in


def judge_names() -> list[str]:
    """Return the names of all judges, sorted: those of the files that hold them."""
    return names_in(PACKAGE / "judges" / "kinds")


def judge_module(judge: str | Mapping[str, Any]) -> str:
    """Return the module of a judge, given its settings as they stand in a stage's own."""
    return f"vista.judges.kinds.{judge if isinstance(judge, str) else judge['kind']}"


def _settings_class(name: str) -> type[JudgeSettings]:
    settings: type[JudgeSettings] = importlib.import_module(judge_module(name)).Settings
    return settings


_KINDS = {name: _settings_class(name) for name in judge_names()}


def looking_judges() -> list[str]:
    """Return the names of the judges that can be shown images, sorted."""
    return [name for name, kind in _KINDS.items() if kind.looks]


def judge_named(name: str) -> JudgeSettings:
    """Return the settings of a judge that needs none. Raises ValueError for any other name."""
    kind: Any = _KINDS.get(name)
    if kind is None:
        raise ValueError(f"judge {name!r} is unknown; choose one of {', '.join(_KINDS)}")
    lacking = [key for key, field in kind.model_fields.items() if field.is_required()]
    if lacking:
        raise ValueError(
            f"judge {name!r} needs settings ({', '.join(lacking)}); give {{kind: {name}, ...}}"
        )
    settings: JudgeSettings = kind()
    return settings


def _known_name(name: str) -> str:
    judge_named(name)
    return name


def _form(judge: Any) -> str | None:
    if isinstance(judge, str):
        return "name"
    return judge.get("kind") if isinstance(judge, Mapping) else getattr(judge, "kind", None)


def _listed(names: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


if TYPE_CHECKING:
    JudgeChoice = str | JudgeSettings
    NamingJudgeChoice = JudgeSettings
else:
    # A judge in a metric's settings: by its name where it needs no settings, or with them. Told
    # apart beforehand, so that a mistake is complained about once and under its own key.
    JudgeChoice = Annotated[
        Union[
            Annotated[str, AfterValidator(_known_name), Tag("name")],
            *(Annotated[kind, Tag(name)] for name, kind in _KINDS.items()),
        ],
        Discriminator(
            _form,
            custom_error_type="judge_kind",
            custom_error_message="give the name of a judge, or its settings with `kind`: "
            + _listed(list(_KINDS)),
        ),
    ]
    # A judge that names latents, with its settings.
    NamingJudgeChoice = Annotated[
        Union[tuple(kind for kind in _KINDS.values() if kind.names)],  # noqa: UP007
        Field(discriminator="kind"),
    ]


def judge_settings(judge: str | JudgeSettings) -> JudgeSettings:
    """Return the settings of a judge in a config. Raises ValueError where a name is unknown."""
    return judge_named(judge) if isinstance(judge, str) else judge


def judge_source(judge: str | JudgeSettings) -> Checkpoint | None:
    """Return the checkpoint that a judge runs, None for one that needs no model of its own."""
    return getattr(judge_settings(judge), "source", None)


def judge_files(judge: str | JudgeSettings) -> tuple[str, ...]:
    """Return the user's files that a judge reads."""
    return judge_settings(judge).files


def fitted_on(judge: str | JudgeSettings) -> Split | None:
    """Return the split that a judge's threshold is fitted on, None where none is fitted."""
    return judge_settings(judge).fitted_on
