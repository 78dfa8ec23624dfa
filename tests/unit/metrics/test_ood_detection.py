"""Telling images apart: scores against their definitions, curves against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from vista.metrics.ood_detection.measure import ood_detection, separation
from vista.metrics.ood_detection.scores import (
    SCORES,
    ClassGaussians,
    EnergyProfiles,
    Images,
    Neighbours,
    OodScores,
    class_profiles,
    profile_divergence,
)

SETTINGS = {
    "neighbours": 2,
    "components": 8,
    "smoothing": 0.01,
    "core_share": 0.5,
    "regularisation": 1.0,
    "iterations": 50,
    "seed": 0,
}


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_curves_equal_scikit_learn_ties_too(decimals: int) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    rng = np.random.default_rng(decimals)
    inside = rng.normal(1, 1, 83).round(decimals)
    outside = rng.normal(0, 1, 61).round(decimals)
    auroc, fpr = separation(inside, outside, seed=0, resamples=300)
    truth, both = np.repeat([1, 0], [83, 61]), np.concatenate([inside, outside])
    assert auroc[0] == pytest.approx(roc_auc_score(truth, both))
    wrong, right, _ = roc_curve(truth, both, drop_intermediate=False)
    assert fpr[0] == pytest.approx(wrong[np.argmax(right >= 0.95)])
    assert auroc[1:].mean() == pytest.approx(auroc[0], abs=0.01)
    assert 0.02 < auroc[1:].std() < 0.06
    reverse, _ = separation(-inside, -outside, seed=0, resamples=0)
    assert reverse[0] == pytest.approx(1 - auroc[0])


def test_the_threshold_lets_95_of_100_pass() -> None:
    inside, outside = np.arange(100), np.array([4.5, 5.0, 5.5, 99.5])
    assert separation(inside, outside, 0, 0)[1] == pytest.approx([0.75])
    with pytest.raises(ValueError, match="one image or more"):
        separation(inside, [], 0, 0)


def test_resamples_are_paired_and_rows_say_of_what() -> None:
    rng = np.random.default_rng(0)
    inside, outside = ({name: rng.random(n) for name in SCORES} for n in (40, 30))
    for scores in (inside, outside):
        scores["knn_raw"] = scores["knn_latents"] * 2 + 1
    found = ood_detection(
        inside, {"d": ("far", outside)}, n_fitted=7, seed=0, resamples=50, level=0.9
    )
    rows = {(row.metric, row.of): row for row in found.figures()}
    assert {row.set for row in rows.values()} == {"d"}
    gain, auroc = rows["far_ood_knn_gain", "knn_raw"], rows["far_ood_auroc", "knn_latents"]
    assert (gain.value, gain.ci_low, gain.ci_high, gain.chance) == (0, 0, 0, 0)
    assert auroc.ci_low is not None and auroc.ci_high is not None
    assert auroc.ci_low < auroc.value < auroc.ci_high
    assert (auroc.chance, auroc.n) == (0.5, 70)
    assert rows["far_ood_fpr95", "random"].chance == 0.95
    assert rows["far_ood_images", None].value == 30
    random, value = rows["far_ood_knn_gain", "knn_random"], auroc.value
    assert random.value == pytest.approx(value - rows["far_ood_auroc", "knn_random"].value)
    assert len(rows) == 2 * len(SCORES) + 3


def test_neighbours_are_of_unit_vectors() -> None:
    fit = np.array([[2.0, 0], [0, 1], [-1, 0]])
    judged = np.array([[5.0, 0], [3, 3], [0, 0]])
    for k, wanted in (
        (1, [0, np.sqrt(2 - np.sqrt(2)), np.sqrt(2)]),
        (2, [np.sqrt(2), np.sqrt(2 - np.sqrt(2)), np.sqrt(2)]),
    ):
        np.testing.assert_allclose(Neighbours(fit, k).distance(judged), wanted, atol=1e-7)


def test_gaussians_share_the_covariance_of_their_classes() -> None:
    rng = np.random.default_rng(0)
    class_n = np.arange(4000) % 2
    x = rng.normal(0, [1, 3], (4000, 2)) + np.array([[0, 0], [40, 0]])[class_n]
    near = ClassGaussians(x, np.arange(4000), class_n, components=5, seed=0)
    judged = np.array([[2.0, 0], [0, 6], [40, 6], [38, 0]])
    np.testing.assert_allclose(near.distance(judged), [2, 2, 2, 2], rtol=0.1)


def test_divergence_from_the_nearest_profile() -> None:
    # The image of both classes counts for each.
    fit = np.array([[2.0, 0, 0], [0, 4, 0], [3, 3, 0]])
    profiles = class_profiles(fit, np.array([0, 1, 2, 2]), np.array([0, 1, 0, 1]), 0.3)
    np.testing.assert_allclose(profiles, [[0.625, 0.275, 0.1], [0.275, 0.625, 0.1]])
    found = profile_divergence(profiles, np.array([[9.0, 0, 0], [1, 1, 0], [0, 0, 0]]))
    mixed = np.log(0.5) - np.log(0.625 * 0.275) / 2
    nothing = np.log(1 / 3) - np.log(0.625 * 0.275 * 0.1) / 3
    np.testing.assert_allclose(found, [-np.log(0.625), mixed, nothing], rtol=1e-6)


def test_energy_profiles_compare_shapes_on_the_core_of_the_predicted_class() -> None:
    from scipy.stats import entropy

    # Means of classes: (2, 6, 0, 1) and (0, 0, 5, 5); the core has two latents.
    fit = np.array([[4.0, 6, 0, 1], [0, 6, 0, 1], [0, 0, 5, 5]])
    energy = EnergyProfiles(fit, np.arange(3), np.array([0, 0, 1]), 0.5, 1e-9)
    judged = np.array([[1.0, 3, 0, 0], [5, 15, 9, 9], [3, 1, 0, 0], [0, 0, 9, 0]])
    found = energy.divergence(judged, np.zeros(4, dtype=np.int64))
    # Neither the size of the activation nor latents beyond the core count.
    np.testing.assert_allclose(found[:2], 0, atol=1e-8)
    assert found[2] == pytest.approx(entropy([0.75, 0.25], [0.25, 0.75]))
    # Nothing fires on the core: as flat as can be.
    assert found[3] == pytest.approx(entropy([0.5, 0.5], [0.25, 0.75]))
    # By the class that is predicted, not by the nearest profile.
    other = energy.divergence(judged, np.ones(4, dtype=np.int64))
    assert other[1] == pytest.approx(0, abs=1e-8) and other[3] == pytest.approx(np.log(2))


def images(centres: np.ndarray, n: int, rng: np.random.Generator) -> Images:
    """Latents and raw features around `centres`, in turn."""
    at = centres[np.arange(n) % len(centres)]
    noisy = (at + rng.normal(0, 0.3, (n, at.shape[1]))).astype(np.float32)
    error = rng.random(n) + (0 if len(centres) > 1 else 2)
    latents = np.maximum(noisy, 0)
    vectors = {"latents": latents, "raw": noisy, "random": latents[:, ::-1]}
    return Images(vectors, error.astype(np.float32))


def test_every_score_but_the_random_one_tells_what_is_far() -> None:
    rng = np.random.default_rng(0)
    centres = 4 * np.eye(12)
    fit, same = images(centres[:6], 120, rng), images(centres[:6], 60, rng)
    far = images(centres[8:9], 60, rng)
    classes = [(f"class{n % 6}",) for n in range(120)]
    scores_of = OodScores(fit, classes, **SETTINGS)
    scores = {"same": scores_of.of(same), "far": scores_of.of(far)}
    assert list(scores["far"]) == list(SCORES)
    for name in SCORES:
        auroc = separation(scores["same"][name], scores["far"][name], 0, 0)[0][0]
        assert auroc > 0.95 if name != "random" else 0.3 < auroc < 0.7, name
    assert np.all(scores["same"]["max_softmax_raw"] <= 1)
    with pytest.raises(ValueError, match=r"classes \(1\)"):
        OodScores(fit, [("one",)] * 120, **SETTINGS)
    with pytest.raises(ValueError, match="200 neighbours of 120"):
        OodScores(fit, classes, **{**SETTINGS, "neighbours": 200})


def test_energy_profiles_are_of_the_class_that_the_probe_predicts() -> None:
    rng = np.random.default_rng(0)
    # Latents and raw channels tell the same classes; then the raw ones show another class.
    fit = images(4 * np.eye(12)[:3], 120, rng)
    scores_of = OodScores(fit, [(f"class{n % 3}",) for n in range(120)], **SETTINGS)
    latents = np.maximum(rng.normal(4 * np.eye(12)[[0, 0]], 0.3), 0).astype(np.float32)
    raw = (4 * np.eye(12)[[0, 1]]).astype(np.float32)
    judged = Images({"latents": latents, "raw": raw, "random": latents}, np.zeros(2, np.float32))
    found = scores_of.of(judged)
    profiles = EnergyProfiles(
        fit.vectors["latents"], np.arange(120), np.arange(120) % 3, 0.5, SETTINGS["smoothing"]
    )
    predicted = profiles.divergence(latents, np.array([0, 1]))
    np.testing.assert_allclose(found["energy_profile_latents"], -predicted, rtol=1e-5)
    # The latents of both are next to the first class's profile, by either divergence.
    nearest = np.min([profiles.divergence(latents, np.full(2, c)) for c in range(3)], axis=0)
    assert predicted[0] == pytest.approx(nearest[0]) and predicted[1] > nearest[1] + 1
    assert found["profile_latents"][0] == pytest.approx(found["profile_latents"][1], abs=0.2)


def test_of_two_classes_neither_has_the_more_energy() -> None:
    rng = np.random.default_rng(0)
    fit = images(4 * np.eye(12)[:2], 120, rng)
    scores = OodScores(fit, [(f"class{n % 2}",) for n in range(120)], **SETTINGS).of(fit)
    first, second = scores["energy_raw"][::2].mean(), scores["energy_raw"][1::2].mean()
    assert first > 1 and first == pytest.approx(second, rel=0.1)
