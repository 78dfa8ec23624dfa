"""The page of the command line, from its parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from tests.docs.markdown import prose, table

_HEAD = """# Command line

<!-- Written by `python -m tests.docs.references --fix` from vista/cli.py. -->

`vista COMMAND --help` prints the same. Exit status: 0; 2 for a mistake of the user, in one
sentence; 130 after Ctrl-C."""
_STAGES = """## Stages

A job of the workflow calls one of these. Options of all of them:"""


def cli_page(parser: argparse.ArgumentParser) -> str:
    """Return the page of a parser with subparsers."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    told = {action.dest: action.help or "" for action in commands._choices_actions}
    sections, stages = [_HEAD], {}
    for name, command in sorted(commands.choices.items()):
        if isinstance(command.get_default("stage"), str):
            stages[name] = command
            continue
        sections.append(f"## vista {name}")
        sections.append(f"{_sentence(command.description or told[name])}")
        sections.append(f"    {_usage(name, command)}")
        if rows := list(_rows(command)):
            sections.append(table(("argument", "meaning"), rows))
    longest = max(stages.values(), key=lambda command: len(command._actions))
    sections += [_STAGES, table(("argument", "meaning"), _rows(longest))]
    parts = [
        name for name, command in stages.items() if len(command._actions) == len(longest._actions)
    ]
    sections.append(f"`--part` is an option of {', '.join(parts)} alone.")
    makes = ([f"`{name}`", prose(told[name].removeprefix("stage: "))] for name in stages)
    sections.append(table(("stage", "makes"), makes))
    return "\n\n".join(sections) + "\n"


def _sentence(text: str) -> str:
    text = prose(text)
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def _rows(parser: argparse.ArgumentParser) -> Iterable[list[str]]:
    for action in _actions(parser):
        text = parser._get_formatter()._expand_help(action) if action.help else ""
        shown = isinstance(action.default, str | int | float | Path) and not isinstance(
            action.default, bool
        )
        if shown and "default" not in text:
            text += f"; default: {action.default}"
        yield [f"`{_written(action)}`", prose(text)]


def _written(action: argparse.Action) -> str:
    value = _value(action)
    if not action.option_strings:
        return value
    name = max(action.option_strings, key=len)
    return name if action.nargs == 0 else f"{name} {value}"


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return {"+": f"{metavar} [...]", "*": f"[{metavar} ...]", "?": f"[{metavar}]"}.get(
        str(action.nargs), metavar
    )


def _usage(name: str, parser: argparse.ArgumentParser) -> str:
    actions = sorted(_actions(parser), key=lambda action: not action.option_strings)
    words = (
        _written(action)
        if action.required or not action.option_strings
        else f"[{_written(action)}]"
        for action in actions
    )
    return " ".join(("vista", name, *words))
