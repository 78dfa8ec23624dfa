"""Section of referring segmentation: all scores beside their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from vista.metrics.referring_segmentation.scores import GAINS, KINDS_AND_ALL, RIVALS
from vista.report import grid
from vista.report.grid import Grid, Name, Section, spread
from vista.report.shown import Measured, MetricPlace, Shown
from vista.report.table import LongTable, OverSeeds, groups, over_seeds

_POINT = ("encoder", "llm", "sae_weight")
_KIND_NAMES: Mapping[str, str] = {
    "no_place": "no word of place",
    "place": "words of place",
    "several": "several objects",
    "none": "no object",
    "all": "all kinds",
}
_METHOD_NAMES: Mapping[str | None, str] = {
    None: "labelled latents",
    "permuted": "permuted expressions",
    "mean_mask": "mean mask",
    "logit_lens": "logit lens",
    "logit_lens_permuted": "logit lens, permuted",
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
    """Return a table a kind of expression, that without words of place first, then the differences,
    then the layers.

    Args:
        table: The figures of all images, and those of groups of images.
        least_n: Figures over fewer expressions are marked.
    """
    grids = [kind_grid(table, kind, least_n) for kind in KINDS_AND_ALL]
    return Section(
        "Referring segmentation: latents named in an expression mark what it means",
        "The map of an expression is, on each patch, the largest activation of the latents whose "
        "label is one of its words or phrases, over a high percentile of their own on validation "
        "images; it is interpolated to the image's size and cut at a threshold. Threshold and "
        "layer are those with the largest mean IoU on validation images. gIoU: mean IoU, an empty "
        "prediction for an empty truth counting 1; cIoU: sum of intersections over sum of unions; "
        "P@: share with such an IoU; AUROC, AP and pointing: of patches, without a threshold. "
        "Controls: the expressions permuted among images, the mean mask of validation images, and "
        "the words of the logit lens in the place of labels. Best whole patches: the mask of whole "
        "patches with the largest IoU, chosen by the truth. It shows how coarse patches are, but "
        "is no bound: an interpolated map can be cut through a patch. Labels hold no place, so "
        "expressions without words of place, as in RefCOCO+, come first. All kinds: what published "
        "figures of RefCOCO and gRefCOCO are over. Groups: testA (people) and testB (other "
        "objects) of RefCOCO. Gains are paired over the same resampled images. In brackets the "
        "95 % interval over images, of one seed; over several seeds the smallest–largest. Fewer "
        f"than {least_n} expressions: in brackets.",
        [*(one for one in grids if one.rows), gain_grid(table), layer_grid(table, least_n)],
    )


def kind_grid(table: LongTable, kind: str, least_n: int) -> Grid:
    """Return all scores and controls of one kind of expression, at the chosen layer."""
    rows = []
    chosen = table.select("referring_giou", of=kind, layer=None)
    for (encoder, llm, weight, group), figures in groups(chosen, *_POINT, "set"):
        place = {"encoder": encoder, "llm": llm, "sae_weight": weight, "set": group}
        place |= {"layer": None, "of": kind}
        measured = {figure.method for figure in figures}
        for method, name in _METHOD_NAMES.items():
            if method in measured:
                cells = [grid.name(encoder), grid.name(llm), grid.weight(weight), grid.name(group)]
                scores = _scores(table, {**place, "method": method}, least_n)
                rows.append([*cells, Name(name), *scores])
    head = ("encoder", "LLM", "λ", "group", _KIND_NAMES[kind], "gIoU", "95 %", *_rest(), "n")
    return Grid(head, rows)


def gain_grid(table: LongTable) -> Grid:
    """Return what labelled latents gain over each rival, at the chosen layers."""
    rows = []
    for kind, rival in product(KINDS_AND_ALL, RIVALS):
        of_rival = {"of": kind, "method": rival, "layer": None}
        chosen = table.select("referring_giou_gain", **of_rival)
        for (encoder, llm, weight, group), figures in groups(chosen, *_POINT, "set"):
            place = {"encoder": encoder, "llm": llm, "sae_weight": weight, "set": group, **of_rival}
            gains = [over_seeds(table.select(f"referring_{name}_gain", **place)) for name in GAINS]
            cells = [grid.name(encoder), grid.name(llm), grid.weight(weight), grid.name(group)]
            names = [Name(_KIND_NAMES[kind]), Name(_METHOD_NAMES[rival])]
            rows.append([*cells, *names, *map(_gain, gains), str(figures[0].n)])
    columns = [f"{_COLUMNS[f'referring_{name}']} gain" for name in GAINS]
    return Grid(("encoder", "LLM", "λ", "group", "expressions", "over", *columns, "n"), rows)


def _gain(summary: OverSeeds | None) -> str:
    if summary is None:
        return "–"
    return f"{spread(summary)} {grid.interval(summary.low, summary.high)}"


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
        f"{result['n_images']:,} images; a word or phrase of it has a latent for {named}; "
        f"thresholds of {result['n_validation']:,} validation expressions."
    )


def _sections(measured: Measured) -> list[Section]:
    table = LongTable([*measured.table.figures, *measured.groups.figures])
    return [referring_section(table, measured.settings.least_n)]


SHOWN = Shown(sections=_sections, note=_note)
