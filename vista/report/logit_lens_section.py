"""Section of the summary about the logit lens on visual tokens."""

from __future__ import annotations

from vista.metrics.logit_lens.measure import PREFIX
from vista.report import grid
from vista.report.grid import Grid, Section, number, spread
from vista.report.table import LongTable, groups, over_seeds


def logit_lens_section(table: LongTable, top_k: int = 3) -> Section:
    """What the head reads at patches and in images, beside the readout by SAE latents."""
    metric = f"matching_gain@{top_k}"
    rows = []
    for (llm, layer, encoder, weight), found in groups(
        table.select(f"{PREFIX}_matching_rate@{top_k}"), "llm", "layer", "encoder", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": layer}
        rate = over_seeds(found)
        cells = [grid.name(llm), grid.layer(layer), grid.name(encoder), grid.weight(weight)]
        cells += [spread(rate), *grid.interval_chance_n(rate)]
        for gain in (f"{PREFIX}_{metric}", metric):
            cells.append(spread(over_seeds(table.select(gain, **point))))
        for k in (1, top_k):
            patches = over_seeds(table.select(f"{PREFIX}_patches_named@{k}", **point))
            cells += [spread(patches), number(patches.chance if patches else None)]
        rows.append([*cells, str(patches.n if patches else 0)])
    return Section(
        "Logit lens: words that the model's own head reads at visual tokens",
        f"Share of images in which one of the {top_k} strongest words names an object, with its "
        "shuffled level; the gain over that, and the gain of the latents' labels beside it. Then "
        "the share of the patches that an object covers whose likeliest word, or one of the "
        f"{top_k} likeliest, names it; shuffled: against the patches of other images. No SAE is "
        "read. Mean over seeds (smallest–largest).",
        [
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ", "match", "95 %", "shuffled", "n"),
                    *("gain", "gain, latents", "patches@1", "shuffled"),
                    *(f"patches@{top_k}", "shuffled", "n patches"),
                ),
                rows,
            )
        ],
    )
