"""Section of the report about captions behind words."""

from __future__ import annotations

from vista.report import grid
from vista.report.grid import Grid, Section, number, spread
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds


def pseudo_images_section(table: LongTable) -> Section:
    """Return cross-entropies behind visual tokens and behind their words, and the difference."""
    rows = []
    name = "pseudo_image_cross_entropy"
    for (encoder, llm, weight), figures in groups(
        table.select("pseudo_image_cost"), "encoder", "llm", "sae_weight"
    ):
        point = {"encoder": encoder, "llm": llm, "sae_weight": weight}
        cells = [grid.name(encoder), grid.name(llm), grid.weight(weight)]
        for of in ("visual tokens", "expected words"):
            entropy = over_seeds(table.select(name, of=of, **point))
            cells += [spread(entropy), number(entropy.chance if entropy else None)]
        cost = over_seeds(figures)
        rows.append([*cells, spread(cost), str(cost.n if cost else 0)])
    return Section(
        "Pseudo images: word embeddings in place of visual tokens",
        "Cross-entropy of the reference answers in nats a token: behind the visual tokens, and "
        "behind the word embedding that the head of visual words expects of each of them; other "
        "image: behind the tokens of another image. Cost: words - visual tokens. The language "
        "model was not trained on such words. Mean over seeds (smallest–largest).",
        [
            Grid(
                (
                    *("encoder", "LLM", "λ", "visual tokens", "other image"),
                    *("expected words", "other image", "cost", "n"),
                ),
                rows,
            )
        ],
    )


SHOWN = Shown(sections=lambda measured: [pseudo_images_section(measured.table)])
