"""Both experiments out of distribution in the readable summary: a row a score or probe, a column
a set of images."""

from __future__ import annotations

from collections.abc import Iterable

from vista.metrics.figure import Figure
from vista.metrics.ood_detection import measure as ood_detection
from vista.metrics.ood_detection.scores import SCORES
from vista.metrics.ood_generalization import measure as ood_generalization
from vista.report import grid
from vista.report.escape import clean
from vista.report.grid import Grid, Name, Section, interval, number
from vista.report.table import LongTable, groups

DETECTION, GENERALIZATION = "ood_detection", "ood_generalization"
# What the run's own images are called where a set stands otherwise.
OWN = ""


def split_metric(metric: str) -> tuple[str, str, str]:
    """The figure, what it is of and the set, out of NAME:OF@SET; "" where there is none."""
    figure, _, of = metric.partition("@")[0].partition(":")
    return figure, of, metric.partition("@")[2]


def ood_detection_section(table: LongTable) -> Section:
    """AUROC and FPR95 of every score on every set."""
    found = table.of_stage(DETECTION)
    others = {name: _images(found, name) for name in detection_sets(found)}
    head = [f"{clean(name)}, n = {_inside(found, name, n)} + {n}" for name, n in others.items()]
    grids = []
    for figure, title in (("ood_auroc", "AUROC"), ("ood_fpr95", "FPR95")):
        rows = []
        for (encoder, sae), here in groups(found, "encoder", "method"):
            by_key = {split_metric(f.metric): f for f in here}
            for score in SCORES:
                cells = [_cell(by_key.get((figure, score, name))) for name in others]
                rows.append([grid.name(encoder), grid.name(sae), Name(score), *cells])
            if figure == "ood_auroc":
                for rival in ood_detection.RIVALS:
                    cells = [_cell(by_key.get(("ood_knn_gain", rival, name))) for name in others]
                    gain = Name(f"{ood_detection.OURS} - {rival}")
                    rows.append([grid.name(encoder), grid.name(sae), gain, *cells])
        grids.append(Grid(("encoder", "SAE", title, *head), rows))
    return Section(
        "Out of distribution: do scores from the SAE tell other images from held-out ones?",
        "With 95 % intervals over images; n: held-out images + images of the set. AUROC: chance "
        ".5. FPR95: share of the set that passes where 95 % of the held-out images do; smaller is "
        "better, chance .95. Scores on raw features are the same for every SAE. Controls: the "
        "nearest-neighbour distance on a random dictionary of the SAE's size and sparsity, and a "
        "random score. The last rows are paired differences.",
        grids,
    )


def ood_generalization_section(table: LongTable) -> Section:
    """Accuracy of every probe on the run's own images and on every shifted set."""
    found = table.of_stage(GENERALIZATION)
    sets = generalization_sets(found)
    rows: list[list[str]] = []
    drops: list[list[str]] = []
    for (encoder, sae), here in groups(found, "encoder", "method"):
        who = [grid.name(encoder), grid.name(sae)]
        by_key = {split_metric(f.metric): f for f in here}
        probes = [of for figure, of, name in by_key if (figure, name) == ("probe_accuracy", OWN)]
        for of in sorted(probes, key=_order):
            cells = [_cell(by_key.get(("probe_accuracy", of, name))) for name in sets]
            rows.append([*who, Name(of), *cells])
            cells = [_cell(by_key.get(("probe_drop", of, name))) for name in sets[1:]]
            drops.append([*who, Name(of), *cells])
        for rival in ood_generalization.RIVALS:
            gains = [_cell(by_key.get(("probe_gain", rival, name))) for name in sets]
            rows.append([*who, Name(f"{ood_generalization.OURS} - {rival}"), *gains])
        any_probe = [by_key.get(("probe_accuracy", ood_generalization.OURS, name)) for name in sets]
        rows.append([*who, Name("chance"), *(number(f.chance if f else None) for f in any_probe)])
    head = [f"{clean(name) or 'held out'}, n = {_first_n(found, name)}" for name in sets]
    return Section(
        "Out of distribution: do linear probes keep their accuracy under shift?",
        "Images that show one class, with 95 % intervals over images. latents_K, raw_K and "
        "random_K: the K numbers that tell most of the class where probes are fitted; pca_K: as "
        "many principal components; random: a random dictionary of the SAE's size and sparsity. "
        "Chance: always the class that most images of the set have. Drop: accuracy on held-out "
        "images of the classes that the set has, less that on the set.",
        [
            Grid(("encoder", "SAE", "accuracy of a probe on", *head), rows),
            Grid(("encoder", "SAE", "drop of a probe on", *head[1:]), drops),
        ],
    )


def detection_sets(found: Iterable[Figure]) -> list[str]:
    """Near sets, then far ones, as KIND:SET."""
    sets = {split_metric(f.metric)[2] for f in found}
    return sorted(sets, key=lambda name: (name.startswith("far:"), name))


def generalization_sets(found: Iterable[Figure]) -> list[str]:
    """The run's own images, then shifted sets."""
    return sorted({split_metric(f.metric)[2] for f in found})


def size_of(probe: str) -> tuple[str, int | None]:
    """The representation and K of a probe's name; None: all numbers."""
    space, _, size = probe.partition("_")
    return space, int(size) if size else None


def _order(probe: str) -> tuple[int, bool, int]:
    space, size = size_of(probe)
    return ("latents", "raw", "pca", "random").index(space), size is not None, -(size or 0)


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "–"
    return f"{number(figure.value)} {interval(figure.ci_low, figure.ci_high)}"


def _first_n(found: Iterable[Figure], name: str) -> int:
    metric = f"probe_accuracy:{ood_generalization.OURS}" + (f"@{name}" if name else "")
    return next(f.n for f in found if f.metric == metric)


def _images(found: Iterable[Figure], name: str) -> int:
    return next(f.n for f in found if f.metric == f"ood_images@{name}")


def _inside(found: Iterable[Figure], name: str, n_out: int) -> int:
    """Held-out images: those that an AUROC is of, less the set's."""
    return next(f.n for f in found if f.metric == f"ood_auroc:{SCORES[0]}@{name}") - n_out
