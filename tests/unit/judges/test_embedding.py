"""The embedding judge: pooling as defined, thresholds worked out by hand, a model on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vista.errors import UserError
from vista.judges import Resources, load_judge
from vista.judges.kinds.embedding import EmbeddingJudge, fit_threshold
from vista.judges.kinds.embedding import Settings as EmbeddingJudgeSettings

WORDS = ["cat", "dog", "a", "the", "red", "sofa"]


def settings(folder: Path, **changes: Any) -> EmbeddingJudgeSettings:
    source = {"kind": "checkpoint", "path": str(folder)}
    return EmbeddingJudgeSettings.model_validate({"source": source, **changes})


def test_cosine_of_mean_pooled_states(encoder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    judge = load_judge(settings(encoder, batch_size=2))
    assert isinstance(judge, EmbeddingJudge) and judge.name == f"embedding:{encoder.name}"
    texts, names = ["a red cat", "dog", None, "the the the sofa", "dog"], ["cat", "red dog", ""]
    found = judge.similarity(texts, names)
    model, tokenizer = AutoModel.from_pretrained(encoder), AutoTokenizer.from_pretrained(encoder)
    with torch.no_grad():
        for i, text in enumerate(texts):
            for j, name in enumerate(names):
                if not text or not name:
                    assert found[i, j] == -np.inf
                    continue
                # One at a time, so without padding: the mean over all tokens.
                one, other = (
                    model(**tokenizer(each, return_tensors="pt")).last_hidden_state[0].mean(0)
                    for each in (text, name)
                )
                cosine = torch.nn.functional.cosine_similarity(one, other, dim=0)
                assert found[i, j] == pytest.approx(float(cosine), abs=1e-5)
    assert judge.similarity(["cat"], ["cat"])[0, 0] == pytest.approx(1, abs=1e-5)


def test_from_a_fetched_folder_and_in_pieces_the_same(encoder: Path) -> None:
    other = settings(Path("/nowhere/model"), threshold=0.5, batch_size=1, max_tokens=8)
    judge = load_judge(other, Resources(model=str(encoder)))
    whole = load_judge(settings(encoder, threshold=0.5))
    texts = ["a red cat", "dog", "", "a red dog sofa"]
    assert (judge.judge(texts, WORDS) == whole.judge(texts, WORDS)).all()
    assert not whole.judge(["", None], ["cat"]).any()
    assert whole.judge(["\ud800 cat"], ["\ud800 cat"]).all()
    assert whole.judge([], ["cat"]).shape == (0, 1) and whole.judge(["cat"], []).shape == (1, 0)


def test_no_threshold_or_no_model_is_told(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"judge\.threshold"):
        load_judge(settings(encoder)).judge(["cat"], ["cat"])
    with pytest.raises(UserError, match=r"judge\.source: .*could not be loaded"):
        load_judge(settings(tmp_path))


def planted(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors at the angles, in degrees, that the texts name."""
    angles = np.radians([float(text) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_fitted_threshold_parts_the_development_pairs() -> None:
    judge = EmbeddingJudge(planted, None)
    texts, objects = ["0", "10", "80", "90"], ["5", "85"]
    truth = np.array([[True, False], [True, False], [False, True], [False, True]])
    fitted, threshold = judge.fit(texts, objects, truth)
    assert (threshold.precision, threshold.recall, threshold.f1) == (1, 1, 1)
    assert (threshold.n, threshold.n_named) == (8, 4)
    # Half way between the cosines of 5 and of 75 degrees.
    middle = (np.cos(np.radians(5)) + np.cos(np.radians(75))) / 2
    assert threshold.value == pytest.approx(middle, abs=1e-6)
    assert (fitted.judge(texts, objects) == truth).all()
    assert judge.threshold is None


def test_f1_not_balanced_accuracy_is_maximised() -> None:
    # Two pairs of a hundred belong together. Taking in the second, too, costs eight wrong ones:
    # 8 of 98 others are little to balanced accuracy, and four fifths of what would be accepted.
    score = np.array([0.9, *[0.7] * 8, 0.6, *[0.1] * 90])
    truth = np.array([True, *[False] * 8, True, *[False] * 90])
    found = fit_threshold(score, truth)
    assert found.value == pytest.approx(0.8)
    assert (found.precision, found.recall) == (1, 0.5)
    assert found.f1 == pytest.approx(2 / 3)
    assert (found.n, found.n_named) == (100, 2)


def test_f1_not_precision_alone_is_maximised() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, *[0.1] * 20])
    truth = np.array([True, False, True, True, *[False] * 20])
    found = fit_threshold(score, truth)
    assert found.value == pytest.approx(0.35)
    assert found.precision == pytest.approx(3 / 4) and found.recall == 1
    assert found.f1 == pytest.approx(6 / 7)


def test_ties_go_to_the_higher_threshold_whatever_the_order() -> None:
    # F1 is 2/3 after the first pair (1 of 1, 1 of 2) and after the fourth (2 of 4, 2 of 2).
    score = np.array([0.9, 0.7, 0.5, 0.4, 0.3])
    truth = np.array([True, False, False, True, False])
    expected = fit_threshold(score, truth)
    assert expected.value == pytest.approx(0.8)
    for order in ([4, 3, 1, 0, 2], [2, 4, 0, 1, 3]):
        assert fit_threshold(score[order], truth[order]) == expected


def test_nothing_to_fit_on() -> None:
    with pytest.raises(UserError, match=r"names;"):
        fit_threshold(np.array([0.1, 0.2]), np.array([False, False]))
    with pytest.raises(UserError, match=r"does not name;"):
        fit_threshold(np.array([0.1, -np.inf]), np.array([True, False]))
    with pytest.raises(UserError, match="equally similar"):
        fit_threshold(np.array([0.1, 0.1]), np.array([True, False]))
    with pytest.raises(ValueError, match="shapes"):
        fit_threshold(np.array([0.1]), np.array([[True]]))
