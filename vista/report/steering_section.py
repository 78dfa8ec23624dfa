"""Section of the summary about steering a text-to-image pipeline through its text encoder."""

from __future__ import annotations

from vista.metrics.diffusion_steering.measure import METHODS
from vista.report import grid
from vista.report.grid import Grid, Section, spread
from vista.report.table import LongTable, over_seeds


def steering_section(table: LongTable) -> Section:
    """Gains and drifts by attribute and method, then what the probes and the pipeline can do."""
    rows = []
    for kind, what in (("steering", "add"), ("ablation", "ablate")):
        for attribute in _attributes(table, f"{kind}_gain:"):
            for method in METHODS:
                where = f":{method}@{attribute}"
                gain = over_seeds(table.select(f"{kind}_gain{where}"))
                cells: list[str] = [grid.name(attribute), grid.name(what), grid.name(method)]
                for name in ("gain", "gain_over_random", "drift"):
                    found = over_seeds(table.select(f"{kind}_{name}{where}"))
                    cells += [spread(found), grid.interval_chance_n(found)[0]]
                rows.append([*cells, str(gain.n if gain else 0)])
    bases = []
    for attribute in _attributes(table, "prompt_adherence@"):
        basis: list[str] = [grid.name(attribute)]
        for name in ("attribute_accuracy", "prompt_adherence", "latent_auroc"):
            found = over_seeds(table.select(f"{name}@{attribute}"))
            basis += [spread(found), *grid.interval_chance_n(found)[1:]]
        bases.append(basis)
    return Section(
        "Steering a text-to-image pipeline through its text encoder",
        "Edits of the text encoder's stream with the noise held fixed, judged by probes on another "
        "encoder. Gain: share of images that show the target, edited less unedited (ablate: that "
        "cease to); over random: less a random direction's on the same prompts; drift: share of "
        "the other attributes that change, of those that unedited images show as told. Then the "
        "probes' accuracy on real images, the share of unedited images that show what their prompt "
        "says, and the AUROC of the chosen latents.",
        [
            Grid(
                (
                    *("attribute", "edit", "by", "gain", "95 %", "over random", "95 %"),
                    *("drift", "95 %", "n"),
                ),
                rows,
            ),
            Grid(
                (
                    *("attribute", "probe", "chance", "n", "adherence", "chance", "n"),
                    *("AUROC of latents", "chance", "n"),
                ),
                bases,
            ),
        ],
    )


def _attributes(table: LongTable, prefix: str) -> list[str]:
    """The attributes of the figures whose names begin so, in their order."""
    found = (f.metric for f in table.of_stage("diffusion_steering"))
    return list(dict.fromkeys(name.rpartition("@")[2] for name in found if name.startswith(prefix)))
