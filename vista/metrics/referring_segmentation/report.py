"""Section of referring segmentation: all scores beside their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vista.data.expressions import KINDS
from vista.report import grid
from vista.report.grid import Grid, Name, Section
from vista.report.shown import MetricPlace, Shown
from vista.report.table import LongTable, groups, over_seeds

_POINT = ("encoder", "llm", "sae_weight")
_KIND_NAMES: Mapping[str, str] = {
    "no_place": "no word of place",
    "place": "words of place",
    "several": "several objects",
    "none": "no object",
}
_METHOD_NAMES: Mapping[str | None, str] = {
    None: "labelled latents",
    "permuted": "permuted expressions",
    "mean_mask": "mean mask",
    "logit_lens": "logit lens",
    "best_patches": "best whole patches",
}
_COLUMNS = {
    "referring_giou": "gIoU",
    "referring_ciou": "cIoU",
    "referring_precision_50": "P@.5",
    "referring_precision_70": "P@.7",
    "referring_precision_90": "P@.9",
    "referring_auroc": "AUROC",
    "referring_average_precision": "AP",
    "referring_pointing": "pointing",
}


def referring_section(table: LongTable, least_n: int) -> Section:
    """Return a table a kind of expression, that without words of place first, then the layers."""
    grids = [kind_grid(table, kind, least_n) for kind in KINDS]
    return Section(
        "Referring segmentation: latents named in an expression mark what it means",
        "The map of an expression is, on each patch, the largest activation of the latents whose "
        "label is one of its words, over their 99th percentile on validation images; it is "
        "interpolated to the image's size and cut at a threshold. Threshold and layer are those "
        "with the largest mean IoU on validation images. gIoU: mean IoU, an empty prediction for "
        "an empty truth counting 1; cIoU: sum of intersections over sum of unions; P@: share with "
        "such an IoU; AUROC, AP and pointing: of patches, without a threshold. Controls: the "
        "expressions permuted among images, the mean mask of validation images, the words of the "
        "logit lens in the place of labels, and the best mask of whole patches, which bounds what "
        "this grid can show. Labels hold no place, so expressions without words of place, as in "
        "RefCOCO+, come first. In brackets the 95 % interval over images, of one seed; over "
        f"several seeds the smallest–largest. Fewer than {least_n} expressions: in brackets.",
        [*(one for one in grids if one.rows), layer_grid(table, least_n)],
    )


def kind_grid(table: LongTable, kind: str, least_n: int) -> Grid:
    """Return all scores and controls of one kind of expression, at the chosen layer."""
    rows = []
    chosen = table.select("referring_giou", of=kind, layer=None)
    for (encoder, llm, weight), figures in groups(chosen, *_POINT):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": None, "of": kind}
        measured = {figure.method for figure in figures}
        for method, name in _METHOD_NAMES.items():
            if method in measured:
                cells = [grid.name(encoder), grid.name(llm), grid.weight(weight), Name(name)]
                rows.append([*cells, *_scores(table, {**point, "method": method}, least_n)])
    head = ("encoder", "LLM", "λ", f"{_KIND_NAMES[kind]}", "gIoU", "95 %", *_rest(), "n")
    return Grid(head, rows)


def _rest() -> Sequence[str]:
    return list(_COLUMNS.values())[1:]


def _scores(table: LongTable, place: Mapping[str, Any], least_n: int) -> list[str]:
    """Return the cells of one method: gIoU with its interval, the other scores, n."""
    summaries = {name: over_seeds(table.select(name, **place)) for name in _COLUMNS}
    giou = summaries["referring_giou"]
    interval = grid.interval(giou.low, giou.high) if giou else "–"
    cells = [grid.few_over_seeds(summary, least_n) for summary in summaries.values()]
    return [cells[0], interval, *cells[1:], str(giou.n if giou else 0)]


def layer_grid(table: LongTable, least_n: int) -> Grid:
    """Return the mean IoU of expressions without words of place by layer, for latents and lens."""
    rows = []
    figures = [f for f in table.select("referring_giou", of="no_place") if f.layer is not None]
    for (encoder, llm, weight, layer), _ in groups(figures, *_POINT, "layer"):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": layer}
        cells = [grid.name(encoder), grid.name(llm), grid.weight(weight), grid.layer(layer)]
        for metric in ("referring_giou", "referring_auroc", "referring_pointing"):
            for method in (None, "permuted", "logit_lens"):
                summary = over_seeds(table.select(metric, of="no_place", method=method, **point))
                cells.append(grid.few_over_seeds(summary, least_n))
        rows.append(cells)
    names = ("gIoU", "AUROC", "pointing")
    columns = [text for name in names for text in (name, "permuted", "logit lens")]
    return Grid(("encoder", "LLM", "λ", "layer", *columns), rows)


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    named = ", ".join(f"{share:.0%} (layer {layer})" for layer, share in result["named"].items())
    return (
        f"Referring segmentation: {result['n_expressions']:,} expressions of "
        f"{result['n_images']:,} images; a word of it has a latent for {named}; thresholds of "
        f"{result['n_validation']:,} validation expressions."
    )


SHOWN = Shown(
    sections=lambda measured: [referring_section(measured.table, measured.settings.least_n)],
    note=_note,
)
