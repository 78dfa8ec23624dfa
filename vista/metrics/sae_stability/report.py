"""Sections and figures of dictionaries compared: quality over sparsities, and stability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vista.metrics.figure import Figure
from vista.metrics.results import read_result
from vista.metrics.sae_check import TEXT_FIGURES, VISION_FIGURES
from vista.metrics.sae_stability.measure import PairStability, SaeStabilityResult
from vista.report import grid, style
from vista.report.escape import mathtext
from vista.report.facets import Key, Series, XAxis, facets
from vista.report.grid import Grid, Name, Section, interval, number
from vista.report.notes import span
from vista.report.shown import Drawing, Measured, MetricPlace, Shown
from vista.report.table import LongTable, over_seeds
from vista.report.vision_sae_section import block


class Compared(NamedTuple):
    """The dictionaries of one model: a language model's by its first entry, or an encoder's."""

    model: str
    result: SaeStabilityResult


class Quality(NamedTuple):
    """Figures of one dictionary on held-out tokens; None where it was not checked."""

    model: str
    layer: int | None
    name: str
    architecture: str
    d_sae: int
    fvu: Figure | None
    l0: Figure | None
    dead_share: Figure | None
    recovered: float | None


def compared(measured: Measured) -> list[Compared]:
    """Return what was compared, in the order of the artifacts."""
    results = []
    for place, artifact in measured.of("sae_stability"):
        result = SaeStabilityResult.model_validate(read_result(artifact))
        results.append(Compared(place.encoder or result.dictionaries[0].name, result))
    return results


def qualities(table: LongTable, models: Sequence[Compared], of_text: bool) -> list[Quality]:
    """Return the figures of all dictionaries of language models, or of encoders."""
    return [
        quality
        for model in models
        if model.result.of_text == of_text
        for quality in _of_model(table, model)
    ]


def _of_model(table: LongTable, compared: Compared) -> Iterator[Quality]:
    result = compared.result
    names = TEXT_FIGURES if result.of_text else VISION_FIGURES
    for one in result.dictionaries:
        if result.of_text:
            place: dict[str, Any] = {"llm": one.name, "layer": result.layer}
        else:
            place = {"encoder": compared.model, "method": one.name}
        fvu, l0, dead_share = (
            next(iter(table.select(names[field], **place)), None)
            for field in ("fvu", "l0", "dead_share")
        )
        recovered = None
        if result.of_text:
            # Of the text control: the same tokens at every point, whatever its projector.
            recovered = over_seeds(
                table.select("spliced_loss_recovered", of="mean", token_kind="control", **place)
            )
        yield Quality(
            model=compared.model,
            layer=result.layer,
            name=one.name,
            architecture=one.architecture,
            d_sae=one.d_sae,
            fvu=fvu,
            l0=l0,
            dead_share=dead_share,
            recovered=recovered.mean if recovered else None,
        )


def quality_section(table: LongTable, models: Sequence[Compared]) -> Section:
    """Return error against sparsity of all dictionaries of one model, the sparsest first."""
    header = ("layer", "dictionary", "architecture", "latents", "L0", "FVU", "dead share")
    text, vision = (qualities(table, models, of_text) for of_text in (True, False))
    return Section(
        "Dictionaries: quality over sparsities",
        "Variance that a dictionary leaves unexplained (FVU, chance 1: the mean token) at its "
        "sparsity (L0: active latents a token), on held-out text or patches, the sparsest first. "
        "kmeans is the baseline: directions of clusters, one a token. Loss recovered: of the text "
        "control, against mean ablation; – for language models that no point reads.",
        [
            Grid(
                ("LLM", *header, "loss recovered", "n tokens"),
                [_quality_row(one, number(one.recovered)) for one in _sparsest_first(text)],
            ),
            Grid(
                ("encoder", *header, "n patches"),
                [_quality_row(one) for one in _sparsest_first(vision)],
            ),
        ],
    )


def _sparsest_first(qualities: Sequence[Quality]) -> list[Quality]:
    """Return dictionaries by model and layer, then by L0; those without one last."""

    def key(one: Quality) -> tuple[str, int, float, str]:
        l0 = one.l0.value if one.l0 is not None else None
        layer = -1 if one.layer is None else one.layer
        return one.model, layer, float("inf") if l0 is None else l0, one.name

    return sorted(qualities, key=key)


def _quality_row(one: Quality, *further: str) -> list[str]:
    figures = (one.l0, one.fvu, one.dead_share)
    return [
        *(grid.name(one.model), block(one.layer), grid.name(one.name), Name(one.architecture)),
        *(str(one.d_sae), *(number(figure.value if figure else None) for figure in figures)),
        *(*further, str(one.l0.n if one.l0 else 0)),
    ]


def stability_section(models: Sequence[Compared]) -> Section:
    """Return the agreement of each pair of dictionaries, those that differ in their seed alone
    first."""
    header = (
        *("layer", "first", "second", "differ in", "cosine", "95 %", "chance", "random, matched"),
        *("found again", "95 %", "chance", "MMCS", "n", "same label", "95 %", "chance", "n"),
    )
    rows: dict[bool, list[list[str]]] = {True: [], False: []}
    for model, result in models:
        pairs = sorted(result.pairs, key=lambda pair: pair.differ != ["seed"])
        rows[result.of_text] += [
            [grid.name(model), block(result.layer), *_pair_row(pair)] for pair in pairs
        ]
    bounds = sorted({f"{model.result.min_cosine:g}" for model in models})
    return Section(
        "Dictionaries: stability",
        "Decoder rows of two dictionaries matched one to one (Hungarian method): mean cosine, and "
        f"the share of the smaller dictionary's latents with a cosine of {' or '.join(bounds)} or "
        "more to their match, among latents that fire. Chance: random directions; random, "
        "matched: random directions with the second moments of the two dictionaries. MMCS: the "
        "largest cosine to any row, not one to one. Same label: of matched latents that both have "
        "one; chance: labels permuted.",
        [
            Grid(("LLM", *header), rows[True]),
            Grid(("encoder", *header), rows[False]),
        ],
    )


def _pair_row(pair: PairStability) -> list[str]:
    cosine, found, label = pair.cosine, pair.found, pair.label_agreement
    return [
        *(grid.name(pair.first), grid.name(pair.second), Name(", ".join(pair.differ) or "–")),
        *(number(cosine.value), interval(cosine.ci_low, cosine.ci_high, cosine.n)),
        *(number(cosine.chance), number(pair.random_matched["cosine"])),
        *(number(found.value), interval(found.ci_low, found.ci_high, found.n)),
        *(number(found.chance), number(pair.mmcs.value), str(cosine.n)),
        *(number(label.value), interval(label.ci_low, label.ci_high, label.n)),
        *(number(label.chance), str(label.n)),
    ]


def quality_figure(table: LongTable, models: Sequence[Compared], of_text: bool) -> Any | None:
    """Draw FVU against L0: a point a dictionary, a series an architecture; of language models a row
    a model and a column a layer, of encoders a column each."""
    drawn = [one for one in qualities(table, models, of_text) if one.fvu and one.l0]
    figures: dict[str, dict[Key, list[Figure]]] = {}
    across: dict[str, dict[Key, list[Figure]]] = {}
    rows: dict[Any, str] = {}
    columns: dict[Any, str] = {}
    for one in drawn:
        assert one.fvu is not None and one.l0 is not None
        row, column = (one.model, one.layer) if of_text else (None, one.model)
        rows[row] = f"{mathtext(one.model, 30)}\nFVU" if of_text else "FVU"
        columns[column] = f"layer {one.layer}" if of_text else one.model
        key = (row, column, one.name)
        figures.setdefault(one.architecture, {})[key] = [one.fvu]
        across.setdefault(one.architecture, {})[key] = [one.l0]
    tokens = "text tokens" if of_text else "patches"
    return facets(
        [
            Series(
                name,
                figures[name],
                {**style.further_style(place), "linestyle": "none" if name == "kmeans" else ":"},
                across=across[name],
            )
            for place, name in enumerate(sorted(figures, key=lambda name: (name == "kmeans", name)))
        ],
        rows,
        dict(sorted(columns.items())),
        XAxis("active latents a token (L0)", continuous=True),
        title="Dictionaries: variance left unexplained at each sparsity",
        note=f"A point a dictionary. n = {span([one.l0.n for one in drawn if one.l0])} held-out "
        f"{tokens}.",
        from_zero=True,
    )


def _sections(measured: Measured) -> Sequence[Section]:
    models = compared(measured)
    return [quality_section(measured.table, models), stability_section(models)]


def _drawings(measured: Measured) -> list[Drawing]:
    models = compared(measured)
    kinds = {
        model.result.of_text: "text" if model.result.of_text else "held-out images"
        for model in models
    }
    return [
        Drawing(
            "dictionaries_text" if of_text else "dictionaries_vision",
            f"Variance that dictionaries leave unexplained at each sparsity, on {where}",
            lambda of_text=of_text: quality_figure(measured.table, models, of_text),  # type: ignore[misc]
        )
        for of_text, where in kinds.items()
    ]


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    return (
        "Dictionaries: a latent is found again if its decoder row and the one that it is matched "
        f"with have a cosine of {result['min_cosine']:g} or more; intervals are over latents."
    )


SHOWN = Shown(sections=_sections, drawings=_drawings, note=_note)
