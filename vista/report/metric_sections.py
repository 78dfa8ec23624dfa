"""Sections of the readable summary about each metric, out of the long table."""

from __future__ import annotations

from vista.config.report import ReportSettings
from vista.report import grid
from vista.report.compare import BASELINE
from vista.report.grid import Grid, Name, Section, number, reached, spread
from vista.report.table import LongTable, groups, over_seeds


def matching_section(table: LongTable, settings: ReportSettings) -> Section:
    """Matching rates with their shuffled-image level, averaged over layers and per layer."""
    k = settings.top_k
    metric = f"matching_rate@{k}"
    over_layers, per_layer = [], []
    for (encoder, llm, weight), found in groups(
        table.select(metric, layer=None), "encoder", "llm", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": None}
        rate = over_seeds(found)
        recall = over_seeds(table.select(f"object_recall@{k}", **point))
        over_layers.append(
            [
                grid.name(encoder),
                grid.name(llm),
                grid.weight(weight),
                spread(rate),
                number(rate.chance if rate else None),
                spread(over_seeds(table.select(f"matching_gain@{k}", **point))),
                spread(over_seeds(table.select(f"matching_ratio@{k}", **point))),
                spread(recall),
                number(recall.chance if recall else None),
                str(rate.n if rate else 0),
                spread(over_seeds(table.select(f"matching_unanswered@{k}", **point))),
            ]
        )
    for (llm, layer, encoder, weight), found in groups(
        [f for f in table.select(metric) if f.layer is not None],
        "llm",
        "layer",
        "encoder",
        "sae_weight",
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": layer}
        rate = over_seeds(found)
        per_layer.append(
            [
                grid.name(llm),
                grid.layer(layer),
                grid.name(encoder),
                grid.weight(weight),
                spread(rate),
                *grid.interval_chance_n(rate),
                spread(over_seeds(table.select(f"matching_gain@{k}", **point))),
                spread(over_seeds(table.select("silent_images", **point))),
                spread(over_seeds(table.select("eligible_latents", **point))),
            ]
        )
    head = ("match", "shuffled", "gain", "ratio", "recall", "shuffled", "n", "unanswered")
    return Section(
        f"Matching rate: the {k} strongest latents name what is shown",
        "Mean over layers, then what the term adds to the gain, then per layer; mean over seeds "
        "(smallest–largest). Shuffled: the same labels judged against other images. Gain: "
        "match - shuffled. Unanswered: share of images that a judge that is shown them left open; "
        "they are left out. Eligible: share of latents that pass both masks.",
        [
            Grid(("encoder", "LLM", "λ", *head), over_layers),
            _matching_hopes(table, settings),
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ", "match", "95 %", "shuffled", "n", "gain"),
                    "silent images",
                    "eligible latents",
                ),
                per_layer,
            ),
        ],
    )


def _matching_hopes(table: LongTable, settings: ReportSettings) -> Grid:
    """Gains over the shuffled level, with the term against without, beside the published factor."""
    metric = f"matching_gain@{settings.top_k}"
    hoped = settings.aims.matching_ratio
    rows = []
    for (encoder, llm, weight), found in groups(
        table.select(metric, layer=None), "encoder", "llm", "sae_weight"
    ):
        with_term = over_seeds(found)
        without = over_seeds(
            table.select(metric, encoder=encoder, llm=llm, sae_weight=BASELINE, layer=None)
        )
        if weight in (None, BASELINE) or with_term is None or without is None:
            continue
        factor = with_term.mean / without.mean if without.mean > 0 else None
        gains = [spread(without), spread(with_term)]
        aim = [number(factor, 2), number(hoped, 1), reached(factor, hoped)]
        rows.append([grid.name(encoder), grid.name(llm), grid.weight(weight), *gains, *aim])
    return Grid(
        ("encoder", "LLM", "λ", "gain, λ = 0", "gain", "factor", "hoped for", "reached"), rows
    )


def localization_section(table: LongTable) -> Section:
    """Pointing game and maps, pooled over layers."""
    rows = []
    for (encoder, llm, weight), found in groups(
        table.select("pointing_game", layer=None), "encoder", "llm", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": None}
        game = over_seeds(found)
        cells = [
            grid.name(encoder),
            grid.name(llm),
            grid.weight(weight),
            spread(game),
            *grid.interval_chance_n(game),
        ]
        for name in ("auroc_box", "auroc_mask"):
            cells.append(spread(over_seeds(table.select(name, **point))))
        for name in ("average_precision_mask", "iou_active_mask", "iou_best_mask"):
            summary = over_seeds(table.select(name, **point))
            cells += [spread(summary), number(summary.chance if summary else None)]
        maps = over_seeds(table.select("auroc_box", **point))
        rows.append([*cells, str(maps.n if maps else 0)])
    return Section(
        "Localization: named latents fire on their object",
        "All layers pooled; mean over seeds (smallest–largest). Pointing game: matched latents "
        "whose label is the class word, chance is the covered share of the patches. Maps: every "
        "class present that has a latent of its own; chance of AUROC is .5.",
        [
            Grid(
                (
                    *("encoder", "LLM", "λ", "pointing", "95 %", "chance", "n"),
                    *("AUROC box", "AUROC mask", "AP mask", "chance"),
                    *("IoU active", "chance", "IoU best", "chance", "n maps"),
                ),
                rows,
            ),
            _encoder_order(table),
        ],
    )


def _encoder_order(table: LongTable) -> Grid:
    """Encoders by their pointing game over chance: the paper has a self-supervised one ahead."""
    rows = []
    for (llm, weight), found in groups(
        table.select("pointing_gain", layer=None), "llm", "sae_weight"
    ):
        gains = [
            (summary.mean, encoder)
            for (encoder,), same in groups(found, "encoder")
            if (summary := over_seeds(same)) is not None
        ]
        order = [f"{encoder} {number(gain)}" for gain, encoder in sorted(gains, reverse=True)]
        rows.append([grid.name(llm), grid.weight(weight), Name(" > ".join(order))])
    return Grid(("LLM", "λ", "encoders by pointing game - chance"), rows)


def caption_section(table: LongTable) -> Section:
    """Cross-entropy, recall and hallucination of captions."""
    rows = []
    for (encoder, llm, weight), found in groups(
        table.select("caption_cross_entropy"), "encoder", "llm", "sae_weight"
    ):
        entropy = over_seeds(found)
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


def reconstruction_section(table: LongTable) -> Section:
    """FVU and L0 per layer on the three kinds of tokens."""
    rows = []
    for (llm, layer, encoder, weight), _ in groups(
        table.select("fvu", token_kind="image"), "llm", "layer", "encoder", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight, "layer": layer}
        cells = [grid.name(llm), grid.layer(layer), grid.name(encoder), grid.weight(weight)]
        for metric in ("mse", "fvu", "l0"):
            for kind in ("image", "text", "control"):
                cells.append(spread(over_seeds(table.select(metric, token_kind=kind, **point))))
        rows.append(cells)
    kinds = ("image", "text", "control")
    return Section(
        "Reconstruction and sparsity",
        "Mean over seeds (smallest–largest): SAE error (MSE), fraction of variance unexplained "
        "(chance 1) and active latents a token, on visual tokens, the text after them, and the "
        "text control.",
        [
            Grid(
                (
                    *("LLM", "layer", "encoder", "λ"),
                    *(f"MSE {kind}" for kind in kinds),
                    *(f"FVU {kind}" for kind in kinds),
                    *(f"L0 {kind}" for kind in kinds),
                ),
                rows,
            )
        ],
    )
