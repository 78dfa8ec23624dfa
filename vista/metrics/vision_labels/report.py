"""What the report shows of the labellers of vision SAEs."""

from __future__ import annotations

from vista.metrics.vision_labels.measure import EMBEDDING, SHUFFLED, STEERING, TOP_IMAGES
from vista.report import grid
from vista.report.grid import Grid, Name, Section, spread
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds

LABELLERS = {
    TOP_IMAGES: "top images",
    STEERING: "steering",
    EMBEDDING: "nearest embedding",
    SHUFFLED: "steering, shuffled",
}
_HEAD = ("encoder", "SAE", "LLM", "λ")


def vision_labels_section(table: LongTable, least_n: int = 0) -> Section:
    """Return the labellers of each vision SAE at each point, and steering against top images."""
    rows, compared = [], []
    for (encoder, sae, llm, weight), _ in groups(
        table.select("vision_label_coverage"), "encoder", "method", "llm", "sae_weight"
    ):
        place = {"encoder": encoder, "method": sae, "llm": llm, "sae_weight": weight}
        head = [grid.name(encoder), grid.name(sae), grid.name(llm), grid.weight(weight)]
        for labeller, name in LABELLERS.items():
            score = over_seeds(table.select("vision_label_auroc", of=labeller, **place))
            share = over_seeds(table.select("vision_label_coverage", of=labeller, **place))
            cells = [grid.few_over_seeds(score, least_n), *grid.interval_chance_n(score)]
            covered = [spread(share), grid.interval_chance_n(share)[-1]] if share else ["–", "–"]
            rows.append([*head, Name(name), *cells, *covered])
        for rival in (TOP_IMAGES, EMBEDDING):
            difference, agreement = (
                over_seeds(table.select(metric, of=rival, **place))
                for metric in ("vision_label_difference", "vision_label_agreement")
            )
            if difference is None:
                continue
            compared.append(
                [
                    *(*head, Name(LABELLERS[rival])),
                    grid.few_over_seeds(difference, least_n),
                    *grid.interval_chance_n(difference)[::2],
                    grid.few_over_seeds(agreement, least_n),
                    *grid.interval_chance_n(agreement),
                ]
            )
    return Section(
        "Who names a vision SAE's latents best",
        "AUROC of a latent's activation for the held-out images that show its label, mean over the "
        "latents that have one and fire in enough images; coverage: share of latents with a label. "
        "Top images: the class of a latent's top training images. Steering: the first class that "
        "the language model names on a blank image whose patches are moved along the latent, if "
        "that makes it likelier. Nearest embedding: the class whose input embedding is nearest to "
        "the latent's visual token. Shuffled: steering's labels given to each other latent. Then, "
        "over latents that both label, the AUROC of steering less that of a rival, and the "
        "share of labels equal to those of top images (chance: permuted). Intervals are "
        "over latents.",
        [
            Grid((*_HEAD, "labels", "AUROC", "95 %", "chance", "n", "coverage", "n latents"), rows),
            Grid(
                (
                    *(*_HEAD, "steering against", "AUROC gained", "95 %", "n"),
                    *("equal labels", "95 %", "chance", "n"),
                ),
                compared,
            ),
        ],
    )


SHOWN = Shown(
    sections=lambda measured: [vision_labels_section(measured.table, measured.settings.least_n)]
)
