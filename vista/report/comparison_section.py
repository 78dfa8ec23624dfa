"""Sections on projectors with the SAE term beside their twins without, and whether aims are met."""

from __future__ import annotations

from vista.config.report import Aims, ReportSettings
from vista.report import grid
from vista.report.collapse import collapses
from vista.report.compare import Pair, Twins, pairs
from vista.report.grid import Grid, Section, number, reached
from vista.report.table import LongTable


def comparison_section(table: LongTable, settings: ReportSettings) -> Section:
    """Return what the aims judge, and what tells a readable projector from a collapsed one."""
    compared = _judged(table, settings)
    judged = [
        [
            *_point(pair),
            *_twins(pair.fvu),
            number(pair.fvu_ratio, 2),
            *_twins(pair.l0),
            number(pair.text_l0[1] if pair.text_l0 else None),
            *_twins(pair.loss_recovered),
            *_twins(pair.cross_entropy),
            grid.percent(pair.cross_entropy_increase),
            *_twins(pair.content),
            verdict,
        ]
        for pair, verdict in compared
    ]
    beside = [
        [
            *_point(pair),
            *_twins(pair.variance),
            *_twins(pair.image_variance),
            *_twins(pair.fired_share),
            *_twins(pair.mse),
        ]
        for pair, _ in compared
    ]
    point = ("encoder", "LLM", "λ", "seed")
    return Section(
        "With the SAE term against without it",
        "Same encoder, LLM and seed; image tokens, mean over the layers that have an SAE. Each "
        "pair of columns is λ = 0, then the weight of the row. FVU is the SAE error relative to "
        "the tokens' variance; loss recovered, the share of the cost of mean ablation that the "
        "reconstruction recovers when it is spliced in. Second table: variance of image tokens, "
        "and its part between images, as multiples of the variance of text; share of latents that "
        "ever fire; the raw SAE error, which also falls where tokens collapse and is judged by no "
        "aim.",
        [
            Grid(
                (
                    *point,
                    *("FVU, λ = 0", "with", "ratio"),
                    *("L0, λ = 0", "with", "of text"),
                    *("loss recovered, λ = 0", "with"),
                    *("caption CE, λ = 0", "with", "change"),
                    *("of another image - own, λ = 0", "with", "aims"),
                ),
                judged,
            ),
            Grid(
                (
                    *point,
                    *("variance / text, λ = 0", "with"),
                    *("between images / text, λ = 0", "with"),
                    *("fired share, λ = 0", "with"),
                    *("SAE error, λ = 0", "with"),
                ),
                beside,
            ),
        ],
        _aims_sentence(compared, settings.aims),
    )


def comparison_headline(table: LongTable, settings: ReportSettings) -> Section:
    """Return the same comparison in a narrow table, for a terminal."""
    rows = [
        [
            *_point(pair),
            number(pair.fvu_ratio, 2),
            number(pair.fvu[1] if pair.fvu else None),
            number(pair.fired_share[1] if pair.fired_share else None),
            *_twins(pair.loss_recovered),
            grid.percent(pair.cross_entropy_increase),
            verdict,
        ]
        for pair, verdict in _judged(table, settings)
    ]
    head = (
        *("encoder", "LLM", "λ", "seed", "FVU, times lower", "FVU", "fired"),
        *("loss recovered, λ = 0", "with", "caption CE", "aims"),
    )
    return Section("With the SAE term against without it", grids=[Grid(head, rows)])


def _judged(table: LongTable, settings: ReportSettings) -> list[tuple[Pair, str]]:
    """Return every pair with its verdict: yes, no, – where a figure is missing, or collapse."""
    collapsed = {
        (one.encoder, one.llm, one.sae_weight, one.seed)
        for one in collapses(table, settings.collapse)
    }
    return [
        (pair, "collapse" if pair.point in collapsed else _verdict(pair, settings.aims))
        for pair in pairs(table)
    ]


def _verdicts(pair: Pair, aims: Aims) -> dict[str, str]:
    """Return for each aim that there is whether a pair reaches it: yes, no or –."""
    values = {
        "error_ratio": reached(pair.fvu_ratio, aims.error_ratio),
        "cross_entropy_increase": reached(
            pair.cross_entropy_increase, aims.cross_entropy_increase, at_most=True
        ),
        "l0_ratio": reached(pair.l0_ratio, aims.l0_ratio, at_most=True),
        "content_ratio": reached(pair.content_ratio, aims.content_ratio),
    }
    return {name: value for name, value in values.items() if getattr(aims, name) is not None}


def _verdict(pair: Pair, aims: Aims) -> str:
    verdicts = set(_verdicts(pair, aims).values())
    # One figure that was not measured leaves open whether all aims are reached.
    return "no" if "no" in verdicts else "yes" if verdicts == {"yes"} else "–"


def _aims_sentence(compared: list[tuple[Pair, str]], aims: Aims) -> list[str]:
    sentences = {
        "error_ratio": "FVU at least {:g}× lower",
        "cross_entropy_increase": "cross-entropy at most {:.0%} higher",
        "content_ratio": "what tokens tell captions (cross-entropy of another image - own) at "
        "least {:.0%} of that without",
        "l0_ratio": "L0 within a factor of {:g} of that of text",
    }
    by_pair = [_verdicts(pair, aims) for pair, _ in compared]
    parts = []
    for name, sentence in sentences.items():
        aim = getattr(aims, name)
        if aim is not None:
            n = sum(verdicts[name] == "yes" for verdicts in by_pair)
            parts.append(f"{sentence.format(aim)} ({n} of {len(compared)})")
    if not parts or not compared:
        return []
    overall = [verdict for _, verdict in compared]
    return [
        f"Aims: {', '.join(parts)}. All of them without a collapse: {overall.count('yes')} of "
        f"{len(compared)}; collapsed: {overall.count('collapse')}."
    ]


def _point(pair: Pair) -> list[str]:
    return [
        grid.name(pair.encoder),
        grid.name(pair.llm),
        grid.weight(pair.sae_weight),
        str(pair.seed),
    ]


def _twins(pair: Twins | None) -> list[str]:
    """Return the values without and with the term as cells."""
    return ["–", "–"] if pair is None else [number(value) for value in pair]
