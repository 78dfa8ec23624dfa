"""Ours and the usual way give the same numbers, at sizes whose speed means nothing."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks.case import Case
from benchmarks.cases import projector_training, sweep_point
from benchmarks.models import SHAPES
from benchmarks.usual.models import JumpReluSae

PARTS = ("compile", "feature_extraction", "interventions", "latents", "projector_training")


@pytest.mark.parametrize("part", PARTS)
def test_both_sides_of_each_case_run_and_agree(part: str, tmp_path: Path) -> None:
    found: list[Case] = list(
        importlib.import_module(f"benchmarks.cases.{part}").cases("tiny", tmp_path)
    )
    assert found
    for case in found:
        # What is counted in a process of its own takes seconds to start.
        if case.unit == "s":
            assert case.usual is not None
            assert min(case.ours(), case.usual()) > 0
            assert case.limit is None or case.limit.cost > 0


def test_a_usual_way_with_another_sae_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = projector_training._Both(SHAPES["tiny"], tmp_path, 8)
    plain = JumpReluSae.decode
    monkeypatch.setattr(JumpReluSae, "decode", lambda sae, z: 1.05 * plain(sae, z))
    with pytest.raises(AssertionError, match="lambda 1: ours and the usual way differ"):
        projector_training.check(both)


@pytest.mark.parametrize("stage", ["train_llm", "features"])
def test_a_lambda_that_ran_the_models_again_is_noticed(stage: str) -> None:
    before = {"features": 3.0, "train_llm": 9.0, "train_projector": 5.0}
    after = {**before, "train_projector": 9.0, "latents": 1.0}
    sweep_point.check(before, after)
    with pytest.raises(AssertionError, match=stage):
        sweep_point.check(before, {**after, stage: 20.0})
