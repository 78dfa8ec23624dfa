"""Dictionaries compared in pairs: planted copies, noise, sizes, labels; the stage, the report."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from vista.config.metrics import BootstrapSettings
from vista.config.report import ReportSettings
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.metrics.figure import Figure
from vista.metrics.results import read_figures
from vista.metrics.sae_stability.measure import (
    Dictionary,
    PairStability,
    compare_pair,
    match_rows,
    random_like,
    sae_stability,
    unit_rows,
)
from vista.metrics.sae_stability.report import SHOWN
from vista.metrics.sae_stability.stage import run
from vista.report.contents import all_sections
from vista.report.shown import Measured, MetricPlace
from vista.report.table import LongTable
from vista.sae.label_table import FILE, LatentLabels, write_labels
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae

BOOTSTRAP = BootstrapSettings(resamples=200).model_dump()
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((60, 32))


def dictionary(rows: Any, labels: Any = None, name: str = "a", **recipe: Any) -> Dictionary:
    labels = [None] * len(rows) if labels is None else labels
    return Dictionary(name, "topk", len(rows), np.asarray(rows), labels, recipe)


def pair(first: Dictionary, second: Dictionary, min_cosine: float = 0.7) -> PairStability:
    return compare_pair(first, second, min_cosine=min_cosine, seed=0, bootstrap=BOOTSTRAP)


def test_a_permuted_copy_is_found_whole() -> None:
    order = RNG.permutation(60)
    # Norms do not count.
    found = pair(dictionary(ROWS), dictionary(3 * ROWS[order]))
    assert found.cosine.value == pytest.approx(1) and found.mmcs.value == pytest.approx(1)
    assert (found.found.value, found.found.n) == (1, 60)
    assert found.found.ci_low is not None and 0.9 < found.found.ci_low < 1
    matched = match_rows(ROWS, ROWS[order])
    assert order[matched.second_m].tolist() == matched.first_m.tolist()


def test_opposite_directions_are_other_latents() -> None:
    """Of one row each, the match is forced: cosine -1."""
    found = pair(dictionary(ROWS[:1]), dictionary(-ROWS[:1]))
    assert found.cosine.value == pytest.approx(-1)
    assert found.found.value == 0


def test_noise_rows_give_a_known_share() -> None:
    noisy = ROWS.copy()
    noisy[:15] = np.random.default_rng(7).standard_normal((15, 32))
    found = pair(dictionary(ROWS), dictionary(noisy))
    assert found.found.value == 0.75
    assert found.cosine.value is not None and 0.75 < found.cosine.value < 0.9
    assert found.cosine.ci_low is not None and found.cosine.ci_low < found.cosine.value
    # The bound is a cosine: rows at 45 degrees are found from .7 on and not from .72 on.
    tilted = np.eye(8)[:4] + np.eye(8)[4:]
    exact = dictionary(np.eye(8)[:4])
    assert pair(exact, dictionary(tilted), 0.7).found.value == 1
    assert pair(exact, dictionary(tilted), 0.72).found.value == 0


def test_all_rows_of_the_smaller_dictionary_are_matched() -> None:
    some = [5, 17, 40]
    for first, second in ((ROWS, ROWS[some]), (ROWS[some], ROWS)):
        found = pair(dictionary(first), dictionary(second))
        assert (found.found.value, found.cosine.n) == (1, 3)
    assert match_rows(ROWS, ROWS[some]).first_m.tolist() == some
    assert match_rows(ROWS[some], ROWS).second_m.tolist() == some


def test_one_to_one_against_the_largest_cosine() -> None:
    """Two rows want one: the best assignment is found, not a greedy one; MMCS lets both have it."""
    first = np.array([[1.0, 0.0], [0.8, 0.6]])
    second = np.array([[1.0, 0.0], [-0.6, 0.8]])
    # Cosines [[1, -.6], [.8, 0]]: 1 + 0 is more than -.6 + .8.
    matched = match_rows(first, second)
    assert matched.second_m.tolist() == [0, 1]
    assert matched.cosine_m == pytest.approx([1, 0])
    assert matched.largest_m == pytest.approx([1, 0.8])
    # Cosines [[1, .94], [.94, .77]]: who takes the 1 first is left with .77.
    angles = np.radians([0, 20]), np.radians([0, -20])
    a, b = (np.stack([np.cos(t), np.sin(t)], axis=1) for t in angles)
    assert match_rows(a, b).second_m.tolist() == [1, 0]


def test_random_dictionaries_are_at_chance() -> None:
    rng = np.random.default_rng(3)
    first, second = (dictionary(rng.standard_normal((200, 32))) for _ in range(2))
    found = pair(first, second)
    for part in (found.cosine, found.mmcs):
        assert part.value == pytest.approx(part.chance, abs=0.02)
        # Far from 0: the best of many.
        assert part.value is not None and part.value > 0.3
    assert found.found.value == found.found.chance == 0
    assert found.random_matched["cosine"] == pytest.approx(found.cosine.value, abs=0.03)


def test_random_rows_with_the_second_moments() -> None:
    """Dictionaries that share a plane and nothing else are far above chance, and near to these."""
    rng = np.random.default_rng(4)
    scale = np.r_[np.full(2, 1.0), np.full(30, 0.05)]
    first, second = (rng.standard_normal((100, 32)) * scale for _ in range(2))
    found = pair(dictionary(first), dictionary(second))
    assert found.cosine.value is not None and found.cosine.chance is not None
    assert found.cosine.value > 0.8 > 0.5 > found.cosine.chance
    assert found.random_matched["cosine"] == pytest.approx(found.cosine.value, abs=0.1)
    drawn = random_like(np.repeat(first, 50, axis=0), np.random.default_rng(5))
    moment = unit_rows(first).T @ unit_rows(first) / len(first)
    assert drawn.T @ drawn / len(drawn) == pytest.approx(moment, abs=0.02)


def test_labels_of_matched_latents() -> None:
    order = np.random.default_rng(8).permutation(6)
    first = ["cat", "cat", "dog", None, "owl", "fox"]
    second = ["cat", "dog", "dog", "owl", None, "fox"]
    permuted = [second[i] for i in order]
    found = pair(dictionary(ROWS[:6], first), dictionary(ROWS[:6][order], permuted))
    label = found.label_agreement
    # Latents 0, 1, 2 and 5 have two labels; 1 differs.
    assert (label.value, label.n) == (0.75, 4)
    # cat .5 x .25, dog .25 x .5, fox .25 x .25.
    assert label.chance == pytest.approx(0.125 + 0.125 + 0.0625)
    none = pair(dictionary(ROWS[:6]), dictionary(ROWS[:6], first)).label_agreement
    assert (none.value, none.chance, none.n) == (None, None, 0)


def test_what_differs_between_two_recipes() -> None:
    a, b = dictionary(ROWS, k=5, seed=0), dictionary(ROWS, k=5, seed=1)
    assert pair(a, b).differ == ["seed"]
    assert pair(a, dictionary(ROWS, k=2, seed=1)).differ == ["k", "seed"]
    assert pair(a, dictionary(ROWS)).differ == []


def test_same_seed_same_result_and_shapes_are_checked() -> None:
    both = [dictionary(ROWS, name=name) for name in ("a", "b", "c")]
    options: dict[str, Any] = {"of_text": True, "layer": 2, "min_cosine": 0.7, "seed": 3}
    one, two = (sae_stability(both, **options, bootstrap=BOOTSTRAP) for _ in range(2))
    assert one == two
    assert [(p.first, p.second) for p in one.pairs] == list(combinations("abc", 2))
    with pytest.raises(ValueError, match="dictionaries"):
        match_rows(ROWS, ROWS[:, :5])
    with pytest.raises(ValueError, match="dictionaries"):
        match_rows(ROWS, ROWS[:0])


def published(results: Path, stage: str, name: str, write: Any, **settings: Any) -> Artifact:
    with publishing(results, stage, name, Provenance(stage, settings, {}, {}, {})) as work:
        assert work is not None
        write(work)
    return open_artifact(results / stage / name, stage)


def artifacts(
    root: Path, name: str, rows: Any, labels: Any, silent: int = 0, layer: int = 1
) -> Any:
    s, d = rows.shape
    rows_sd = torch.tensor(rows, dtype=torch.float32)
    weights = {"W_enc": rows_sd.T, "W_dec": rows_sd}
    weights |= {"b_enc": torch.zeros(s), "b_dec": torch.zeros(d)}
    sae = SparseAutoencoder(SaeConfig("standard", d, s, layer, name), weights)
    density = np.full(s, 0.1, np.float32)
    density[s - silent :] = 0
    table = LatentLabels(layer, name, 100, labels, np.ones(s, np.float32), density, ((),) * s)
    return (
        published(root, "import_sae", name, lambda work: save_sae(work, sae)),
        published(root, "label_latents", name, lambda work: write_labels(work / FILE, table)),
    )


def measured(tmp_path: Path, layer: int = 1, **features: Artifact) -> Path:
    """One dictionary, the same with three other latents that never fire, and half of it."""
    words = tuple(f"w{i}" for i in range(60))
    with_silent = np.concatenate([ROWS, -ROWS[:3]])
    parts = [
        artifacts(tmp_path, "one", ROWS, words),
        artifacts(tmp_path, "two", with_silent, (*words, None, None, None), 3, layer),
        artifacts(tmp_path, "half", ROWS[:30], words[:30]),
    ]
    saes, labels = (list(column) for column in zip(*parts, strict=True))
    recipe = {"architecture": "batchtopk", "k": 5, "seed": 0}
    named = [
        {"name": "one", "train": recipe},
        {"name": "two", "train": recipe | {"seed": 1}},
        {"name": "half", "train": None},
    ]
    work = tmp_path / "work"
    work.mkdir()
    inputs: Any = {"saes": saes, "labels": labels, **features}
    run(Job("sae_stability", {"dictionaries": named}, inputs, work))
    return work


def test_the_stage_leaves_out_latents_that_never_fire(tmp_path: Path) -> None:
    work = measured(tmp_path)
    result = json.loads((work / "result.json").read_text())
    sizes = [
        (d["name"], d["architecture"], d["d_sae"], d["compared"]) for d in result["dictionaries"]
    ]
    assert sizes == [
        ("one", "batchtopk", 60, 60), ("two", "batchtopk", 63, 60), ("half", "standard", 30, 30),
    ]  # fmt: skip
    artifact = published(
        tmp_path, "sae_stability", "it",
        lambda to: [(to / p.name).write_bytes(p.read_bytes()) for p in work.iterdir()],
    )  # fmt: skip
    figures = read_figures(artifact, stage="sae_stability", llm=None)
    cosine = [f for f in figures if f.metric == "dictionary_cosine"]
    assert [(f.llm, f.of, f.layer, f.n) for f in cosine] == [
        ("one", "two", 1, 60), ("one", "half", 1, 30), ("two", "half", 1, 30),
    ]  # fmt: skip
    for metric in ("dictionary_cosine", "dictionary_found", "dictionary_mmcs"):
        assert [f.value for f in figures if f.metric == metric] == pytest.approx([1, 1, 1])
    labels = [f for f in figures if f.metric == "dictionary_label_agreement"]
    assert [(f.value, f.n) for f in labels] == [(1, 60), (1, 30), (1, 30)]
    assert len(LongTable(figures)) == 18


def test_vision_saes_stand_in_the_column_of_methods(tmp_path: Path) -> None:
    settings = {"encoder": {"source": {"kind": "standin"}}}
    features = published(tmp_path, "features", "f", lambda work: None, **settings)
    result = measured(tmp_path, features=features) / "rows.parquet"
    row = pq.read_table(result).to_pylist()[0]
    assert (row["llm"], row["method"], row["of"], row["layer"]) == (None, "one", "two", 1)


def test_saes_of_other_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="read other layers or widths"):
        measured(tmp_path, layer=0)


def test_the_report_shows_quality_and_pairs(tmp_path: Path) -> None:
    work = measured(tmp_path)
    artifact = published(
        tmp_path, "sae_stability", "it",
        lambda to: [(to / p.name).write_bytes(p.read_bytes()) for p in work.iterdir()],
    )  # fmt: skip
    figures = read_figures(artifact, stage="sae_stability")
    for name, fvu, l0 in (("one", 0.2, 5.0), ("two", 0.1, 9.0), ("half", 0.4, 2.0)):
        point: dict[str, Any] = {"llm": name, "layer": 1}
        check = {"stage": "check_sae", "token_kind": "text", "n": 900, **point}
        figures += [
            Figure("sae_text_fvu", value=fvu, **check),
            Figure("sae_text_l0", value=l0, **check),
            Figure("sae_text_dead_share", value=0.0, **check),
        ]
    loss: dict[str, Any] = {
        "of": "mean",
        "token_kind": "control",
        "stage": "spliced_loss",
        "value": 0.75,
        "n": 40,
    }
    figures.append(
        Figure("spliced_loss_recovered", llm="two", layer=1, encoder="e", sae_weight=0, **loss)
    )
    shown = Measured(
        LongTable(figures), ReportSettings(), [(MetricPlace(metric="sae_stability"), artifact)]
    )
    quality, stability = SHOWN.sections(shown)
    assert [section.title for section in all_sections(shown, [])][-3:-1] == [
        quality.title, stability.title,
    ]  # fmt: skip
    text, vision = quality.grids
    # The sparsest first.
    assert [row[2] for row in text.rows] == ["half", "one", "two"]
    assert text.rows[2] == [
        "one", "1", "two", "batchtopk", "63", "9.000", "0.100", "0.000", "0.750", "900",
    ]  # fmt: skip
    assert text.rows[0][8] == "–" and not vision.rows
    rows = stability.grids[0].rows
    assert [list(row[:5]) for row in rows] == [
        ["one", "1", "one", "two", "seed"],
        ["one", "1", "one", "half", "–"],
        ["one", "1", "two", "half", "–"],
    ]
    assert rows[0][5] == "1.000" and len(rows[0]) == len(stability.grids[0].header)
    (drawing,) = SHOWN.drawings(shown)
    drawn = drawing.draw()
    assert drawing.name == "dictionaries_text"
    places = {
        (float(x), float(y))
        for container in drawn.axes[0].containers
        for x, y in container.lines[0].get_xydata()
    }
    assert places == {(5.0, 0.2), (9.0, 0.1), (2.0, 0.4)}
    assert {c.get_label() for c in drawn.axes[0].containers} == {"batchtopk", "standard"}
