"""Sections on controls: what is left of the SAE term's gain beside scale, and what each metric
rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vista.metrics.figure import Figure
from vista.report import grid
from vista.report.differences import COMPARISON_NAMES, COMPARISONS, METRIC
from vista.report.grid import Grid, Name, Section, number, spread
from vista.report.shown import Measured
from vista.report.table import LongTable, groups, over_seeds


def differences_section(measured: Measured) -> Section:
    """Return the gains of the matching rate with the SAE term over its controls."""
    table = measured.controls
    rows = []
    for (encoder, llm, weight), figures in groups(
        table.select(METRIC), "encoder", "llm", "sae_weight"
    ):
        cells = [grid.name(encoder), grid.name(llm), grid.weight(weight)]
        for comparison in COMPARISONS:
            cells.append(gain([f for f in figures if f.of == comparison]))
        seeds = {f.seed for f in figures if f.seed is not None}
        rows.append([*cells, str(len(seeds)), str(min(f.n for f in figures))])
    compared = any(f.of != "as_run" for f in table.select(METRIC))
    return Section(
        "What the SAE term adds to the matching rate",
        "Matching rate with the term - without it, paired over images, mean over layers and seeds; "
        "in brackets the 95 % interval over images, then each seed's difference. As run; "
        "norm-matched: the baseline's visual tokens times one number that gives them the norm of "
        "those with the term; in text's scale: the SAEs read both in the norm of text; at best "
        "scale: both times a number chosen on validation images. A gain that the controls do not "
        "leave is one of scale.",
        [
            Grid(
                (
                    "encoder",
                    "LLM",
                    "λ",
                    *(COMPARISON_NAMES[name] for name in COMPARISONS),
                    "seeds",
                    "n",
                ),
                rows if compared else [],
            )
        ],
    )


def gain(figures: Sequence[Figure]) -> str:
    """Return the cell of a difference: over seeds with its interval, then that of each seed."""
    whole = [f for f in figures if f.seed is None]
    if not whole or whole[0].value is None:
        return "–"
    seeds = [number(f.value) for f in figures if f.seed is not None]
    text = grid.with_interval(whole)
    return f"{text}; {', '.join(seeds)}" if len(seeds) > 1 else text


def floors_section(measured: Measured, top_k: int) -> Section:
    """Return every point with its controls on the metrics that controls are measured by."""
    controls = measured.controls
    points = {
        (f.encoder, f.llm)
        for f in controls.figures
        if f.control is not None and f.encoder is not None
    }
    rows = []
    for encoder, llm in sorted(points, key=str):
        of_pair = {"encoder": encoder, "llm": llm}
        for table in (measured.table, controls):
            figures = [
                f
                for f in table.figures
                if (f.encoder, f.llm) == (encoder, llm)
                and f.sae_weight is not None
                and f.metric in _MARKS
            ]
            for (control, weight), _ in groups(figures, "control", "sae_weight"):
                point = {**of_pair, "control": control, "sae_weight": weight}
                rows.append(
                    [
                        *(grid.name(encoder), grid.name(llm), Name(control or "as run")),
                        grid.weight(weight),
                        *_cells(table, point, top_k),
                    ]
                )
    return Section(
        "What each metric rewards: points beside floors and ceilings",
        "Means over layers and seeds. true_words: the word of each patch as text, a ceiling. "
        "random_projector, constant_token (the mean visual token at every patch), other_image and "
        "permuted_patches: floors. A low FVU or MSE says nothing where a floor has a lower one: "
        "read it with the cross-entropy of captions beside that of another image, and with the "
        "share of the tokens' variance that lies between images. Size: root mean square of the "
        "stream at visual tokens / at text. Largest norm: the pointing game of the token with the "
        "largest norm in the place of the latent's strongest. docs/controls.md tells what each "
        "control is.",
        [
            Grid(
                (
                    *("encoder", "LLM", "control", "λ", f"match@{top_k}", "shuffled"),
                    *("without masks", "pointing", "chance", "largest norm", "AUROC", "FVU"),
                    *("MSE", "L0", "size / text", "between images", "caption CE"),
                    *("other image", "loss recovered"),
                ),
                rows,
            )
        ],
    )


_MARKS = frozenset({"matching_rate", "fvu", "caption_cross_entropy", "pointing_game"})


def _cells(table: LongTable, point: dict[str, object], top_k: int) -> list[str]:
    matching, unmasked = (
        over_seeds(table.select("matching_rate", k=top_k, layer=None, of=of, **point))
        for of in (None, "unmasked")
    )
    pointing = over_seeds(table.select("pointing_game", layer=None, of=None, **point))
    entropy = over_seeds(table.select("caption_cross_entropy", set=None, **point))
    auroc = over_seeds(table.select("auroc", layer=None, of="mask", **point))
    recovered = table.select(
        "spliced_loss_recovered", layer=None, of="mean", token_kind="image", **point
    )
    mean = _over_layers(table, point)
    size, variance = mean("stream_rms", "image"), mean("variance", "image")
    text, between = mean("stream_rms", "control"), mean("image_variance", "image")
    return [
        spread(matching),
        number(matching.chance if matching else None),
        spread(unmasked),
        spread(pointing),
        number(pointing.chance if pointing else None),
        spread(over_seeds(table.select("pointing_salient", layer=None, of=None, **point))),
        spread(auroc),
        *(number(mean(metric, "image")) for metric in ("fvu", "mse", "l0")),
        number(size / text if size is not None and text else None),
        number(between / variance if between is not None and variance else None),
        spread(entropy),
        number(entropy.chance if entropy else None),
        spread(over_seeds(recovered)),
    ]


def _over_layers(table: LongTable, point: dict[str, object]) -> Callable[[str, str], float | None]:
    def mean(metric: str, kind: str) -> float | None:
        figures = table.select(metric, token_kind=kind, **point)
        values = [f.value for f in figures if f.layer is not None and f.value is not None]
        return sum(values) / len(values) if values else None

    return mean
