"""Section of the summary that compares encoders: projectors as an instrument (arXiv 2406.16860)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vista.report import grid
from vista.report.compare import pairs
from vista.report.grid import Grid, Section, number, spread
from vista.report.table import Figure, LongTable, OverSeeds, groups, over_seeds

# Stages whose figures are an encoder's own.
_OF_ENCODERS = ("probe", "monosemanticity", "ood_detection")


def encoders_section(table: LongTable, top_k: int = 3) -> Section:
    """All metrics by encoder, combined ones too: a row for each, LLM and weight of the term."""
    points = [f for f in table.figures if f.encoder is not None and f.sae_weight is not None]
    measured = {(f.encoder, f.llm, f.sae_weight) for f in points}
    with_point = {encoder for encoder, _, _ in measured}
    alone = {f.encoder for stage in _OF_ENCODERS for f in table.of_stage(stage)} - with_point
    measured |= {(encoder, None, None) for encoder in alone}
    changes: dict[Any, list[float]] = {}
    for pair in pairs(table):
        if pair.cross_entropy_increase is not None:
            key = (pair.encoder, pair.llm, pair.sae_weight)
            changes.setdefault(key, []).append(pair.cross_entropy_increase)
    rows = []
    for encoder, llm, weight in sorted(
        measured, key=lambda key: (key[1] or "", key[2] or 0.0, key[0] or "")
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight}
        change = changes.get((encoder, llm, weight))
        rows.append(
            [
                grid.name(encoder),
                grid.name(llm),
                grid.weight(weight),
                _value(table.select("patch_accuracy", encoder=encoder)),
                _value(table.select("caption_cross_entropy", **point)),
                grid.percent(sum(change) / len(change) if change else None),
                *_with_chance(
                    over_seeds(table.select(f"matching_rate@{top_k}", layer=None, **point))
                ),
                *_with_chance(over_seeds(table.select("pointing_game", layer=None, **point))),
                _over_layers(table.select("fvu", token_kind="image", **point)),
                _monosemanticity(table, encoder),
                _best_ood(table, encoder),
            ]
        )
    return Section(
        "Encoders compared",
        "One row an encoder, LLM and weight of the SAE term; mean over seeds (smallest–largest). "
        "Probe accuracy, monosemanticity and OOD detection are the encoder's own. Change: of the "
        "caption cross-entropy with the term. FVU of visual tokens: mean over layers. "
        "Monosemanticity of the best vision SAE's latents, its raw neurons in brackets. OOD: "
        "AUROC, mean over the sets, of the score that is best in it, chosen with these figures.",
        [
            Grid(
                (
                    *("encoder", "LLM", "λ", "probe", "caption CE", "change"),
                    *(f"match@{top_k}", "shuffled", "pointing", "chance", "FVU"),
                    *("monosemanticity", "best OOD AUROC"),
                ),
                rows,
            )
        ],
    )


def _value(figures: Sequence[Figure]) -> str:
    return spread(over_seeds(figures))


def _with_chance(summary: OverSeeds | None) -> list[str]:
    return [spread(summary), number(summary.chance if summary else None)]


def _over_layers(figures: Sequence[Figure]) -> str:
    """Mean over layers, seed by seed."""
    means: list[Any] = [_mean(found) for _, found in groups(figures, "seed")]
    known = [mean for mean in means if mean is not None]
    if not known:
        return "–"
    low, high = min(known), max(known)
    middle = number(sum(known) / len(known))
    return middle if len(known) == 1 else f"{middle} ({number(low)}–{number(high)})"


def _monosemanticity(table: LongTable, encoder: str | None) -> str:
    latents = [
        f.value for f in table.select("monosemanticity:sae", encoder=encoder) if f.value is not None
    ]
    neurons = _mean(table.select("monosemanticity:neurons", encoder=encoder))
    return f"{number(max(latents))} ({number(neurons)})" if latents else "–"


def _best_ood(table: LongTable, encoder: str | None) -> str:
    """The best score's mean AUROC over the sets, and its name."""
    found = [
        f
        for f in table.of_stage("ood_detection")
        if f.encoder == encoder and f.metric.startswith("ood_auroc:")
    ]
    by_score: dict[tuple[str, str | None], list[Figure]] = {}
    for f in found:
        score = f.metric.removeprefix("ood_auroc:").partition("@")[0]
        by_score.setdefault((score, f.method), []).append(f)
    means = {key: mean for key, each in by_score.items() if (mean := _mean(each)) is not None}
    if not means:
        return "–"
    best = max(sorted(means, key=str), key=lambda key: means[key])
    return f"{number(means[best])} ({best[0]})"


def _mean(figures: Sequence[Figure]) -> float | None:
    values = [f.value for f in figures if f.value is not None]
    return sum(values) / len(values) if values else None
