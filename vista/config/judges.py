"""Choices of a judge in a config, of the kinds whose files stand in `vista/judges/kinds`.

Kinds are found by their files, so that a new one is its file and no line elsewhere, or as plug-ins,
which are imported when they are used. The code of a kind counts for the nodes that name its module,
not for all that hold a choice of judges.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import AfterValidator, Discriminator, Tag

from vista.config.checkpoint import Checkpoint
from vista.config.data import Split
from vista.config.judge_base import JudgeSettings
from vista.config.plugins import KINDS, Plugin, PluginSettings, find_plugin, plugin_names


def judge_names() -> list[str]:
    """Return the names of this package's judges, sorted: those of the files that hold them."""
    return KINDS.own()


def judge_module(judge: str | Mapping[str, Any]) -> str:
    """Return the module of a judge, given its settings as they stand in a stage's own."""
    return KINDS.module(judge if isinstance(judge, str) else judge["kind"])


def _settings_class(name: str) -> type[JudgeSettings]:
    settings: type[JudgeSettings] = importlib.import_module(f"vista.judges.kinds.{name}").Settings
    return settings


_KINDS = {name: _settings_class(name) for name in judge_names()}
# Tag of the member that stands for all plug-ins.
_PLUGIN = "plug-in"


def looking_judges() -> list[str]:
    """Return the names of this package's judges that can be shown images, sorted."""
    return [name for name, kind in _KINDS.items() if kind.looks]


def judge_named(name: str) -> JudgeSettings:
    """Return the settings of a judge that needs none. Raises ValueError for any other name."""
    KINDS.known(name)
    kind: Any = _KINDS.get(name) or _of_plugin(name)
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


def _of_plugin(name: str) -> type[JudgeSettings]:
    """Return the settings' model of a judge that is a plug-in. Raises UserError if it is none."""
    plugin = find_plugin(KINDS.group, name)
    assert plugin is not None, name
    return _declared(plugin)


def _declared(plugin: Plugin) -> type[JudgeSettings]:
    settings = plugin.definition("Settings")
    if not (isinstance(settings, type) and issubclass(settings, JudgeSettings)):
        raise plugin.refusal("has Settings that are no vista.config.judge_base.JudgeSettings")
    if settings.model_fields["kind"].default != plugin.name:
        raise plugin.refusal(f"has Settings whose `kind` is not {plugin.name!r} by default")
    for function in ("create", *(["create_namer"] if settings.names else [])):
        plugin.definition(function)
    return settings


def _kind_of(judge: Any) -> Any:
    return judge.get("kind") if isinstance(judge, Mapping) else getattr(judge, "kind", None)


def _form(judge: Any) -> str | None:
    """Return the tag of a judge's member of `JudgeChoice`."""
    kind: str | None = "name" if isinstance(judge, str) else _kind_of(judge)
    # Plug-ins are looked for where no judge of this package has the name.
    if not isinstance(kind, str) or kind == "name" or kind in _KINDS:
        return kind
    return _PLUGIN if kind in plugin_names(KINDS.group) else kind


def _plugin_judge(judge: Any) -> JudgeSettings:
    return _of_plugin(_kind_of(judge)).model_validate(judge)


def _plugin_namer(judge: Any) -> JudgeSettings:
    settings = _plugin_judge(judge)
    if not settings.names:
        raise ValueError(f"judge {settings.kind!r} cannot name latents: choose another")
    return settings


def _plugin_kinds() -> list[type[JudgeSettings]]:
    return [_of_plugin(name) for name in plugin_names(KINDS.group) if name not in _KINDS]


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
            Annotated[Any, PluginSettings(_plugin_judge, _plugin_kinds), Tag(_PLUGIN)],
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
        Union[
            *(Annotated[kind, Tag(name)] for name, kind in _KINDS.items() if kind.names),
            Annotated[
                Any,
                PluginSettings(
                    _plugin_namer, lambda: [kind for kind in _plugin_kinds() if kind.names]
                ),
                Tag(_PLUGIN),
            ],
        ],
        Discriminator(_form),
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
