"""Both experiments out of distribution in the report, out of made-up rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.long_table import figures_of
from vista.metrics.ood_detection.report import ood_detection_figure, ood_detection_section
from vista.metrics.ood_detection.scores import SCORES
from vista.metrics.ood_generalization.report import (
    ood_generalization_figure,
    ood_generalization_section,
)
from vista.report.table import LongTable

SAES = ("relu", "topk")
PROBES = (
    *(("latents", None), ("latents", 8), ("latents", 32), ("raw", None)),
    *(("raw", 8), ("pca", 8), ("random", None), ("random", 8)),
)


@pytest.fixture(scope="module")
def found(make_row: Callable[..., dict[str, Any]]) -> LongTable:
    rng = np.random.default_rng(0)
    figures = []
    for sae in SAES:
        scores = []
        for kind, name in (("far", "digits"), ("near", "novel")):
            for score in SCORES:
                value = 0.5 if score == "random" else 0.7 + 0.2 * rng.random()
                place = {"of": score, "set": name}
                auroc = make_row(f"{kind}_ood_auroc", value, chance=0.5, n=700)
                fpr = make_row(f"{kind}_ood_fpr95", 1 - value, chance=0.95, n=700)
                scores += [auroc | place, fpr | place]
            for rival, value in (("knn_raw", 0.1234), ("knn_random", 0.02)):
                gain = make_row(f"{kind}_ood_knn_gain", value, chance=0.0, n=700)
                scores.append(gain | {"of": rival, "set": name})
            scores.append(make_row(f"{kind}_ood_images", 300.0, n=300) | {"set": name})
        probed = [make_row("probe_gain", 0.0987, n=160) | {"of": "raw"}]
        for of, k in PROBES:
            inside, shifted = {"of": of, "k": k}, {"of": of, "k": k, "set": "noise"}
            probed.append(make_row("probe_accuracy", 0.9, chance=0.02, n=160) | inside)
            probed.append(make_row("probe_accuracy", 0.7, chance=0.03, n=150) | shifted)
            probed.append(make_row("probe_drop", 0.2, chance=0.0, n=150) | shifted)
        probed.append(make_row("probe_gain", 0.05, n=150) | {"of": "raw", "set": "noise"})
        point = {"encoder": "dinov2", "method": sae}
        figures += figures_of({**point, "metric": "ood_detection"}, scores)
        figures += figures_of({**point, "metric": "ood_generalization"}, probed)
    return LongTable(figures)


def test_scores_stand_in_rows_and_near_sets_first(found: LongTable) -> None:
    auroc, fpr = ood_detection_section(found).grids
    assert list(auroc.header[3:]) == ["near:novel, n = 400 + 300", "far:digits, n = 400 + 300"]
    assert len(auroc.rows) == 2 * (len(SCORES) + 2) and len(fpr.rows) == 2 * len(SCORES)
    assert auroc.rows[10][:4] == ["dinov2", "relu", "random", "0.500 [0.460, 0.540]"]
    assert auroc.rows[11][2:] == ["knn_latents - knn_raw", *["0.123 [0.083, 0.163]"] * 2]
    assert fpr.rows[10][3] == "0.500 [0.460, 0.540]"


def test_probes_stand_from_all_numbers_to_few(found: LongTable) -> None:
    accuracy, drop = ood_generalization_section(found).grids
    assert list(accuracy.header[3:]) == ["held out, n = 160", "noise, n = 150"]
    wanted = ["latents", "latents_32", "latents_8", "raw", "raw_8", "pca_8", "random", "random_8"]
    assert [row[2] for row in accuracy.rows[:11]] == [
        *wanted,
        "latents - raw",
        "latents - random",
        "chance",
    ]
    assert accuracy.rows[0][3:] == ["0.900 [0.860, 0.940]", "0.700 [0.660, 0.740]"]
    assert accuracy.rows[10][3:] == ["0.020", "0.030"]
    assert [row[3] for row in drop.rows] == ["0.200 [0.160, 0.240]"] * 2 * len(PROBES)


def test_figures_draw_every_row_once(found: LongTable) -> None:
    nothing = LongTable([])
    assert ood_detection_figure(nothing) is None and ood_generalization_figure(nothing) is None
    assert not ood_detection_section(nothing).grids[0].rows
    assert not ood_generalization_section(nothing).grids[0].rows
    scores, probes = ood_detection_figure(found), ood_generalization_figure(found)
    assert scores is not None and probes is not None
    near, far = scores.axes
    assert (near.get_title(loc="left"), far.get_title(loc="left")) == ("near: novel", "far: digits")
    # Of either SAE its own scores; those without an SAE once.
    assert [len(each.lines[0].get_xdata()) for each in far.containers] == [5, 5, 6]
    own, noise = probes.axes
    assert [len(each.lines[0].get_xdata()) for each in noise.containers] == [3, 3, 2, 1, 2]
    assert own.get_ylabel().startswith("dinov2")
