"""Probes under a shift that is planted in the raw features and spares the latents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from vista.metrics.logistic import fit_logistic
from vista.metrics.ood_generalization.measure import (
    Answers,
    OodGeneralizationResult,
    Probes,
    Representation,
    anova_f,
    ood_generalization,
)

CLASSES = ("ant", "bee", "cow", "doe")
LATENTS, RAW, RANDOM = (Representation(space) for space in ("latents", "raw", "random"))


class Planted(NamedTuple):
    vectors: dict[str, np.ndarray]
    class_n: np.ndarray


def planted(n: int, seed: int, classes: Sequence[str] = CLASSES, shift: float = 0) -> Planted:
    """Latents 1 to 4 are the classes, beside two of noise and one that never fires; `shift` goes
    along the raw direction that tells the first two classes apart. Random ones tell nothing."""
    rng = np.random.default_rng(seed)
    name_n = np.array(classes)[np.arange(n) % len(classes)]
    hot = (name_n[:, None] == np.array(CLASSES)).astype(float)
    raw = 3 * hot + rng.normal(0, 0.3, (n, 4)) + shift * np.array([1, -1, 0, 0])
    latents = np.concatenate([rng.random((n, 1)), hot, rng.random((n, 1)), np.zeros((n, 1))], 1)
    return Planted({"latents": latents, "raw": raw, "random": rng.random((n, 6))}, name_n)


@pytest.fixture(scope="module")
def result() -> OodGeneralizationResult:
    fit = planted(122, 0)
    sets = {"all": planted(40, 2, shift=4), "some": planted(30, 3, ("bee", "cow"))}
    inside = planted(80, 1)
    # One of the classes that `some` lacks is always taken for another.
    inside.vectors["latents"][inside.class_n == "doe"] = [0, 1, 0, 0, 0, 0, 0]
    probes = Probes(*fit, sizes=(4, 2), regularisation=1.0, iterations=100)
    judged = {
        name: Answers(each.class_n, probes.right(*each))
        for name, each in {"inside": inside, **sets}.items()
    }
    own = judged.pop("inside")
    return ood_generalization(fit.class_n, own, judged, seed=0, resamples=200, level=0.95)


def test_latents_keep_what_raw_features_lose(result: OodGeneralizationResult) -> None:
    inside, shifted = result.inside.accuracy, result.sets["all"]
    assert inside[LATENTS].value == 0.75 and inside[RAW].value == 1
    # The two best latents name their two classes, and one more at most by its silence.
    assert 0.5 <= inside[Representation("latents", 2)].value <= 0.75
    assert (
        inside[Representation("pca", 2)].value is not None
        and inside[Representation("pca", 2)].value > 0.5
    )
    assert (
        shifted.accuracy[LATENTS].value == shifted.accuracy[Representation("latents", 4)].value == 1
    )
    # Bees, and whatever is pulled towards ants, are taken for ants.
    assert shifted.accuracy[RAW].value <= 0.75
    assert shifted.drop[RAW].value == pytest.approx(1 - shifted.accuracy[RAW].value)
    assert shifted.drop[RAW].ci_low > 0.1
    for rival, gain in shifted.gain.items():
        assert gain.value == pytest.approx(1 - shifted.accuracy[rival].value)
    assert shifted.accuracy[RANDOM].value < 0.6
    assert inside[RAW].chance == shifted.accuracy[RAW].chance == 0.25


def test_a_set_is_compared_on_the_classes_that_it_has(result: OodGeneralizationResult) -> None:
    some = result.sets["some"]
    assert (some.n_classes, some.accuracy[LATENTS].n) == (2, 30)
    # Ants, most frequent in fitting, are none of its classes.
    assert some.accuracy[LATENTS].chance == 0.5
    assert some.accuracy[LATENTS].value == 1
    assert some.drop[LATENTS].value == 0


def test_rows_and_what_is_left_out(result: OodGeneralizationResult) -> None:
    rows = {(row.metric, row.of, row.k, row.set): row for row in result.figures()}
    probes = {LATENTS, RAW, RANDOM, Representation("pca", 2), Representation("raw", 2)}
    probes |= {Representation(space, k) for space in ("latents", "random") for k in (2, 4)}
    # Of four raw channels, the four best are all.
    assert set(result.inside.accuracy) == probes
    assert {("probe_drop", *probe, "some") for probe in probes} < set(rows)
    assert rows["probe_accuracy", "latents", None, None].n == 80
    assert rows["probe_gain", "raw", None, None].value == -0.25
    keys = {"latents", "latents_2", "latents_4", "raw", "raw_2", "pca_2"}
    keys |= {"random", "random_2", "random_4"}
    assert set(json.loads(result.model_dump_json())["inside"]["accuracy"]) == keys
    assert len(rows) == 11 + 2 * (11 + 9)


def test_columns_are_ranked_as_scikit_learn_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.feature_selection import f_classif

    monkeypatch.setattr("vista.metrics.ood_generalization.measure._COLUMNS", 3)
    one = planted(50, 0)
    latents = one.vectors["latents"][:, [0, 5, 6]] + [0, 0, 7]
    found = anova_f(latents, one.class_n)
    np.testing.assert_allclose(found[:2], f_classif(latents[:, :2], one.class_n)[0])
    assert found[2] == -1
    # Constant within every class: nothing ranks higher.
    assert np.argsort(-anova_f(one.vectors["latents"], one.class_n))[:4].min() == 1


def test_probes_standardise_by_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, judged = planted(50, 0), planted(20, 1)
    whole, parts = (
        fit_logistic(fit.vectors["raw"] + 9, fit.class_n, regularisation=1, iterations=50)
        for _ in (monkeypatch.setattr("vista.metrics.logistic._ROWS", rows) for rows in (50, 7))
    )
    np.testing.assert_allclose(whole[0].mean_, np.mean(fit.vectors["raw"] + 9, axis=0), rtol=1e-6)
    np.testing.assert_allclose(parts[0].scale_, whole[0].scale_, rtol=1e-5)
    x_nd = judged.vectors["raw"] + 9
    np.testing.assert_allclose(
        parts.decision_function(x_nd), whole.decision_function(x_nd), rtol=1e-3, atol=1e-3
    )
