"""Short runs that suggest settings of training: all of them in a table, and what they suggest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from vista.engine.artifacts import Artifact
from vista.report import grid
from vista.report.grid import Grid, Section, number
from vista.report.shown import Measured, SuggestionPlace

_SETTINGS = ("init_scale", "lr", "sae_weight")
_MEASURED = ("cross_entropy", "sae_error", "fvu", "l0", "visual_norm")


def tried_section(suggestions: Sequence[tuple[SuggestionPlace, Artifact]]) -> Section:
    """Return every run behind the suggestions, with the config's values marked."""
    rows = []
    for place, artifact in suggestions:
        suggestion = _read(artifact)
        chosen = {
            "init_scale": (place.init_scale,),
            "lr": (place.lr,),
            "sae_weight": place.sae_weights,
        }
        suggested = [suggestion[name]["value"] for name in _SETTINGS]
        for run in _runs(suggestion):
            settings = [run[name] for name in _SETTINGS]
            rows.append(
                [
                    *(grid.name(place.encoder), grid.name(place.llm)),
                    *(_marked(run[name], chosen[name]) for name in _SETTINGS),
                    *(number(run[name]) for name in _MEASURED),
                    "yes" if settings == suggested else "",
                ]
            )
    return Section(
        "Settings of training that were tried",
        "Short runs, compared on images that they did not learn from: the captions' cross-entropy, "
        "the SAE term (in the unit in which it is trained), FVU, L0 and root mean square norm of "
        "visual tokens. First weights with learning rates at λ = 0; then weights of the term, with "
        "the settings of the lowest cross-entropy. Bold: values of this config. – where the loss "
        "was not finite.",
        [
            Grid(
                (
                    *("encoder", "LLM", "init_scale", "lr", "λ"),
                    *("caption CE", "SAE error", "FVU", "L0", "norm", "suggested"),
                ),
                rows,
            )
        ],
    )


def suggestion_notes(measured: Measured) -> list[str]:
    """Return a sentence for each pair of models on what short runs suggest for its training."""
    notes = []
    for place, artifact in measured.suggestions:
        guesses = [
            f"{name} {'none' if part['value'] is None else format(part['value'], '.3g')} "
            f"({part['reason']})"
            for name, part in _read(artifact).items()
        ]
        notes.append(
            f"Suggested for projectors from {place.encoder} to {place.llm}, and not used by "
            f"itself: {'; '.join(guesses)}. All runs: suggest/{artifact.path.name}/suggest.json."
        )
    return notes


def _read(artifact: Artifact) -> dict[str, Any]:
    text = artifact.file("suggest.json").read_text(encoding="utf-8")
    return cast(dict[str, Any], json.loads(text))


def _runs(suggestion: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the runs, once the one of weight 0 that weights are compared with."""
    return [*suggestion["lr"]["trials"], *suggestion["sae_weight"]["trials"][1:]]


def _marked(value: float, chosen: Sequence[float]) -> str:
    return f"**{value:.3g}**" if value in chosen else f"{value:.3g}"
