"""What the report shows of one-word steering scores."""

from __future__ import annotations

from vista.metrics.steering_score.measure import BLANK, SHUFFLED, STEERED
from vista.report import grid
from vista.report.grid import Grid, Name, Section
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds

_HEAD = ("encoder", "SAE", "LLM", "λ")


def steering_score_section(table: LongTable, least_n: int = 0) -> Section:
    """Return scores of steered and unsteered answers, and what steering gains."""
    rows, gains = [], []
    for (encoder, sae, llm, weight), _ in groups(
        table.select("steering_score"), "encoder", "method", "llm", "sae_weight"
    ):
        place = {"encoder": encoder, "method": sae, "llm": llm, "sae_weight": weight}
        head = [grid.name(encoder), grid.name(sae), grid.name(llm), grid.weight(weight)]
        for of in (STEERED, BLANK):
            cells = []
            for metric in ("steering_score", "steering_named"):
                summary = over_seeds(table.select(metric, of=of, **place))
                cells += [
                    grid.few_over_seeds(summary, least_n),
                    *grid.interval_chance_n(summary),
                ]
            rows.append([*head, Name(of), *cells])
        for rival in (BLANK, SHUFFLED):
            gain = over_seeds(table.select("steering_gain", of=rival, **place))
            gains.append(
                [
                    *head,
                    Name(rival),
                    grid.few_over_seeds(gain, least_n),
                    *grid.interval_chance_n(gain)[::2],
                ]
            )
    return Section(
        "What a language model says of a blank image that is steered along a latent",
        "Score: cosine of the answer and the mean embedding of the latent's top images; an answer "
        "is embedded as the mean of the test images of the class that it names first, in the "
        "features of another encoder, less what all images have in common (no class: 0). Chance: "
        "the answers of all other latents. Named: share of the latents with a label by top images "
        "whose answer names that class; chance: permuted answers. Blank: the unsteered answer. "
        "Then the score that steering gains, by latent. Intervals are over latents.",
        [
            Grid(
                (
                    *(*_HEAD, "answer", "score", "95 %", "chance", "n latents"),
                    *("named", "95 %", "chance", "n labelled"),
                ),
                rows,
            ),
            Grid((*_HEAD, "steered against", "score gained", "95 %", "n latents"), gains),
        ],
    )


SHOWN = Shown(
    sections=lambda measured: [steering_score_section(measured.table, measured.settings.least_n)]
)
