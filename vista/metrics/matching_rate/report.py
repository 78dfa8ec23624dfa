"""Section and figure of the matching rate, and the note on its masks and judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.config.report import ReportSettings
from vista.metrics.matching_rate.mask_report import mask_curve, masks_grid
from vista.report import grid, style
from vista.report.compare import BASELINE, gain_factor
from vista.report.grid import Grid, Name, Section, number, reached, spread
from vista.report.notes import bar_note, span
from vista.report.per_layer import layer_facets, of_layers, weight_series
from vista.report.shown import Drawing, Measured, MetricPlace, Shown
from vista.report.table import LongTable, OverSeeds, distinct, groups, over_seeds


def matching_section(table: LongTable, settings: ReportSettings) -> Section:
    """Return matching rates with their shuffled-image level, averaged over layers and per layer."""
    k = settings.top_k
    over_layers, per_layer = [], []
    for (encoder, llm, weight), figures in groups(
        table.select("matching_rate", of=None, k=k, layer=None), "encoder", "llm", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": None, "of": None}
        rate = over_seeds(figures)
        recall = over_seeds(table.select("object_recall", k=k, **point))
        over_layers.append(
            [
                grid.name(encoder),
                grid.name(llm),
                grid.weight(weight),
                spread(rate),
                number(rate.chance if rate else None),
                spread(over_seeds(table.select("matching_gain", k=k, **point))),
                spread(over_seeds(table.select("matching_ratio", k=k, **point))),
                spread(recall),
                number(recall.chance if recall else None),
                str(rate.n if rate else 0),
                spread(over_seeds(table.select("matching_unanswered", k=k, **point))),
            ]
        )
    for (llm, layer, encoder, weight), figures in groups(
        of_layers(table.select("matching_rate", of=None, k=k)),
        "llm",
        "layer",
        "encoder",
        "sae_weight",
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": layer, "of": None}
        rate = over_seeds(figures)
        per_layer.append(
            [
                grid.name(llm),
                grid.layer(layer),
                grid.name(encoder),
                grid.weight(weight),
                spread(rate),
                *grid.interval_chance_n(rate),
                spread(over_seeds(table.select("matching_gain", k=k, **point))),
                spread(over_seeds(table.select("silent_images", **point))),
                spread(over_seeds(table.select("eligible_latents", **point))),
                _of_n(over_seeds(table.select("masked_noun_latents", **point))),
            ]
        )
    head = ("match", "shuffled", "gain", "ratio", "recall", "shuffled", "n", "unanswered")
    return Section(
        f"Matching rate: the {k} strongest latents name what is shown",
        "Mean over layers, then without the masks, then what the term adds to the gain, then per "
        "layer; mean over seeds (smallest–largest). Without the masks: the same judge, images and "
        "k, paired; hidden: share of the activation at visual tokens that is of masked latents, "
        "mean over layers. Factor: none where the gain at λ = 0 may be 0. Shuffled: the same "
        "labels judged against other images. Gain: match - shuffled. Unanswered: share of images "
        "that a judge that is shown them left open; they are left out. Eligible: share of latents "
        "that pass both masks and have a label. Noun latents masked: share of the latents whose "
        "label is a noun of the data that the masks take out.",
        [
            Grid(("encoder", "LLM", "λ", *head), over_layers),
            masks_grid(table, k),
            _gain_factors(table, settings),
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ", "match", "95 %", "shuffled", "n", "gain"),
                    "silent images",
                    "eligible latents",
                    "noun latents masked",
                ),
                per_layer,
            ),
        ],
    )


def _of_n(summary: OverSeeds | None) -> str:
    """Return a share with its n as a cell."""
    return "–" if summary is None else f"{spread(summary)} of {summary.n}"


def _gain_factors(table: LongTable, settings: ReportSettings) -> Grid:
    """Return the gain with the term as a multiple of that without, beside the published factor;
    no multiple where the gain without may be 0."""
    aim = settings.aims.matching_ratio
    rows = []
    gains = table.select("matching_gain", of=None, k=settings.top_k, layer=None)
    by_point = dict(groups(gains, "encoder", "llm", "sae_weight"))
    for (encoder, llm, weight), figures in by_point.items():
        with_term = over_seeds(figures)
        without = over_seeds(by_point.get((encoder, llm, BASELINE), ()))
        if weight in (None, BASELINE) or with_term is None or without is None:
            continue
        factor = gain_factor(with_term, without)
        why = "" if factor is not None else "the gain at λ = 0 may be 0"
        rows.append(
            [
                *(grid.name(encoder), grid.name(llm), grid.weight(weight)),
                *(spread(without), grid.interval(without.low, without.high), spread(with_term)),
                *(number(factor, 2), number(aim, 1), reached(factor, aim), Name(why)),
            ]
        )
    head = ("gain, λ = 0", "95 %", "gain", "factor", "hoped for", "reached", "why no factor")
    return Grid(("encoder", "LLM", "λ", *head), rows)


def matching_per_layer(table: LongTable, top_k: int) -> Any | None:
    """Draw the matching rate per layer with and without the term, with the shuffled-image level."""
    figures = of_layers(table.select("matching_rate", of=None, k=top_k))
    weights = distinct(figures, "sae_weight")
    series = weight_series(
        figures,
        weights,
        level=lambda weight: {
            "linestyle": style.dashes(weights, weight),
            "linewidth": 1.3,
            "label": f"shuffled, λ = {weight:g}",
        },
        dots=True,
    )
    return layer_facets(
        series,
        "share of images matched",
        from_zero=True,
        title=f"Matching rate: a label of the {top_k} strongest latents names what is shown",
        note="Dashed: the same labels judged against other images (shuffled level). "
        f"n = {span([figure.n for figure in figures])} images. {bar_note(figures)}",
    )


_MASK_IMAGES = {"validation": "validation images", "evaluated": "measured images themselves"}


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    judged = (
        "the image itself, and for the shuffled level one other image"
        if result["evidence"] == "image"
        else f"the names of its objects ({result['n_categories']} classes; "
        f"{result['n_without_objects']} images without objects left out)"
    )
    nouns = sum(layer["n_noun_latents"] for layer in result["layers"])
    masked = sum(layer["n_noun_latents_masked"] for layer in result["layers"])
    return (
        "Matching rate: latents active in more than "
        f"{100 * result['max_image_share']:g} % of the images ({result['n_mask_images']} "
        f"{_MASK_IMAGES[result['mask_images']]}) or on more than "
        f"{100 * result['max_label_density']:g} % of the text tokens are masked "
        f"(published: 5 % of the measured images and 0.5 %), among them {masked} of the {nouns} "
        "latents, all layers together, whose label is a noun of the data; latents without a label "
        f"are skipped; judge `{result['judge']}`, "
        f"{result['n_images']} images, labels judged against {judged}."
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "matching_rate",
            "Matching rate per layer, with and without the SAE term",
            lambda: matching_per_layer(measured.table, measured.settings.top_k),
        ),
        Drawing(
            "matching_masks",
            "Matching rate by the bound of the frequency mask",
            lambda: mask_curve(measured.table, measured.settings.top_k),
        ),
    ]


SHOWN = Shown(
    sections=lambda measured: [matching_section(measured.table, measured.settings)],
    drawings=_drawings,
    note=_note,
)
