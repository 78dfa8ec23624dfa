"""Section and figure of the logit lens, and the note on names of several tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vista.report import grid
from vista.report.grid import Grid, Section, number, spread
from vista.report.per_layer import layer_facets, of_layers, weight_series
from vista.report.shown import Drawing, Measured, MetricPlace, Shown
from vista.report.table import LongTable, distinct, groups, over_seeds

# The figures with the frequency mask, as those of latents beside them.
_LENS: Mapping[str, Any] = {"method": "logit_lens", "of": None}


def logit_lens_section(table: LongTable, top_k: int = 3) -> Section:
    """Return what the head reads at patches and in images, beside the readout by SAE latents."""
    rows = []
    for (llm, layer, encoder, weight), figures in groups(
        table.select("lens_matching_rate", k=top_k, **_LENS),
        "llm",
        "layer",
        "encoder",
        "sae_weight",
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": layer}
        rate = over_seeds(figures)
        cells = [grid.name(llm), grid.layer(layer), grid.name(encoder), grid.weight(weight)]
        cells += [spread(rate), *grid.interval_chance_n(rate)]
        for mask in (None, "unmasked"):
            for gain, columns in (
                ("lens_matching_gain", {**_LENS, "of": mask}),
                ("matching_gain", {"of": mask}),
            ):
                cells.append(spread(over_seeds(table.select(gain, k=top_k, **columns, **point))))
        for k in (1, top_k):
            patches = over_seeds(table.select("lens_patches_named", k=k, **_LENS, **point))
            cells += [spread(patches), number(patches.chance if patches else None)]
        rows.append([*cells, str(patches.n if patches else 0)])
    return Section(
        "Logit lens: words that the model's own head reads at visual tokens",
        f"Share of images in which one of the {top_k} strongest words names an object, with its "
        "shuffled level; the gain over that, and the gain of the latents' labels beside it; both "
        "without masks (the lens has a frequency mask only), as a masked readout does not compare "
        "with an unmasked one. Then the share of the patches that an object covers whose likeliest "
        f"word, or one of the {top_k} likeliest, names it; shuffled: against the patches of other "
        "images. No SAE is read. Mean over seeds (smallest–largest).",
        [
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ", "match", "95 %", "shuffled", "n"),
                    *(
                        "gain",
                        "gain, latents",
                        "unmasked",
                        "unmasked, latents",
                        "patches@1",
                        "shuffled",
                    ),
                    *(f"patches@{top_k}", "shuffled", "n patches"),
                ),
                rows,
            )
        ],
    )


def logit_lens_figure(table: LongTable, top_k: int = 3) -> Any | None:
    """Draw the gain of the matching rate over its shuffled level, by latents and by the lens."""
    lens = of_layers(table.select("lens_matching_gain", k=top_k, **_LENS))
    if not lens:
        return None
    measured = {(figure.encoder, figure.llm) for figure in lens}
    latents = [
        figure
        for figure in of_layers(table.select("matching_gain", of=None, k=top_k))
        if (figure.encoder, figure.llm) in measured
    ]
    weights = distinct(lens, "sae_weight")
    of_latents, of_words = weight_series(latents, weights), weight_series(lens, weights)
    hollow = {"linestyle": ":", "markerfacecolor": "white"}
    series = [
        *(replace(one, name=f"SAE latents, {one.name}") for one in of_latents),
        *(
            replace(one, name=f"logit lens, {one.name}", look={**one.look, **hollow})
            for one in of_words
        ),
    ]
    return layer_facets(
        series,
        "match - shuffled",
        legend_columns=2 if len(series) > 2 else None,
        title=f"What an image's {top_k} strongest latents name, and its {top_k} strongest words",
        note="Share of images in which one names an object, less the same judged against other "
        f"images (chance 0). n = {min(f.n for f in lens):,} images. Error bars: "
        "intervals over images.",
    )


def one_token_note(readout: str) -> Callable[[MetricPlace, Mapping[str, Any]], str]:
    """Return what says of how many names a readout by single tokens can read no word."""
    return lambda place, result: (
        f"{readout}: {result['n_one_token']} of {result['n_categories']} object names are "
        f"one token of {place.llm}; of the others no single word can be read."
    )


def _drawings(measured: Measured) -> list[Drawing]:
    return [
        Drawing(
            "logit_lens",
            "Nouns among the words that the model's head reads at their patches, per layer",
            lambda: logit_lens_figure(measured.table, measured.settings.top_k),
        )
    ]


SHOWN = Shown(
    sections=lambda measured: [logit_lens_section(measured.table, measured.settings.top_k)],
    drawings=_drawings,
    note=one_token_note("Logit lens"),
)
