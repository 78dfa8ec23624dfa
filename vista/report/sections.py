"""Sections of the readable summary that belong to no single metric, out of the long table."""

from __future__ import annotations

from collections.abc import Sequence

from vista.config.report import Aims, ReportSettings
from vista.metrics.bootstrap import LEAST_CONSTANT, LEAST_IMAGES
from vista.metrics.figure import COLUMNS
from vista.metrics.rates import LEAST_IMAGES as LEAST_OF_RATES
from vista.metrics.sae_check import TEXT_FIGURES
from vista.report import grid
from vista.report.compare import BASELINE
from vista.report.grid import Grid, Name, Section, interval, number, reached, spread
from vista.report.table import LongTable, OverSeeds, distinct, groups, over_seeds

# Fields of a check whose n is the number of tokens.
_OVER_TOKENS = ("fvu", "explained_variance", "l0")


def naming_section(table: LongTable, aims: Aims) -> Section:
    """Return the figures that tell whether the run is good enough to judge the method by."""
    named = [
        [
            grid.name(f.llm),
            grid.layer(f.layer),
            number(f.value),
            interval(f.ci_low, f.ci_high, f.n),
            str(f.n),
            number(aims.named_classes, 2),
            reached(f.value, aims.named_classes),
            *_label_score(table, f.llm, f.layer),
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
                interval(f.ci_low, f.ci_high, f.n),
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
        "name the object of a one-object image, and the patch accuracy of a linear probe. Label "
        "AUROC: of those latents as classifiers of their labels, on text that neither dictionaries "
        "nor labels come from (chance .5); the mean over those whose word is there.",
        [
            Grid(
                (
                    *("LLM", "layer", "classes named", "95 %", "n", "aim", "reached"),
                    *("label AUROC", "95 %", "n scored"),
                ),
                named,
            ),
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


def _label_score(table: LongTable, llm: str | None, layer: int | None) -> list[str]:
    """Return the cells of the mean AUROC of the named classes' labels: value, interval, n."""
    scores = table.select("label_auroc", of="named_classes", llm=llm, layer=layer)
    if not scores:
        return ["–", "–", "–"]
    (score,) = scores
    return [number(score.value), interval(score.ci_low, score.ci_high), str(score.n)]


def check_section(table: LongTable) -> Section:
    """Return the figures of the SAEs on held-out text."""
    rows = []
    for (llm, layer), figures in groups(table.of_stage("check_sae"), "llm", "layer"):
        by_name = {figure.metric: figure for figure in figures}
        fields = (*_OVER_TOKENS, "dead_share", "normal_fvu", "massive_variance")
        shown = [by_name.get(TEXT_FIGURES[field]) for field in fields]
        values = [figure.value if figure else None for figure in shown]
        tokens = max((figure.n for figure in shown[: len(_OVER_TOKENS)] if figure), default=0)
        rows.append([grid.name(llm), grid.layer(layer), *map(number, values), str(tokens)])
    return Section(
        "The dictionaries on held-out text",
        "Normal tokens: those whose norm is at most 4 x the median; massive: all others, and the "
        "share of the variance that they carry.",
        [
            Grid(
                (
                    *("LLM", "layer", "FVU", "explained variance", "L0", "dead share"),
                    *("FVU, normal tokens", "massive tokens' variance", "n tokens"),
                ),
                rows,
            )
        ],
    )


def glance_section(table: LongTable, settings: ReportSettings) -> Section:
    """Return the main figure of each metric in one narrow table, for a terminal."""
    rows, top_k, least_n = [], settings.top_k, settings.least_n
    for (encoder, llm, weight), figures in groups(
        [f for f in table.figures if f.sae_weight is not None], "encoder", "llm", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight}
        of_layers = [
            over_seeds(table.select("fvu", token_kind="image", layer=layer, **point))
            for layer in distinct(figures, "layer")
        ]
        means = [fvu.mean for fvu in of_layers if fvu is not None]
        match = over_seeds(table.select("matching_rate", of=None, k=top_k, layer=None, **point))
        game = over_seeds(table.select("pointing_game", of=None, layer=None, **point))
        entropy = over_seeds(table.select("caption_cross_entropy", **point))
        named = over_seeds(table.select("caption_names_object", **point))
        rows.append(
            [
                grid.name(encoder),
                grid.name(llm),
                grid.weight(weight),
                number(sum(means) / len(means) if means else None),
                number(entropy.mean if entropy else None),
                _few(named, least_n),
                *(_few(match, least_n), number(match.chance if match else None)),
                *(_few(game, least_n), number(game.chance if game else None)),
            ]
        )
    return Section(
        "At a glance (means over layers and seeds)",
        grids=[
            Grid(
                (
                    *("encoder", "LLM", "λ", "FVU", "caption CE", "names object"),
                    *(f"match@{top_k}", "shuffled", "pointing", "chance"),
                ),
                rows,
            )
        ],
    )


def _few(summary: OverSeeds | None, least_n: int) -> str:
    """Return the mean as a cell, marked where it is one over few things."""
    return grid.few(number(summary.mean), summary.n, least_n) if summary else "–"


def how_to_read(notes: Sequence[str]) -> Section:
    """Return what the columns mean, and the notes of metrics."""
    return Section(
        "How to read this",
        paragraphs=[
            "\n".join(
                [
                    "- Every single figure, seeds apart, is a row of `summary.csv` (and "
                    f"`summary.parquet`): {', '.join(COLUMNS)}.",
                    "- 95 %: of a rate, mid-P binomial limits at the effective number of tries "
                    "(tries of one image depend on each other); of other figures a percentile "
                    "bootstrap over images (or what else n says). Over several seeds the lowest "
                    "and the highest end of their intervals. Differences of interventions have "
                    "one interval for their mean over seeds.",
                    f"- No interval (–): a rate over fewer than {LEAST_OF_RATES} images, another "
                    f"figure over fewer than {LEAST_IMAGES} or the same in all of fewer than "
                    f"{LEAST_CONSTANT}, and in any seed over several; n may count pairs or tokens "
                    "of these images. Counts of a whole dictionary have none.",
                    *(f"- {note}" for note in notes),
                ]
            )
        ],
    )
