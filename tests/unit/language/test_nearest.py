"""Nearest words by cosine against a brute-force reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and tokens in many chunks, the last ones shorter."""
    from vista.language import nearest

    monkeypatch.setattr(nearest, "_ROWS", 7)
    monkeypatch.setattr(nearest, "_CELLS", 100)


def cosines(tokens_nd: Any, rows_vd: Any) -> Any:
    tokens, rows = (np.asarray(x, np.float64) for x in (tokens_nd, rows_vd))
    norms = np.linalg.norm(tokens, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    return tokens @ rows.T / norms


@pytest.mark.usefixtures("small_chunks")
def test_the_nearest_row_is_that_of_the_largest_cosine() -> None:
    import torch

    from vista.language.nearest import nearest_words

    generator = torch.Generator().manual_seed(0)
    tokens_nd = torch.randn(53, 5, generator=generator)
    # Long rows would win by their product, short ones by their distance.
    embedding_vd = torch.randn(40, 5, generator=generator) * torch.logspace(-3, 3, 40)[:, None]
    cosine_nv = cosines(tokens_nd, embedding_vd)
    assert nearest_words(tokens_nd, embedding_vd).tolist() == cosine_nv.argmax(axis=1).tolist()
    among_v = torch.arange(40) % 3 == 1
    cosine_nv[:, ~among_v.numpy()] = -2
    among = nearest_words(tokens_nd, embedding_vd, among_v)
    assert among.tolist() == cosine_nv.argmax(axis=1).tolist()


def test_a_long_vector_does_not_win() -> None:
    import torch

    from vista.language.nearest import WordVectors, nearest_by_word, nearest_words

    tokens_nd = torch.tensor([[1.0, 0.1]])
    rows_vd = torch.tensor([[0.01, 0.001], [100.0, 100.0], [0.0, 0.0]])
    assert nearest_words(tokens_nd, rows_vd).tolist() == [0]
    words = nearest_by_word(tokens_nd, WordVectors(rows_vd, torch.tensor([1, 2, 3]), 4), 3)
    assert words.word_nk.tolist() == [[1, 2, 3]]
    np.testing.assert_allclose(words.cosine_nk, [[1, 1.1 / 2.02**0.5, 0]], rtol=1e-5)


def test_of_equal_rows_the_first_counts() -> None:
    import torch

    from vista.language.nearest import nearest_words

    rows_vd = torch.tensor([[0.0, 1.0], [2.0, 0.0], [2.0, 0.0]])
    assert nearest_words(torch.tensor([[3.0, 0.0]]), rows_vd).tolist() == [1]
    assert nearest_words(torch.zeros(0, 2), rows_vd).tolist() == []


@pytest.mark.usefixtures("small_chunks")
def test_a_word_is_as_near_as_its_nearest_vector_and_is_read_once() -> None:
    import torch

    from vista.language.nearest import WordVectors, nearest_by_word

    generator = torch.Generator().manual_seed(1)
    tokens_nd = torch.randn(31, 4, generator=generator)
    rows_vd = torch.randn(60, 4, generator=generator).to(torch.float16)
    word_v = torch.randint(0, 9, (60,), generator=generator)
    nearest = nearest_by_word(tokens_nd, WordVectors(rows_vd, word_v, 12), 5)
    cosine_nv = cosines(tokens_nd, rows_vd)
    cosine_nv[:, word_v.numpy() == 0] = -2  # no word
    for n, row in enumerate(cosine_nv):
        best: dict[int, float] = {}
        for v in np.argsort(-row):
            best.setdefault(int(word_v[v]), row[v])
        first = list(best.items())[:5]
        assert nearest.word_nk[n].tolist() == [word for word, _ in first]
        np.testing.assert_allclose(nearest.cosine_nk[n], [c for _, c in first], atol=1e-6)
        assert nearest.row_n[n] == row.argmax()


def test_what_cannot_be_searched_is_refused() -> None:
    import torch

    from vista.language.nearest import WordVectors, nearest_by_word, nearest_words

    rows_vd = torch.ones(3, 4)
    with pytest.raises(ValueError, match="tokens of width 5, rows of 4"):
        nearest_words(torch.ones(2, 5), rows_vd)
    with pytest.raises(ValueError, match="no row"):
        nearest_words(torch.ones(2, 4), rows_vd, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="no vector has a word"):
        nearest_by_word(torch.ones(2, 4), WordVectors(rows_vd, torch.zeros(3).long(), 2), 1)
    with pytest.raises(ValueError, match="one word each"):
        WordVectors(rows_vd, torch.zeros(2).long(), 2)
