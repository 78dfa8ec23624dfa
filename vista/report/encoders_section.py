"""Section of the summary that compares encoders: projectors as an instrument (arXiv 2406.16860)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from vista.metrics.figure import Figure
from vista.report import grid
from vista.report.grid import Grid, Name, Section, number
from vista.report.table import LongTable


class Line(NamedTuple):
    """A row: what it shows and by what control, and the figures of both.

    Attributes:
        what: The row's name, with the control in brackets.
        value: Whether a figure belongs to the value, which is a mean.
        control: Whether a figure belongs to the control; None: the mean of the values' own chance
            levels.
    """

    what: str
    value: Callable[[Figure], bool]
    control: Callable[[Figure], bool] | None = None


class Compared(NamedTuple):
    """A row of the table.

    Attributes:
        what: The name of its line.
        llm: Language model; None: the figure is the encoder's own.
        weight: Weight of the SAE term, or None likewise.
        of: Value and control of each encoder that has one.
        n: The smallest n of the value's figures, by encoder.
    """

    what: str
    llm: str | None
    weight: float | None
    of: dict[str, tuple[float, float | None]]
    n: dict[str, int]


def compared(table: LongTable, top_k: int) -> tuple[list[str], list[Compared]]:
    """Return all encoders, and a row for each metric that one of them has."""
    shown: dict[tuple[str, str | None, float | None], list[Figure]] = {}
    for figure in table.figures:
        if figure.encoder is not None:
            key = (figure.encoder, figure.llm, figure.sae_weight)
            shown.setdefault(key, []).append(figure)
    encoders = sorted({encoder for encoder, _, _ in shown})
    models = sorted(
        {(llm, weight) for _, llm, weight in shown}, key=lambda key: (key[0] or "", key[1] or 0.0)
    )
    rows = []
    for llm, weight in models:
        for line in (*_own(), *_through_models(top_k)):
            pairs = {name: _measured(line, shown.get((name, llm, weight), ())) for name in encoders}
            known = {name: pair for name, pair in pairs.items() if pair is not None}
            if known:
                n = {
                    name: min(f.n for f in shown[name, llm, weight] if _has_value(line, f))
                    for name in known
                }
                rows.append(Compared(line.what, llm, weight, known, n))
    return encoders, rows


def encoders_section(table: LongTable, top_k: int = 3, least_n: int = 0) -> Section:
    """Return all metrics by encoder, combined encoders included: a column an encoder, and for each
    LLM and weight of the term the rows of what was read through it."""
    encoders, lines = compared(table, top_k)
    rows = [
        [Name(row.what), grid.name(row.llm), grid.weight(row.weight)]
        + [grid.few(_cell(row.of.get(name)), row.n.get(name, 0), least_n) for name in encoders]
        for row in lines
    ]
    return Section(
        "Encoders compared",
        "One column an encoder; in brackets the control that the row names. First what is the "
        "encoder's own, then what was read through a language model, by weight of the SAE term. "
        "Means over seeds, layers, vision SAEs and sets of images, as far as the row does not name "
        "one; intervals and n stand with each metric.",
        [Grid(("figure (control)", "LLM", "λ", *(grid.name(name) for name in encoders)), rows)],
    )


def _own() -> list[Line]:
    return [
        Line("patch probe accuracy (most frequent class)", _columns("patch_accuracy")),
        Line(
            "monosemanticity of vision latents (random ones as rare)",
            _columns("monosemanticity", of="sae"),
            _columns("monosemanticity", of="random_matched"),
        ),
        *(
            Line(
                f"AUROC of {kind} images, kNN on latents (on a random dictionary's)",
                _columns(auroc, of="knn_latents"),
                _columns(auroc, of="knn_random"),
            )
            for kind, auroc in (("near", "near_ood_auroc"), ("far", "far_ood_auroc"))
        ),
        *(
            Line(
                f"probe accuracy, {images}, on latents (on raw features)",
                _probes("latents", shifted),
                _probes("raw", shifted),
            )
            for images, shifted in (("held out", False), ("shifted", True))
        ),
        Line(
            "ontological coverage of vision latents (of a random dictionary)",
            _columns("ontological_coverage", of="sae"),
            _columns("ontological_coverage", of="random"),
        ),
        Line(
            "attributes that vision latents found (permuted words)",
            _columns("discovery_recall", of="sae", set="all"),
        ),
    ]


def _through_models(top_k: int) -> list[Line]:
    return [
        Line("caption cross-entropy (shuffled images)", _columns("caption_cross_entropy")),
        Line("caption names the object (shuffled images)", _columns("caption_names_object")),
        Line(
            f"matching rate@{top_k} (shuffled images)",
            _columns("matching_rate", of=None, k=top_k, layer=None),
        ),
        Line("pointing game (covered share)", _columns("pointing_game", of=None, layer=None)),
        Line(
            "FVU of visual tokens (of text)",
            _columns("fvu", token_kind="image"),
            _columns("fvu", token_kind="control"),
        ),
        Line("concepts with a shared latent (permuted)", _columns("shared_concepts", layer=None)),
        Line(
            f"logit lens: matching rate@{top_k} (shuffled images)",
            _columns("lens_matching_rate", of=None, method="logit_lens", k=top_k, layer=None),
        ),
    ]


def _columns(metric: str, **columns: Any) -> Callable[[Figure], bool]:
    """Return whether a figure is of a metric and its columns have these values."""
    return lambda f: (
        f.metric == metric and all(getattr(f, name) == value for name, value in columns.items())
    )


def _probes(of: str, shifted: bool) -> Callable[[Figure], bool]:
    """Return whether a figure is the accuracy of a probe on all dimensions of a space, on shifted
    sets or the run's images."""
    accuracy = _columns("probe_accuracy", of=of, k=None)
    return lambda f: accuracy(f) and (f.set is not None) == shifted


def _has_value(line: Line, figure: Figure) -> bool:
    return line.value(figure) and figure.value is not None


def _measured(line: Line, figures: Sequence[Figure]) -> tuple[float, float | None] | None:
    """Return value and control; None where there is no value."""
    measured = [f for f in figures if line.value(f)]
    value = _mean(f.value for f in measured)
    if value is None:
        return None
    if line.control is None:
        return value, _mean(f.chance for f in measured)
    return value, _mean(f.value for f in figures if line.control(f))


def _cell(pair: tuple[float, float | None] | None) -> str:
    return "–" if pair is None else f"{number(pair[0])} ({number(pair[1])})"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
