"""Section of the summary that sets readouts of visual tokens beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vista.metrics.figure import Figure
from vista.report import grid
from vista.report.grid import Grid, Name, Section, number, spread
from vista.report.per_layer import of_layers
from vista.report.table import LongTable, OverSeeds, distinct, groups, over_seeds

# Readouts by the column `method`, as they stand in the table; and the column `of` by the mask.
READOUTS = {
    "labelled_latents": "labelled latents",
    "logit_lens": "logit lens",
    "embedding_lens": "embedding lens",
    "latent_lens": "latent lens",
    "visual_words": "visual words",
}
_MASKS = {None: "as set", "unmasked": "none"}


def readouts_section(table: LongTable, top_k: int) -> Section:
    """Return how often each readout names an object, by encoder and LLM, for each SAE weight."""
    rates = table.select("lens_matching_rate", k=top_k)
    weights = distinct(rates, "sae_weight")
    rows = []
    for (llm, encoder), figures in groups(rates, "llm", "encoder"):
        point = {"llm": llm, "encoder": encoder}
        for method, readout in READOUTS.items():
            for of, mask in _MASKS.items():
                columns = {"method": method, "of": of, **point}
                measured = [f for f in figures if (f.method, f.of) == (method, of)]
                if measured:
                    cells: list[str] = [grid.name(llm), grid.name(encoder)]
                    cells += [Name(readout), Name(mask)]
                    for weight in weights:
                        cells += _cells(table, top_k, columns | {"sae_weight": weight})
                    mean = over_seeds([f for f in measured if f.layer is None])
                    # Visual words are read at layer -1 alone, which no mean includes.
                    rows.append([*cells, str(mean.n if mean else max(f.n for f in measured))])
    if len({row[2] for row in rows}) < 2:
        rows = []
    return Section(
        "Who reads objects best: labelled latents and readouts without an SAE",
        f"Share of images in which one of the {top_k} strongest words names an object: mean over "
        "the layers with an SAE, with its level on shuffled images and the gain over that; then "
        "the best layer, which is chosen on these same images and flatters (-1: the stream that "
        "enters block 0). Patches: share of the patches that an object covers of which one of the "
        f"{top_k} strongest words names it, mean over the same layers, with no mask. Frequency "
        "mask: words that are the strongest of a patch (latents: that fire) in too many images are "
        "left out; compare rows with the mask, or rows without it. Same judge and images. Mean "
        "over seeds (smallest–largest).",
        [Grid(("LLM", "encoder", "readout", "mask", *_header(weights), "n"), rows)],
    )


def _header(weights: Sequence[float]) -> list[str]:
    heads = ("match", "shuffled", "gain", "best layer", "patches")
    return [f"{head}, λ = {grid.weight(weight)}" for weight in weights for head in heads]


def _cells(table: LongTable, top_k: int, columns: dict[str, Any]) -> list[str]:
    rate = over_seeds(table.select("lens_matching_rate", k=top_k, layer=None, **columns))
    gain = over_seeds(table.select("lens_matching_gain", k=top_k, layer=None, **columns))
    best = _best_layer(of_layers(table.select("lens_matching_rate", k=top_k, **columns)))
    # Patches are read without a mask, whatever the images are.
    named = table.select("lens_patches_named", k=top_k, **{**columns, "of": None})
    patches = [over_seeds(f) for (layer,), f in groups(named, "layer") if (layer or 0) >= 0]
    return [
        spread(rate),
        number(rate.chance if rate else None),
        spread(gain),
        "–" if best is None else f"{number(best[1].mean)} ({best[0]})",
        number(_mean([part.mean for part in patches if part])),
    ]


def _best_layer(figures: Sequence[Figure]) -> tuple[int, OverSeeds] | None:
    """Return the layer with the largest mean over seeds, the first of several."""
    by_layer = [(layer, over_seeds(part)) for (layer,), part in groups(figures, "layer")]
    known = [(layer, part) for layer, part in by_layer if part is not None]
    return max(known, key=lambda entry: (entry[1].mean, -entry[0]), default=None)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
