"""Probes on single latents: the fit and the scores equal scikit-learn's, planted latents are found,
and the rivals are what they are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from vista.metrics.latent_probes.linear import linear_scores
from vista.metrics.latent_probes.measure import (
    LatentProbesResult,
    Patches,
    common_classes,
    measure_dictionary,
    one_latent_probes,
    with_gains,
)
from vista.metrics.latent_probes.probes import choose_latents, fit_probes, histogram_of
from vista.metrics.latent_probes.report import latent_probes_section
from vista.metrics.latent_probes.scores import (
    best_threshold,
    class_scores,
    count_images,
    resampled_scores,
)
from vista.metrics.latent_probes.semi_nmf import encode_semi_nmf, fit_semi_nmf
from vista.report.table import LongTable

IMAGES, PATCHES, CLASSES = 40, 12, 3


def planted(seed: int) -> tuple[np.ndarray[Any, Any], Patches]:
    """Sparse activations [n, 8]: latent 5 for class 0, 2 for class 1; class 2 is what latent 7
    leaves out; the others fire at random."""
    rng = np.random.default_rng(seed)
    n = IMAGES * PATCHES
    shown = rng.random((n, CLASSES)) < (0.1, 0.2, 0.5)
    z = rng.exponential(size=(n, 8)) * (rng.random((n, 8)) < 0.2)
    for latent, c, sign in ((5, 0, True), (2, 1, True), (7, 2, False)):
        on = (shown[:, c] == sign) & (rng.random(n) < 0.9)
        z[:, latent] = on * rng.uniform(1, 3, n)
    return z, Patches(shown, np.repeat(np.arange(IMAGES), PATCHES))


def test_the_fit_is_that_of_logistic_regression() -> None:
    z, patches = planted(0)
    ridge = 1e-3
    for latent, c in ((5, 0), (1, 0), (7, 2)):
        x = z[:, latent]
        probe = fit_probes(histogram_of(x, patches.shown_nc[:, [c]], len(x)), ridge)
        scale = np.sqrt(np.mean(x[x != 0] ** 2))
        model = LogisticRegression(C=1 / (ridge * len(x)), tol=1e-10, max_iter=1000)
        model.fit(x[:, None] / scale, patches.shown_nc[:, c])
        assert probe.weight_sc[0, 0] * scale == pytest.approx(model.coef_[0, 0], rel=1e-4)
        assert probe.bias_sc[0, 0] == pytest.approx(model.intercept_[0], rel=1e-4)


@pytest.mark.parametrize("bins", [8, 64])
def test_the_planted_latents_are_chosen_dense_or_sparse(bins: int) -> None:
    z, patches = planted(1)
    for activation in (z, scipy.sparse.csc_array(z)):
        choice = choose_latents(activation, patches.shown_nc, bins, 1e-4)
        assert choice.latent_c.tolist() == [5, 2, 7]
        assert choice.sign_c.tolist() == [1, 1, -1]
    # Values below 0 have bins of their own.
    flipped = choose_latents(-z, patches.shown_nc, bins, 1e-4)
    assert flipped.latent_c.tolist() == [5, 2, 7]
    assert flipped.sign_c.tolist() == [-1, -1, 1]


def test_scores_are_scikit_learns_with_ties_and_weights_of_images() -> None:
    z, patches = planted(2)
    rng = np.random.default_rng(3)
    for score in (z[:, 5], np.round(z[:, 1], 1), rng.standard_normal(len(z))):
        shown = patches.shown_nc[:, 0]
        at = best_threshold(score, shown)
        counts = count_images(score, shown, patches.image_n, at)
        found = class_scores(counts)
        assert found.average_precision == pytest.approx(average_precision_score(shown, score))
        assert found.auroc == pytest.approx(roc_auc_score(shown, score))
        assert found.purity == pytest.approx(shown[score >= at].mean())
        assert found.coverage == pytest.approx((score[shown] >= at).mean())
        f1 = [2 * (shown & (score >= t)).sum() / (shown.sum() + (score >= t).sum()) for t in score]
        assert 2 / (1 / found.purity + 1 / found.coverage) == pytest.approx(max(f1))
        # A resample is the score of patches with the weights of their images.
        drawn = resampled_scores(counts, 7, 3)
        times = np.bincount(np.random.default_rng(7).integers(IMAGES, size=(3, IMAGES))[0])
        weight = np.pad(times, (0, IMAGES - len(times)))[patches.image_n]
        expected = average_precision_score(shown, score, sample_weight=weight)
        assert drawn.average_precision[0] == pytest.approx(expected)
        expected = roc_auc_score(shown, score, sample_weight=weight)
        assert drawn.auroc[0] == pytest.approx(expected)


def test_a_dictionary_is_scored_on_held_out_patches_and_compared_on_the_same_images() -> None:
    (z, fit), (other, held) = planted(4), planted(5)
    noise = np.random.default_rng(6).standard_normal((2, len(z), 4))
    options: Any = {"found": 0.5, "seed": 0, "resamples": 200, "level": 0.95}
    measured = {}
    for name, (fit_ns, held_ns) in {"sae": (z, other), "random": noise}.items():
        probe = one_latent_probes(fit_ns, held_ns, fit.shown_nc, 16, 1e-4)
        measured[name] = measure_dictionary(probe, 1536, fit, held, **options)
    result = LatentProbesResult(
        layer=1, classes=3, images=IMAGES, patches=len(z), fitted_images=IMAGES,
        dictionaries=with_gains(measured, 0.95),
    )  # fmt: skip
    sae, random = (result.dictionaries[name] for name in ("sae", "random"))
    assert sae.average_precision.value == pytest.approx(
        np.mean([measured["sae"].items["average_precision"]])
    )
    assert sae.average_precision.value > 0.85 and sae.classes_found.value == 1
    assert sae.average_precision.chance == pytest.approx(held.shown_nc.mean())
    low, high = random.average_precision.ci_low, random.average_precision.ci_high
    assert low < random.average_precision.value < high
    assert random.average_precision.value < random.average_precision.chance + 0.1
    assert sae.gain is None and random.gain.ci_low > 0.3
    assert random.gain.value == pytest.approx(
        sae.average_precision.value - random.average_precision.value
    )
    rows = {(row.metric, row.of): row for row in result.figures()}
    assert rows["probe_latents", "sae"].value == 1536
    assert rows["probe_average_precision", "sae"].n == IMAGES
    assert ("probe_precision_gain", "sae") not in rows
    placed = [replace(row, encoder="clip", method="topk") for row in result.figures()]
    shown = latent_probes_section(LongTable(placed)).grids[0].rows
    assert [row[3:5] for row in shown if row[5] != "–"] == [
        ["SAE", "1536"],
        ["random dictionary", "1536"],
    ]


def test_classes_that_few_images_show_are_left_out() -> None:
    fit = [{"cat", "cow"}, {"cat"}, {"ankh"}]
    held = [{"cat"}, {"cat", "cow"}, {"cow"}]
    assert list(common_classes(fit, held, 1)) == ["cat", "cow"]
    assert list(common_classes(fit, held, 2)) == ["cat"]


def test_semi_nmf_finds_planted_rows_with_activations_that_are_not_negative() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 20))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    z = rng.exponential(size=(1500, 6)) * (rng.random((1500, 6)) < 0.3)
    x = (z @ rows).astype(np.float32)
    error = {}
    for iterations in (1, 10, 100):
        found = fit_semi_nmf(x[:1000], 6, iterations, 0)
        encoded = encode_semi_nmf(x[1000:], found, 100)
        assert encoded.min() >= 0
        error[iterations] = np.square(x[1000:] - encoded @ found).sum() / np.square(x[1000:]).sum()
    assert error[1] > 10 * error[10] and error[10] > error[100] and error[100] < 1e-6
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert (unit @ rows.T).max(axis=0).min() > 0.9
    # Without the sign of the activations, any basis of the planted rows' space would do.
    mixed = (rng.standard_normal((6, 6)) @ rows).astype(np.float32)
    other = encode_semi_nmf(x[1000:], mixed, 100)
    assert np.square(x[1000:] - other @ mixed).sum() > 0.1 * np.square(x[1000:]).sum()


def test_the_linear_probe_is_one_regression_a_class() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 5)) * (1, 2, 3, 4, 5) + 7
    score = x @ rng.standard_normal((5, 2)) + rng.standard_normal((300, 2))
    shown = score > np.quantile(score, 0.7, axis=0)
    fitted, held = linear_scores(x, shown, x[:10], 1e-2)
    assert held == pytest.approx(fitted[:10])
    for c in range(2):
        model = LogisticRegression(C=1 / (1e-2 * len(x)), tol=1e-8, max_iter=1000)
        standard = (x - x.mean(axis=0)) / x.std(axis=0)
        expected = model.fit(standard, shown[:, c]).decision_function(standard)
        assert fitted[:, c] == pytest.approx(expected, abs=5e-3)
