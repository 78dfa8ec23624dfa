"""`vista make`: readable names and patterns of artifacts become targets of Snakemake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vista.cli import main
from vista.engine.make import manifests
from vista.engine.plan import load_plan
from vista.errors import UserError

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "config" / "smoke.yaml"


def names(stage: str, *patterns: str) -> list[str]:
    found = manifests(load_plan(SMOKE), stage, patterns, SMOKE)
    assert all(Path(path).name == "manifest.json" for path in found)
    return [Path(path).parent.name[:-11] for path in found]


def test_names_and_patterns_mean_artifacts() -> None:
    assert names("latents", "dinov2-gemma2-w1-s0") == ["dinov2-gemma2-w1-s0"]
    assert names("latents", "dinov2-*-s0") == ["dinov2-gemma2-w0-s0", "dinov2-gemma2-w1-s0"]
    assert names("features", "*", "dinov2") == ["dinov2", "siglip"]


@pytest.mark.parametrize(
    ("stage", "pattern", "sentence"),
    [
        ("latent", "*", r"asks for no latent; its stages: caption, check_sae"),
        ("latents", "clip-*", r"no latents 'clip-\*'; there are dinov2-gemma2-w0-s0, "),
    ],
)
def test_what_is_not_asked_for_is_told_with_what_is(
    stage: str, pattern: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        names(stage, pattern)


def test_snakemake_takes_over_with_the_options_that_are_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: calls.append(command))
    monkeypatch.chdir(ROOT)
    config = ["--config", str(SMOKE)]
    assert main(["make", "features", "dinov2", *config, "-n", "--quiet"]) == 0
    assert main(["make", "features", *config]) == 0
    dry, whole = calls
    assert dry[-3:] == ["--rerun-incomplete", "-n", "--quiet"] and "--cores=all" not in dry
    assert "--cores=all" in whole and sum("results/features/" in each for each in whole) == 2
    with pytest.raises(SystemExit):
        main(["schema", "--cores", "2"])
    monkeypatch.chdir(ROOT / "config")
    assert main(["make", "features", *config]) == 2
