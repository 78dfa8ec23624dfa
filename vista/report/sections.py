"""Sections of the readable summary that belong to no single metric, out of the long table."""

from __future__ import annotations

from collections.abc import Sequence

from vista.config.report import Aims
from vista.metrics.figure import COLUMNS
from vista.metrics.sae_check import TEXT_FIGURES
from vista.report import grid
from vista.report.compare import BASELINE, Pair, pairs
from vista.report.grid import Grid, Name, Section, interval, number, reached, spread
from vista.report.table import LongTable, distinct, groups, over_seeds

# Fields of a check whose n is the number of tokens.
_OVER_TOKENS = ("fvu", "explained_variance", "l0")


def naming_section(table: LongTable, aims: Aims) -> Section:
    """Return the figures that tell whether the run is good enough to judge the method by."""
    named = [
        [
            grid.name(f.llm),
            grid.layer(f.layer),
            number(f.value),
            interval(f.ci_low, f.ci_high),
            str(f.n),
            number(aims.named_classes, 2),
            reached(f.value, aims.named_classes),
        ]
        for f in table.select("named_classes")
    ]
    captions = []
    for (encoder, llm), figures in groups(
        table.select("caption_names_object", sae_weight=BASELINE), "encoder", "llm"
    ):
        summary = over_seeds(figures)
        captions.append(
            [
                grid.name(encoder),
                grid.name(llm),
                spread(summary),
                number(summary.chance if summary else None),
                str(summary.n if summary else 0),
                number(aims.caption_names_object, 2),
                reached(summary.mean if summary else None, aims.caption_names_object),
            ]
        )
    probes = []
    for f in table.of_stage("probe"):
        aim = aims.patch_accuracy if f.metric == "patch_accuracy" else None
        probes.append(
            [
                grid.name(f.encoder),
                Name(f.metric),
                number(f.value),
                interval(f.ci_low, f.ci_high),
                number(f.chance),
                str(f.n),
                number(aim, 2),
                reached(f.value, aim),
            ]
        )
    return Section(
        "Does the run name its objects?",
        "Whether dictionaries, captions and encoders are good enough to judge the method by: the "
        "share of classes that have a latent of their own, the share of captions at λ = 0 that "
        "name the object of a one-object image, and the patch accuracy of a linear probe.",
        [
            Grid(("LLM", "layer", "classes named", "95 %", "n", "aim", "reached"), named),
            Grid(
                (
                    "encoder",
                    "LLM",
                    "captions naming the object, λ = 0",
                    "shuffled",
                    "n",
                    "aim",
                    "reached",
                ),
                captions,
            ),
            Grid(
                ("encoder", "linear probe", "value", "95 %", "chance", "n", "aim", "reached"),
                probes,
            ),
        ],
    )


def comparison_section(table: LongTable, aims: Aims) -> Section:
    """Return the SAE error and the caption cross-entropy of each projector and its twin."""
    compared = pairs(table)
    rows = [
        [
            grid.name(pair.encoder),
            grid.name(pair.llm),
            f"{pair.sae_weight:g}",
            str(pair.seed),
            *_twins(pair.mse),
            number(pair.error_ratio, 2),
            *_twins(pair.fvu),
            *_twins(pair.l0),
            *_twins(pair.cross_entropy),
            grid.percent(pair.cross_entropy_increase),
            _both(pair, aims),
        ]
        for pair in compared
    ]
    ratios = [reached(pair.error_ratio, aims.error_ratio) for pair in compared]
    costs = [
        reached(pair.cross_entropy_increase, aims.cross_entropy_increase, at_most=True)
        for pair in compared
    ]
    after = []
    if aims.error_ratio is not None and aims.cross_entropy_increase is not None and compared:
        after = [
            f"Aim: SAE error at least {aims.error_ratio:g}× lower ({ratios.count('yes')} of "
            f"{len(compared)}) at a cross-entropy at most {100 * aims.cross_entropy_increase:g} % "
            f"higher ({costs.count('yes')} of {len(compared)})."
        ]
    return Section(
        "With the SAE term against without it",
        "Same encoder, LLM and seed; image tokens, mean over the layers that have an SAE. Each "
        "pair of columns is λ = 0, then the weight of the row.",
        [
            Grid(
                (
                    "encoder",
                    "LLM",
                    "λ",
                    "seed",
                    "SAE error, λ = 0",
                    "with",
                    "ratio",
                    "FVU, λ = 0",
                    "with",
                    "L0, λ = 0",
                    "with",
                    "caption CE, λ = 0",
                    "with",
                    "change",
                    "aims",
                ),
                rows,
            )
        ],
        after,
    )


def comparison_headline(table: LongTable, aims: Aims) -> Section:
    """Return the same comparison in a narrow table, for a terminal."""
    rows = [
        [
            grid.name(pair.encoder),
            grid.name(pair.llm),
            f"{pair.sae_weight:g}",
            str(pair.seed),
            number(pair.error_ratio, 2),
            grid.percent(pair.cross_entropy_increase),
            _both(pair, aims),
        ]
        for pair in pairs(table)
    ]
    head = ("encoder", "LLM", "λ", "seed", "SAE error, times lower", "caption CE", "aims")
    return Section("With the SAE term against without it", grids=[Grid(head, rows)])


def check_section(table: LongTable) -> Section:
    """Return the figures of the SAEs on held-out text."""
    rows = []
    for (llm, layer), figures in groups(table.of_stage("check_sae"), "llm", "layer"):
        by_name = {figure.metric: figure for figure in figures}
        shown = [by_name.get(TEXT_FIGURES[field]) for field in (*_OVER_TOKENS, "dead_share")]
        values = [figure.value if figure else None for figure in shown]
        tokens = max((figure.n for figure in shown[: len(_OVER_TOKENS)] if figure), default=0)
        rows.append([grid.name(llm), grid.layer(layer), *map(number, values), str(tokens)])
    return Section(
        "The dictionaries on held-out text",
        "",
        [Grid(("LLM", "layer", "FVU", "explained variance", "L0", "dead share", "n tokens"), rows)],
    )


def glance_section(table: LongTable, top_k: int) -> Section:
    """Return the main figure of each metric in one narrow table, for a terminal."""
    rows = []
    for (encoder, llm, weight), figures in groups(
        [f for f in table.figures if f.sae_weight is not None], "encoder", "llm", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight}
        errors = [
            over_seeds(table.select("mse", token_kind="image", layer=layer, **point))
            for layer in distinct(figures, "layer")
        ]
        means = [error.mean for error in errors if error is not None]
        match = over_seeds(table.select("matching_rate", k=top_k, layer=None, **point))
        game = over_seeds(table.select("pointing_game", layer=None, **point))
        entropy = over_seeds(table.select("caption_cross_entropy", **point))
        named = over_seeds(table.select("caption_names_object", **point))
        rows.append(
            [
                grid.name(encoder),
                grid.name(llm),
                grid.weight(weight),
                number(sum(means) / len(means) if means else None),
                number(entropy.mean if entropy else None),
                number(named.mean if named else None),
                *(number(x) for x in ((match.mean, match.chance) if match else (None, None))),
                *(number(x) for x in ((game.mean, game.chance) if game else (None, None))),
            ]
        )
    return Section(
        "At a glance (means over layers and seeds)",
        grids=[
            Grid(
                (
                    *("encoder", "LLM", "λ", "SAE error", "caption CE", "names object"),
                    *(f"match@{top_k}", "shuffled", "pointing", "chance"),
                ),
                rows,
            )
        ],
    )


def how_to_read(notes: Sequence[str]) -> Section:
    """Return what the columns mean, and the notes of metrics."""
    return Section(
        "How to read this",
        paragraphs=[
            "\n".join(
                [
                    "- Every single figure, seeds apart, is a row of `summary.csv` (and "
                    f"`summary.parquet`): {', '.join(COLUMNS)}.",
                    "- 95 %: percentile bootstrap over images; over several seeds the lowest and "
                    "the highest end of their intervals. Differences of interventions have one "
                    "interval for their mean over seeds.",
                    *(f"- {note}" for note in notes),
                ]
            )
        ],
    )


def _twins(pair: tuple[float, float] | None) -> list[str]:
    """Return the values without and with the term as cells."""
    return ["–", "–"] if pair is None else [number(value) for value in pair]


def _both(pair: Pair, aims: Aims) -> str:
    """Return whether a pair reaches both aims, as a cell."""
    verdicts = {
        reached(pair.error_ratio, aims.error_ratio),
        reached(pair.cross_entropy_increase, aims.cross_entropy_increase, at_most=True),
    }
    return "–" if verdicts == {"–"} else "no" if "no" in verdicts else "yes"
