"""Section of the report about captions."""

from __future__ import annotations

from vista.report import grid
from vista.report.grid import Grid, Section, number, spread
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds


def caption_section(table: LongTable) -> Section:
    """Return cross-entropy, recall and hallucination of captions."""
    rows = []
    for (encoder, llm, weight), figures in groups(
        table.select("caption_cross_entropy"), "encoder", "llm", "sae_weight"
    ):
        entropy = over_seeds(figures)
        cells = [
            grid.name(encoder),
            grid.name(llm),
            grid.weight(weight),
            spread(entropy),
            number(entropy.chance if entropy else None),
        ]
        for name in (
            "caption_object_recall",
            "caption_names_object",
            "chair_mentions",
            "chair_captions",
        ):
            summary = over_seeds(table.select(name, encoder=encoder, llm=llm, sae_weight=weight))
            cells += [spread(summary), number(summary.chance if summary else None)]
        rows.append([*cells, str(entropy.n if entropy else 0)])
    return Section(
        "Captions",
        "Mean over seeds (smallest–largest). Cross-entropy of the reference in nats a token; "
        "object recall and naming of one-object images in greedy captions; CHAIR: hallucinated "
        "mentions / mentions, and captions with any. Shuffled: against all other images.",
        [
            Grid(
                (
                    *("encoder", "LLM", "λ", "cross-entropy", "shuffled", "recall", "shuffled"),
                    *("names object", "shuffled", "CHAIR mentions", "shuffled"),
                    *("CHAIR captions", "shuffled", "n"),
                ),
                rows,
            )
        ],
    )


SHOWN = Shown(
    sections=lambda measured: [caption_section(measured.table)],
)
