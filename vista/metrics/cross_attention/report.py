"""Section of the report about gated cross-attention."""

from __future__ import annotations

from vista.report import grid
from vista.report.grid import Grid, Name, Section, number, spread
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds


def cross_attention_section(table: LongTable) -> Section:
    """Return attention on objects and caption cross-entropy by weight of the attention loss."""
    rows = []
    for (encoder, llm, of), figures in groups(
        table.select("cross_attention_cross_entropy"), "encoder", "llm", "of"
    ):
        place = {"encoder": encoder, "llm": llm, "of": of}
        entropy = over_seeds(figures)
        cells = [
            grid.name(encoder),
            grid.name(llm),
            Name(str(of).replace("_", " ")),
            spread(entropy),
            number(entropy.chance if entropy else None),
        ]
        for name in ("on_object", "auroc", "pointing"):
            value = over_seeds(table.select(f"cross_attention_{name}", set=None, **place))
            cells += [spread(value), number(value.chance if value else None)]
            if name != "pointing":
                others = table.select(f"cross_attention_{name}", set="shuffled_masks", **place)
                cells.append(spread(over_seeds(others)))
        rows.append([*cells, str(entropy.n if entropy else 0)])
    return Section(
        "Gated cross-attention: text reads the patches",
        "Cross-attention after blocks of the frozen language model, trained on captions with a "
        "weight of the attention loss (-log of the attention of an object's word on its patches). "
        "The visual tokens never enter the residual stream, so this is another readout than that "
        "of the projectors. Cross-entropy in nats a token, mean over captions, and behind another "
        "image; attention of objects' words, mean over blocks and heads: share on the object, "
        "AUROC over patches, pointing, with chance levels and the objects of other images "
        "(shuffled). Mean over seeds (smallest–largest).",
        [
            Grid(
                (
                    *("encoder", "LLM", "attention weight", "cross-entropy", "other image"),
                    *("on object", "chance", "shuffled", "AUROC", "chance", "shuffled"),
                    *("pointing", "chance", "n"),
                ),
                rows,
            )
        ],
    )


SHOWN = Shown(sections=lambda measured: [cross_attention_section(measured.table)])
