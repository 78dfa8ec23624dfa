"""Labels: planted latents whose density, share, label and contexts are known exactly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from vista.config.sae import LabelSettings, TextPass
from vista.errors import UserError
from vista.judges.words import singulars
from vista.sae import neutral
from vista.sae.activations import TextBatch, text_activations
from vista.sae.label_scores import LabelScores, scored_labels
from vista.sae.label_table import LatentLabels, read_labels, write_labels
from vista.sae.labels import (
    TopContexts,
    WordMass,
    batch_words,
    label_latents,
    snippet,
    word_groups,
)
from vista.sae.neutral import SaeConfig, SparseAutoencoder


def planted(llm: Any, word: str, texts: list[str]) -> SparseAutoencoder:
    """Latent 0 fires on `word` and nothing else, latent 1 on every token, latent 2 never."""
    batches = list(text_activations(llm, texts, 0, TextPass()))
    x = torch.cat([batch.stream_nd for batch in batches])
    ids = np.concatenate([batch.ids_n for batch in batches])
    wanted = torch.from_numpy(ids == llm.tokenizer.convert_tokens_to_ids(word))
    design = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    w = torch.linalg.lstsq(design, wanted.float()[:, None]).solution[:, 0]
    score = design @ w
    assert score[wanted].min() > score[~wanted].max(), "the word must be linearly readable"
    threshold = float(score[wanted].min() + score[~wanted].max()) / 2
    zero = torch.zeros(32)
    config = SaeConfig("jumprelu", 32, 3, 0, "planted", subtract_decoder_bias=False)
    return SparseAutoencoder(
        config,
        {
            "W_enc": torch.stack([w[:-1], zero, zero], dim=1),
            "b_enc": torch.tensor([float(w[-1]), 1.0, -1.0]),
            "threshold": torch.tensor([threshold, 0.5, 0.5]),
            "W_dec": torch.zeros(3, 32),
            "b_dec": zero,
        },
    )


def test_planted_latents(llm: Any, texts: list[str]) -> None:
    words = " ".join(texts).split()
    labels = label_latents(llm, planted(llm, "noun3", texts), texts, LabelSettings(contexts=4))
    assert labels.label_s == ("noun3", None, None)
    assert labels.tokens == len(words)
    share = words.count("noun3") / len(words)
    np.testing.assert_allclose(labels.density_s, [share, 1.0, 0.0], rtol=1e-6)
    counts = [words.count(word) for word in set(words)]
    np.testing.assert_allclose(labels.share_s, [1.0, max(counts) / len(words), 0.0], rtol=1e-5)
    assert labels.layer == 0
    assert [len(contexts) for contexts in labels.contexts_s] == [4, 4, 0]
    assert all("«noun3»" in context for context in labels.contexts_s[0])
    values = [float(context.split(":")[0]) for context in labels.contexts_s[0]]
    assert values == sorted(values, reverse=True)


def test_a_wide_dictionary_is_labelled_in_parts(
    llm: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = planted(llm, "noun3", texts)
    whole = label_latents(llm, sae, texts, LabelSettings())
    monkeypatch.setattr(neutral, "_DENSE_CELLS", 40 * 3)
    parts = label_latents(llm, sae, texts, LabelSettings())
    assert parts.label_s == whole.label_s
    assert parts.contexts_s == whole.contexts_s
    np.testing.assert_allclose(parts.share_s, whole.share_s, rtol=1e-6)
    np.testing.assert_array_equal(parts.density_s, whole.density_s)


def test_the_share_setting_decides_whether_a_label_stands(llm: Any, texts: list[str]) -> None:
    sae = planted(llm, "noun3", texts)
    loose = label_latents(llm, sae, texts, LabelSettings(min_share=0.05))
    assert loose.label_s[0] == "noun3"
    assert loose.label_s[1] is not None  # the most frequent word has more than 5 % of the tokens
    assert loose.label_s[2] is None


def test_same_bytes_twice(llm: Any, texts: list[str], tmp_path: Path) -> None:
    sae = planted(llm, "noun1", texts)
    for name in ("a", "b"):
        write_labels(tmp_path / name, label_latents(llm, sae, texts, LabelSettings()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bounded_word_mass_keeps_the_heaviest_word() -> None:
    rng = np.random.default_rng(0)
    exact, bounded = WordMass(3), WordMass(3, max_cells=1600)
    for _ in range(20):
        words = [f"w{i}" for i in rng.integers(60, size=40)]
        words[:10] = ["king"] * 10
        z = torch.from_numpy(rng.random((40, 3)))
        exact.add(z, words)
        bounded.add(z, words)
    exact_labels, exact_share = exact.labels(0.2, strong=0)
    labels, share = bounded.labels(0.2, strong=0)
    assert labels == exact_labels == ("king",) * 3
    np.testing.assert_allclose(share, exact_share, rtol=0.3)


def test_word_mass_weighs_by_activation_and_breaks_ties_by_spelling() -> None:
    mass = WordMass(2)
    mass.add(torch.tensor([[1.0, 1.0], [1.0, 1.0], [5.0, 0.0], [0.0, 2.0]]), ["b", "b", "c", "a"])
    labels, share = mass.labels(0.5, strong=0)
    assert labels == ("c", "a")
    np.testing.assert_allclose(share, [5 / 7, 0.5])


def test_only_strong_activations_decide() -> None:
    """A word's latent fires faintly on a hundred neighbours; they must not name it."""
    z = torch.tensor([[9.0]] * 4 + [[5.0]] * 2 + [[1.0]] * 100)
    mass = WordMass(1)
    for part in z.split(7):  # in any number of batches
        mass.add(part, ["cup" if v > 8 else "mug" if v > 4 else "the" for v in part[:, 0]])
    assert mass.labels(0.5, strong=0)[0] == ("the",)
    labels, share = mass.labels(0.5, strong=0.5)
    assert labels == ("cup",)
    np.testing.assert_allclose(share, [36 / 46])  # 5 is more than half of 9
    np.testing.assert_allclose(mass.labels(0.5, strong=0.75)[1], [1.0])


def test_contexts_come_from_different_documents() -> None:
    top = TopContexts(1, contexts=2)
    batch = TextBatch(
        stream_nd=torch.zeros(5, 1),
        ids_n=np.zeros(5, dtype=np.int64),
        document_n=np.array([0, 0, 0, 1, 1]),
        span_n2=np.array([[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]),
        place_n=np.arange(5),
    )
    top.add(torch.tensor([[9.0], [8.0], [7.0], [1.0], [2.0]]), batch)
    assert top.snippets(["a b c", "d e"], 10) == (("9: «a» b c", "2: d «e»"),)


def test_subword_tokens_count_as_their_word() -> None:
    text = "Red cats, don't"
    spans = [(0, 1), (1, 3), (3, 6), (6, 8), (8, 9), (9, 13), (13, 14), (14, 15), (0, 0), (15, 15)]
    batch = TextBatch(
        torch.zeros(len(spans), 1),
        np.zeros(len(spans), dtype=np.int64),
        np.zeros(len(spans), dtype=np.int64),
        np.array(spans),
        np.arange(len(spans)),
    )
    # " ca" + "ts" is one word; the leading space of a token is not part of it.
    expected = ["red", "red", "cats", "cats", ",", "don", "'", "t", "<bos>", "<eos>"]
    assert batch_words(batch, [text]) == expected


def test_snippets_hold_no_control_characters() -> None:
    text = "abc\x1b[31m\n\u202edef target \x00tail" + "x" * 100
    start = text.index("target")
    found = snippet(text, start - 1, start + 6, 7)
    assert found == "…1m def «target»  tailx…"


def test_table_round_trip_and_refusals(tmp_path: Path) -> None:
    labels = LatentLabels(
        layer=2,
        sae="llama",
        tokens=7,
        label_s=("cat", None),
        share_s=np.array([0.9, 0.1], dtype=np.float32),
        density_s=np.array([0.01, 0.5], dtype=np.float32),
        contexts_s=(("1: a «cat»",), ()),
    )
    path = tmp_path / "labels.parquet"
    write_labels(path, labels)
    again = read_labels(path)
    assert (again.layer, again.sae, again.tokens) == (2, "llama", 7)
    assert (again.label_s, again.contexts_s) == (labels.label_s, labels.contexts_s)
    np.testing.assert_array_equal(again.share_s, labels.share_s)
    assert pq.read_schema(path).names == ["latent", "label", "share", "density", "contexts"]

    pq.write_table(pa.table({"latent": [0]}), path)
    with pytest.raises(UserError, match=r"labels\.parquet"):
        read_labels(path)
    path.write_bytes(b"no table")
    with pytest.raises(UserError, match=r"labels\.parquet"):
        read_labels(path)


def test_a_latent_of_the_first_letters_is_not_labelled_with_a_whole_word() -> None:
    texts = ["pizza pizzicato Pizza"]
    spans = [(0, 4), (4, 5), (6, 10), (10, 15), (16, 20), (20, 21)]
    batch = TextBatch(
        torch.zeros(6, 1),
        np.zeros(6, dtype=np.int64),
        np.zeros(6, dtype=np.int64),
        np.array(spans),
        np.arange(6),
    )
    assert batch_words(batch, texts)[:3] == ["pizza", "pizza", "pizzicato"]
    whole = batch_words(batch, texts, whole_words=True)
    assert whole == ["pizz-", "pizza", "pizz-", "pizzicato", "pizz-", "pizza"]
    # Latent 0 fires on the first letters of all three, latent 1 where pizza ends.
    z = torch.tensor([[3.0, 0], [0, 3], [2, 0], [0, 0], [3, 0], [0, 3]])
    loose, strict = WordMass(2), WordMass(2)
    loose.add(z, batch_words(batch, texts))
    strict.add(z, whole)
    assert loose.labels(0.5, strong=0)[0] == ("pizza", "pizza")
    assert strict.labels(0.5, strong=0)[0] == ("pizz-", "pizza")
    assert word_groups(batch, texts)[0].tolist() == [0, 0, 1, 1, 2, 2]
    assert word_groups(batch, texts)[1] == ["pizza", "pizzicato", "pizza"]


def test_spellings_of_one_word_share_its_mass() -> None:
    texts = ["CAR Car car cars cars bus buses news new"]
    starts = np.array([m.start() for m in re.finditer(r"\w+", texts[0])])
    ends = np.array([m.end() for m in re.finditer(r"\w+", texts[0])])
    batch = TextBatch(
        torch.zeros(9, 1),
        np.zeros(9, dtype=np.int64),
        np.zeros(9, dtype=np.int64),
        np.stack([starts, ends], axis=1),
        np.arange(9),
    )
    words = batch_words(batch, texts)
    assert words[:4] == ["car", "car", "car", "cars"]
    #                    CAR  Car  car cars cars bus buses news new
    z = torch.tensor([[1.0, 1, 1, 4, 0, 0, 0, 0, 4], [0, 0, 0, 0, 0, 1, 2, 0, 1]]).T
    mass = WordMass(2)
    mass.add(z, words)
    assert mass.labels(0.6, strong=0)[0] == (None, None)
    labels, share = mass.labels(0.6, strong=0, plurals=True)
    assert labels == ("cars", "buses")  # the forms that hold more
    np.testing.assert_allclose(share, [7 / 11, 3 / 4])
    assert singulars(words) == {"cars": "car", "buses": "bus"}


def scored(values: list[list[float]], words: list[str], labels: list[str | None]) -> Any:
    """AUROC of latents with such labels that fire so on words of one token each."""
    scores = LabelScores(labels, plurals=True)
    z = torch.tensor(values)
    half = len(words) // 2
    for part in (slice(0, half), slice(half, len(words))):  # in any number of batches
        scores.add(z[part], np.arange(len(words[part])), words[part])
    return scores.auroc()


def test_auroc_of_planted_and_random_latents() -> None:
    rng = np.random.default_rng(0)
    words = [str(w) for w in rng.choice(["car", "cars", "the", "of", "sky"], size=4000)]
    is_car = np.array([word.startswith("car") for word in words])
    noise = np.where(rng.random(4000) < 0.3, rng.random(4000), 0.0)
    half = np.where(is_car & (rng.random(4000) < 0.5), 1.0, 0.0)
    values = np.stack([is_car * 2.0, noise, half, 1.0 - is_car, noise, noise], axis=1)
    labels = ["car", "car", "car", "cars", None, "zebra"]
    auroc = scored(values.astype(np.float32).tolist(), words, labels)
    np.testing.assert_allclose(auroc[[0, 1, 2, 3]], [1.0, 0.5, 0.75, 0.0], atol=0.03)
    assert auroc[0] == 1.0
    assert np.isnan(auroc[4])  # no label
    assert np.isnan(auroc[5])  # its word does not occur


def test_a_word_of_several_tokens_is_scored_once_by_its_largest_activation() -> None:
    scores = LabelScores(["pizza"], plurals=False)
    z = torch.tensor([[0.0], [2.0], [1.0], [0.0], [0.0]])
    scores.add(z, np.array([0, 0, 1, 1, 2]), ["pizza", "pizzicato", "the"])
    np.testing.assert_allclose(scores.auroc(), [1.0])
    scores.add(z, np.array([0, 0, 1, 1, 2]), ["pizzicato", "pizza", "the"])
    # 2 and 1 against 2, 1, 0, 0: the false positive counts.
    np.testing.assert_allclose(scores.auroc(), [(3.5 + 2.5) / 8])


def test_labels_are_scored_on_heldout_text(llm: Any, texts: list[str], tmp_path: Path) -> None:
    sae = planted(llm, "noun3", texts)
    settings = LabelSettings(min_share=0.05, score_tokens=500, min_auroc=0.8)
    plain = label_latents(llm, sae, texts[:80], settings)
    assert plain.auroc_s is None
    assert plain.label_s[1] is not None  # a latent that fires on every token has a label, too
    batches = text_activations(llm, texts[80:], sae.config.layer, settings.text, 500)
    labels = scored_labels(plain, batches, sae, texts[80:], settings)
    assert labels.label_s == ("noun3", None, None)
    assert labels.auroc_s is not None
    np.testing.assert_allclose(labels.auroc_s, [1.0, 0.5, np.nan], atol=1e-6)
    path = tmp_path / "labels.parquet"
    write_labels(path, labels)
    again = read_labels(path).auroc_s
    assert again is not None
    np.testing.assert_array_equal(again, labels.auroc_s)


def test_a_bound_on_scores_needs_scores() -> None:
    with pytest.raises(ValueError, match="set `score_tokens` above 0"):
        LabelSettings(min_auroc=0.6)
