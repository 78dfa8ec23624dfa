"""What the report shows of probes on single latents."""

from __future__ import annotations

from vista.metrics.latent_probes.measure import FIGURES
from vista.report import grid
from vista.report.grid import Grid, Name, Section
from vista.report.shown import Shown
from vista.report.table import LongTable, groups, over_seeds
from vista.report.vision_sae_section import block

DICTIONARIES = {
    "sae": "SAE",
    "neurons": "neurons",
    "pca": "principal components",
    "semi_nmf": "semi-NMF",
    "random": "random dictionary",
    "linear": "all channels",
}
_HEAD = ("encoder", "block", "SAE", "dictionary", "latents")
_TABLES = {
    ("average_precision", "gain"): (
        *("average precision", "95 %", "chance", "n images"),
        *("SAE gains", "95 %", "chance", "n images"),
    ),
    ("auroc", "classes_found"): (
        *("AUROC", "95 %", "chance", "n images"),
        *("classes found", "95 %", "chance", "n classes"),
    ),
    ("purity", "coverage"): (
        *("purity", "95 %", "chance", "n images"),
        *("coverage", "95 %", "chance", "n images"),
    ),
}


def latent_probes_section(table: LongTable, least_n: int = 0) -> Section:
    """Return the probes' scores of each vision SAE and of the dictionaries beside it."""
    return Section(
        "One latent a class: which patches a single latent tells",
        "For each class the latent whose logistic probe fits labelled patches best, scored on "
        "patches of held-out images; means over classes. Purity: share of the patches at or above "
        "the probe's threshold that show the class. Coverage: share of the class's patches that "
        "are. The threshold has the largest F1 on the fitted patches. Classes found: share whose "
        "average precision is enough. Gains: the SAE's mean average precision less the "
        "dictionary's, on the same images. Neurons: the features' channels. Random dictionary: of "
        "the SAE's size and sparsity. All channels: a linear probe, which a single latent is not "
        "expected to reach. Chance: classes' share of the patches, of coverage that of the chosen "
        "patches.",
        [
            Grid((*_HEAD, *head), _rows(table, quantities, least_n))
            for quantities, head in _TABLES.items()
        ],
    )


def _rows(table: LongTable, quantities: tuple[str, str], least_n: int) -> list[list[str]]:
    rows: list[list[str]] = []
    probed = table.select(FIGURES["average_precision"], of="sae")
    for (encoder, sae, layer), _ in groups(probed, "encoder", "method", "layer"):
        place = {"encoder": encoder, "method": sae}
        for dictionary, name in DICTIONARIES.items():
            size = table.select("probe_latents", of=dictionary, **place)
            latents = str(size[0].n) if size else "–"
            cells = [grid.name(encoder), block(layer), grid.name(sae), Name(name), latents]
            for quantity in quantities:
                score = over_seeds(table.select(FIGURES[quantity], of=dictionary, **place))
                cells += [grid.few_over_seeds(score, least_n), *grid.interval_chance_n(score)]
            rows.append(cells)
    return rows


SHOWN = Shown(
    sections=lambda measured: [latent_probes_section(measured.table, measured.settings.least_n)]
)
