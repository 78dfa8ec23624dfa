"""Section of the summary about latents that are shared by words and images."""

from __future__ import annotations

from vista.report import grid
from vista.report.grid import Grid, Section, number, spread
from vista.report.table import LongTable, groups, over_seeds


def shared_latents_section(table: LongTable) -> Section:
    """Share of concepts with a latent selective in both, per layer and of any layer."""
    rows = []
    for (llm, layer, encoder, weight), found in groups(
        table.select("shared_concepts"), "llm", "layer", "encoder", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": layer}
        shared = over_seeds(found)
        transfer = over_seeds(table.select("transfer_auroc", **point))
        cells = [grid.name(llm), grid.layer(layer), grid.name(encoder), grid.weight(weight)]
        cells += [spread(shared), *grid.interval_chance_n(shared)]
        for kind in ("control", "image"):
            kinds = over_seeds(table.select("selective_concepts", token_kind=kind, **point))
            cells += [spread(kinds), number(kinds.chance if kinds else None)]
        rows.append([*cells, spread(transfer), *grid.interval_chance_n(transfer)[:2]])
    return Section(
        "Shared latents: the same latent in words and in images",
        "Share of concepts with a text latent whose AUROC tells the concept's word from all other "
        "words and its patches from all other patches; chance: the word of one concept with the "
        "patches of another, all pairs. Then the shares with one on words and with one on images "
        "(chance: it is selective for another concept there, too), and the AUROC on patches of "
        "each concept's best latent on words (chance: on the patches of other "
        "concepts). Layer all: a latent of any layer. Mean over seeds (smallest–largest).",
        [
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ", "shared", "95 %", "chance", "n"),
                    *("on words", "chance", "on images", "chance"),
                    *("AUROC on patches", "95 %", "chance"),
                ),
                rows,
            )
        ],
    )
