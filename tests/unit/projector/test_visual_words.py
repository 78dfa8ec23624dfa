"""Visual words: the direction of the term, what it is taken over, and training with a head."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from vista.config.projector import WORDS_TERM, TrainingStage
from vista.data.records import Turn
from vista.engine.plan import load_plan
from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.projector.module import make_projector
from vista.projector.passes import Losses, TrainingData
from vista.projector.ranks import join_ranks
from vista.projector.train import train_projector
from vista.projector.visual_words import (
    HEAD,
    expecting,
    load_head,
    make_head,
    save_head,
    words_term,
)

D_MODEL, D_VISION, PATCHES, N, VOCABULARY = 16, 12, 4, 24, 10
SETTINGS = TrainingStage(steps=6, batch_size=8, lr=3e-2, checkpoint_every=4)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N, PATCHES, D_VISION)).astype(np.float16)
    turns = [[Turn("what ?", "cat on sand" if i % 2 else "dog")] for i in range(N)]
    return TrainingData(turns=turns, n_visual=PATCHES, read=lambda rows: features[rows])


def test_the_term_is_the_divergence_of_the_words_from_what_is_expected() -> None:
    """A head that gives .5/.25/.25 and a model that expects .25/.25/.5, by hand."""
    head = torch.nn.Linear(1, 3, bias=False)
    words, expected = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    with torch.no_grad():
        head.weight.copy_(words.log()[:, None])
    visual_bpd = torch.tensor([[[7.0], [1.0]]])  # the first token is expected by nothing
    found = words_term(head, visual_bpd, expected.log()[None, None] + 5)
    forward = 0.5 * math.log(2) + 0.25 * math.log(1) + 0.25 * math.log(0.5)
    assert float(found.detach()) == pytest.approx(forward)
    # The other direction has another value where the distributions are no mirror images.
    skewed = torch.tensor([0.9, 0.05, 0.05])
    found = words_term(head, visual_bpd, skewed.log()[None, None])
    one, other = ((p * (p / q).log()).sum() for p, q in ((words, skewed), (skewed, words)))
    assert float(found.detach()) == pytest.approx(float(one))
    assert abs(float(one) - float(other)) > 0.1


def test_each_token_is_expected_from_the_position_before_it(
    llm: LanguageModel, data: TrainingData
) -> None:
    head = make_head(D_MODEL, VOCABULARY, seed=1)
    projector = make_projector("linear", D_VISION, D_MODEL, seed=7)
    losses = Losses(llm, {}, data, SETTINGS, "none", join_ranks(llm.device), head=head)
    (part,), _ = losses.parts(np.arange(3))
    visual_bpd = losses.visual(projector, part)
    found = losses.of_part(visual_bpd, part.batch, None)
    start = part.batch.visual_start
    logits_btv = llm.forward(
        part.batch.input_ids, part.batch.attention_mask, visual=visual_bpd, visual_start=start
    ).logits
    assert logits_btv is not None
    total = 0.0
    for b in range(3):
        for p in range(PATCHES):
            words = head(visual_bpd[b, p]).softmax(-1)
            expected = logits_btv[b, start + p - 1].softmax(-1)
            total += float((words * (words / expected).log()).sum().detach())
    assert float(found.words.detach()) == pytest.approx(total / 3 / PATCHES, rel=1e-4)
    # The cross-entropy is that without a head.
    plain = Losses(llm, {}, data, SETTINGS, "none", join_ranks(llm.device))
    without = plain.of_part(visual_bpd, part.batch, None)
    torch.testing.assert_close(found.entropy, without.entropy)
    assert torch.isnan(without.words)


def test_where_nothing_stands_before_the_first_token_it_is_left_out() -> None:
    assert (expecting(1, 4), expecting(0, 4)) == (slice(0, 4), slice(0, 3))


def test_neither_side_is_detached() -> None:
    head = make_head(D_MODEL, VOCABULARY, seed=1)
    visual_bpd = torch.randn(1, 3, D_MODEL, requires_grad=True)
    logits_bpv = torch.randn(1, 3, VOCABULARY, requires_grad=True)
    words_term(head, visual_bpd, logits_bpv).backward()
    for side in (visual_bpd, logits_bpv, head.weight):
        assert side.grad is not None
        assert side.grad.abs().max() > 0


def train(
    llm: LanguageModel, data: TrainingData, folder: Path, weight: float | None, **more: Any
) -> tuple[Any, Any, dict[str, list[float]]]:
    projector = make_projector("linear", D_VISION, D_MODEL, seed=7)
    head = None if weight is None else make_head(D_MODEL, VOCABULARY, seed=7)
    settings = SETTINGS.model_copy(update=more.pop("settings", {}))
    curve = train_projector(
        projector,
        llm,
        {},
        data,
        settings,
        sae_weight=0.0,
        seed=7,
        checkpoints=folder,
        head=head,
        words_weight=weight or 0.0,
        **more,
    )
    return projector, head, curve


def test_training_lowers_the_term_whatever_kills_or_divides_it(
    llm: LanguageModel, data: TrainingData, tmp_path: Path
) -> None:
    projector, head, curve = train(llm, data, tmp_path / "whole", 1.0)
    assert curve["visual_words"][-1] < curve["visual_words"][0]
    assert curve["loss"] == pytest.approx(
        [a + b for a, b in zip(curve["cross_entropy"], curve["visual_words"], strict=True)]
    )
    train(llm, data, tmp_path / "killed", 1.0, stop_at=5)
    again, second, resumed = train(llm, data, tmp_path / "killed", 1.0)
    for name in ("cross_entropy", "visual_words", "gradient_norm"):
        assert resumed[name] == curve[name]
    assert torch.equal(second.weight, head.weight)
    assert torch.equal(again.layers[0].weight, projector.layers[0].weight)
    divided = train(llm, data, tmp_path / "parts", 1.0, settings={"micro_batch": 3})[2]
    for name in ("cross_entropy", "visual_words"):
        assert divided[name] == pytest.approx(curve[name], rel=1e-3)


def test_a_head_changes_the_projector_and_no_head_leaves_no_trace(
    llm: LanguageModel, data: TrainingData, tmp_path: Path
) -> None:
    plain, _, curve = train(llm, data, tmp_path / "plain", None)
    assert "visual_words" not in curve
    unweighted, _, same = train(llm, data, tmp_path / "unweighted", 0.0)
    for name in ("cross_entropy", "gradient_norm"):
        assert same[name] == pytest.approx(curve[name], rel=1e-4)
    torch.testing.assert_close(unweighted.layers[0].weight, plain.layers[0].weight)
    weighted, _, _ = train(llm, data, tmp_path / "weighted", 1.0)
    assert (weighted.layers[0].weight - plain.layers[0].weight).abs().max() > 1e-3


def test_without_a_weight_the_plan_is_that_without_a_head() -> None:
    content = yaml.safe_load((Path(__file__).parents[3] / "config" / "smoke.yaml").read_text())
    plain = set(load_plan(content).nodes)
    recipe = content.get("projector", {})
    off = {"projector": {**recipe, "visual_words": {"weight": 0}}}
    assert set(load_plan(content | off).nodes) == plain
    on = {"projector": {**recipe, "visual_words": {"weight": 0.5}}}
    trained = [n for n in load_plan(content | on).nodes.values() if n.stage == "train_projector"]
    assert {node.settings["words_weight"] for node in trained} == {0.5}
    assert all(WORDS_TERM in node.modules for node in trained)
    assert not {(node.stage, node.folder) for node in trained} & plain


def test_a_saved_head_is_read_back_for_its_own_model_alone(tmp_path: Path) -> None:
    head = make_head(D_MODEL, VOCABULARY, seed=1)
    save_head(tmp_path, head)
    again = load_head(tmp_path, d_model=D_MODEL, vocabulary=VOCABULARY)
    assert torch.equal(again.weight, head.weight)
    assert not again.weight.requires_grad
    with pytest.raises(UserError, match=re.escape(HEAD)):
        load_head(tmp_path, d_model=D_MODEL, vocabulary=VOCABULARY + 1)
    with pytest.raises(UserError, match="train the projector again"):
        load_head(tmp_path / "none", d_model=D_MODEL, vocabulary=VOCABULARY)
