"""Section of the report about gated cross-attention."""

from __future__ import annotations

from vista.report import grid
from vista.report.grid import Grid, Name, Section, number, spread
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds


def cross_attention_section(table: LongTable) -> Section:
    """Return caption cross-entropy and attention on objects by weight of the attention loss."""
    return Section(
        "Gated cross-attention: text reads the patches",
        "Cross-attention after blocks of the frozen language model, trained on captions with a "
        "weight of the attention loss (-log of the attention of an object's word on its patches). "
        "The visual tokens never enter the residual stream, so this is another readout than that "
        "of the projectors. Cross-entropy in nats a token, mean over captions, and behind another "
        "image; cost: less that of the first weight, paired over captions. Attention from the "
        "tokens of an object's word (word), which the loss is about, or from the token before it, "
        "which predicts it (before), mean over blocks and heads: share on the object, AUROC over "
        "patches (chance .5), pointing; chance: the object's share of the patches; shuffled: with "
        "the objects of all other images on the map. Mean over seeds (smallest–largest).",
        [
            Grid(
                (
                    *("encoder", "LLM", "attention weight", "cross-entropy", "other image"),
                    *("cost", "95 %", "n"),
                ),
                _caption_rows(table),
            ),
            Grid(
                (
                    *("encoder", "LLM", "attention weight", "from", "on object", "chance"),
                    *("shuffled", "AUROC", "95 %", "shuffled", "pointing", "n"),
                ),
                _attention_rows(table),
            ),
        ],
    )


def _caption_rows(table: LongTable) -> list[list[str]]:
    rows = []
    for (encoder, llm, method), figures in groups(
        table.select("cross_attention_cross_entropy"), "encoder", "llm", "method"
    ):
        place = {"encoder": encoder, "llm": llm, "method": method}
        entropy = over_seeds(figures)
        cost = over_seeds(table.select("cross_attention_cost", **place))
        rows.append(
            [
                grid.name(encoder),
                grid.name(llm),
                Name(str(method).replace("_", " ")),
                spread(entropy),
                number(entropy.chance if entropy else None),
                spread(cost),
                grid.interval(cost.low, cost.high) if cost else "–",
                str(entropy.n if entropy else 0),
            ]
        )
    return rows


def _attention_rows(table: LongTable) -> list[list[str]]:
    rows = []
    for (encoder, llm, method, of), figures in groups(
        table.select("cross_attention_auroc", set=None), "encoder", "llm", "method", "of"
    ):
        place = {"encoder": encoder, "llm": llm, "method": method, "of": of}
        auroc = over_seeds(figures)
        on_object, other_object, other_auroc, pointing = (
            over_seeds(table.select(f"cross_attention_{name}", set=items, **place))
            for name, items in (
                ("on_object", None),
                ("on_object", "shuffled_masks"),
                ("auroc", "shuffled_masks"),
                ("pointing", None),
            )
        )
        rows.append(
            [
                grid.name(encoder),
                grid.name(llm),
                Name(method),
                Name(of),
                spread(on_object),
                number(on_object.chance if on_object else None),
                spread(other_object),
                spread(auroc),
                grid.interval(auroc.low, auroc.high) if auroc else "–",
                spread(other_auroc),
                spread(pointing),
                str(auroc.n if auroc else 0),
            ]
        )
    return rows


SHOWN = Shown(sections=lambda measured: [cross_attention_section(measured.table)])
