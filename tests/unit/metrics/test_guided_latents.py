"""Latents as classifiers: AUROC of sparse codes, thresholds, figures with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_matrix
from sklearn.metrics import f1_score, roc_auc_score

from vista.config.vision_sae import VisionSaeEntry
from vista.errors import UserError
from vista.metrics.guided_latents.measure import (
    Scored,
    auroc_of,
    best_latents,
    best_threshold,
    compare,
    f1_at_best,
    f1_of_latents,
    paired_auroc,
)
from vista.metrics.guided_latents.plan import counterpart


def sparse_scores(seed: int, n: int = 200, s: int = 7) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    # Few distinct values, so that firings tie as well as silent patches.
    return rng.integers(1, 5, (n, s)) * (rng.random((n, s)) < 0.3)


def test_auroc_is_that_of_scikit_learn() -> None:
    score_ns = sparse_scores(0)
    positive_nm = np.random.default_rng(1).random((200, 3)) < 0.2
    found = auroc_of(csc_matrix(score_ns.astype(np.float32)), positive_nm)
    expected = [[roc_auc_score(y, score) for y in positive_nm.T] for score in score_ns.T]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(paired_auroc(score_ns[:, :3], positive_nm), np.diag(found[:3]))
    assert np.isnan(auroc_of(csc_matrix(score_ns), np.zeros((200, 1), dtype=bool))).all()


def test_the_threshold_has_the_largest_f1() -> None:
    score_n = sparse_scores(2)[:, 0]
    positive_n = score_n + np.random.default_rng(3).normal(0, 2, 200) > 2
    bound = best_threshold(score_n, positive_n)
    of = {value: f1_score(positive_n, score_n >= value) for value in np.unique(score_n)}
    assert of[bound] == max(of.values())
    with pytest.raises(ValueError, match="a patch that has the concept"):
        best_threshold(score_n, np.zeros(200, dtype=bool))


def test_thresholds_and_latents_come_from_the_choice_split() -> None:
    truth_nm = np.zeros((200, 1), dtype=bool)
    truth_nm[::4] = True
    choice, test = (np.zeros((200, 2)) for _ in range(2))
    choice[:, 0], test[:, 1] = truth_nm[:, 0], truth_nm[:, 0]
    codes = csc_matrix(choice), csc_matrix(test)
    latent_m, (auroc_m, f1_m) = best_latents(codes, truth_nm, truth_nm)
    assert latent_m.tolist() == [0]
    # On the test split that latent never fires: no patch reaches its threshold.
    assert (auroc_m.tolist(), f1_m.tolist()) == ([0.5], [0.0])
    assert f1_at_best(Scored(choice, choice), truth_nm, truth_nm).tolist() == [1.0]


def test_f1_of_latents_is_that_of_the_best_threshold_above_zero() -> None:
    score_ns = sparse_scores(4)
    positive_nm = np.random.default_rng(5).random((200, 3)) < 0.2
    found_sm = f1_of_latents(csc_matrix(score_ns.astype(np.float32)), positive_nm)
    for s, c in np.ndindex(found_sm.shape):
        scores = [f1_score(positive_nm[:, c], score_ns[:, s] >= bound) for bound in (1, 2, 3, 4)]
        assert found_sm[s, c] == pytest.approx(max(scores))
    assert f1_of_latents(csc_matrix(np.zeros((200, 2))), positive_nm).tolist() == [[0.0] * 3] * 2


def test_each_figure_is_of_the_latent_that_was_chosen_by_it() -> None:
    rng = np.random.default_rng(6)
    truth_n = np.arange(1000) < 20
    # One latent fires on all of the concept and on half of the rest, one on half of it alone.
    wide_n = truth_n | (rng.random(1000) < 0.5)
    sharp_n = truth_n & (np.arange(1000) % 2 == 0)
    code = csc_matrix(np.stack([wide_n, sharp_n], axis=1).astype(np.float32))
    latent_m, (auroc_m, f1_m) = best_latents((code, code), truth_n[:, None], truth_n[:, None])
    assert latent_m.tolist() == [0] and auroc_m[0] == pytest.approx(0.75, abs=0.02)
    assert f1_m[0] == pytest.approx(2 / 3)


def test_figures() -> None:
    rng = np.random.default_rng(0)
    scores = {
        "defined": (np.full(40, 0.9), np.full(40, 0.6)),
        "probe": (rng.uniform(0.6, 0.8, 40), rng.uniform(0.2, 0.4, 40)),
    }
    spread = rng.uniform(50, 60, 80)
    errors = (0.2 * spread, 0.15 * spread, spread)
    truth_nm = np.arange(400)[:, None] % np.full(40, 4) == 0
    result = compare(scores, {}, errors, truth_nm, layer=2)
    assert result.explained_variance["guided"].value == pytest.approx(0.8)
    assert result.variance_difference.value == pytest.approx(-0.05)
    assert result.f1["defined"].chance == pytest.approx(0.4)
    gain = result.auroc_difference["probe"]
    assert gain.value == pytest.approx(0.9 - scores["probe"][0].mean())
    assert gain.ci_low is not None and 0.15 < gain.ci_low < gain.value and gain.n == 40
    rows = result.figures()
    assert {row.layer for row in rows} == {2}
    assert not any(row.metric.startswith("guided_left_out") for row in rows)


def test_counterparts_differ_in_the_guide_alone() -> None:
    def entry(k: int = 4, **guide: Any) -> VisionSaeEntry:
        return VisionSaeEntry.model_validate(
            {"train": {"k": k}, **({"guide": guide} if guide else {})}
        )

    entries = {
        "other": entry(8),
        "left": entry(left_out=2, shuffle_labels=True),
        "plain": entry(),
        "guided": entry(left_out=1),
        "shuffled": entry(left_out=1, shuffle_labels=True, name_latents=False),
    }
    assert counterpart(entries, "guided", None, "plain") == "plain"
    assert counterpart(entries, "guided", None, "shuffled") == "shuffled"
    assert counterpart(entries, "guided", "plain", "plain") == "plain"
    del entries["shuffled"]
    assert counterpart(entries, "guided", None, "shuffled") is None
    for name, role in (("other", "plain"), ("left", "shuffled"), ("nothing", "plain")):
        with pytest.raises(UserError, match=f"guided_latents.{role} is '{name}'"):
            counterpart(entries, "guided", name, role)
