"""The model card of a saved readout: what it is, its figures, how to load it."""

from __future__ import annotations

from collections.abc import Mapping

from vista.engine.artifacts import Artifact
from vista.readout.parts import Parts
from vista.report.escape import clean
from vista.report.grid import Grid, Name, number

_HEAD = """---
library_name: vista-saes
tags:
- interpretability
- sparse-autoencoders
- vision-language
---
"""


def model_card(parts: Parts, published: Mapping[str, tuple[str, str]]) -> str:
    """Return the card as Markdown.

    Args:
        parts: The readout's parts.
        published: Repository and commit of models that are not in the folder, by role.
    """
    rows = [
        [Name("vision encoder"), Name(_model(parts.encoder.source.kind, published.get("encoder")))],
        [Name("language model"), Name(_model(parts.llm.source.kind, published.get("llm")))],
        [Name("projector"), Name(_digest(parts.projector))],
        *([Name("SAE"), Name(_digest(sae))] for sae in parts.saes),
    ]
    sections = [
        f"{_HEAD}\n# {clean(parts.name, 300)}",
        "A vision encoder read through the labelled latents of a language model's sparse "
        "autoencoders: an image's features go through the projector into the language model, and "
        "its SAEs name what stands in the residual stream at each patch.",
        Grid(("part", "what"), rows).markdown(),
        "## Figures",
        _figures(parts),
        "## Use",
        "```python\nimport vista\n\nreadout = vista.Readout.from_pretrained(FOLDER)\n"
        'seen = readout("cat.png")\nseen.top(k=3)\n```',
        "Licences are those of its parts.",
    ]
    return "\n\n".join(sections) + "\n"


def _model(kind: str, published: tuple[str, str] | None) -> str:
    if published is not None:
        repo, commit = published
        return clean(f"{repo} at {commit}", 200)
    return "trained by the workflow" if kind == "standin" else f"in this folder ({kind})"


def _digest(artifact: Artifact) -> str:
    """Return a part by its content: the name of its folder differs between copies."""
    return f"{artifact.stage}, digest {artifact.digest[:12]}"


def _figures(parts: Parts) -> str:
    if not parts.figures:
        return "None: no report of this readout was at hand when it was saved."
    rows = [
        [
            Name(_metric(figure)),
            Name("all" if figure["layer"] is None else str(figure["layer"])),
            number(figure["value"]),
            _interval(figure),
            number(figure["chance"]),
            "-" if figure["n"] is None else str(figure["n"]),
        ]
        for figure in parts.figures
    ]
    head = ("metric", "layer", "value", "95 % interval", "chance", "n")
    return Grid(head, rows).markdown()


def _metric(figure: Mapping[str, object]) -> str:
    name = clean(str(figure["metric"]), 100)
    return name if figure["k"] is None else f"{name}, k = {figure['k']}"


def _interval(figure: Mapping[str, object]) -> str:
    low, high = figure["ci_low"], figure["ci_high"]
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return "-"
    return f"{number(low)} to {number(high)}"
