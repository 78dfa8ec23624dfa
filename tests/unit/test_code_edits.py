"""Edits of this package, made on a copy: whose code digest each of them changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vista import code
from vista.plan import Plan, load_plan

ROOT = Path(__file__).parents[2]
METHODS = "interventions/methods"
Nodes = set[tuple[str, str]]


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Directions of all methods, among everything else that a run has."""
    return load_plan(ROOT / "config" / "interventions.yaml")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package that digests are taken of."""
    copy = tmp_path / "vista"
    shutil.copytree(code.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copy)
    yield copy
    _forget()


def _forget() -> None:
    for cached in (code._closure, code._closure_digest, code._module, code._definition):
        cached.cache_clear()


def digests(plan: Plan) -> dict[tuple[str, str], str]:
    """The code digest of each node, by stage and folder."""
    _forget()
    return {key: plan.code(*key) for key in plan.nodes}


@pytest.fixture
def changed(plan: Plan, package: Path) -> Callable[..., Nodes]:
    """Makes an edit of a file of the copy and returns the nodes whose digest it changed."""

    def edit(name: str, old: str, new: str) -> Nodes:
        before, path = digests(plan), package / name
        text = path.read_text() if path.exists() else ""
        assert old in text
        path.write_text(text.replace(old, new) if old else new)
        after = digests(plan)
        return {key for key in before if before[key] != after[key]}

    return edit


def directions(plan: Plan, *methods: str) -> Nodes:
    """The nodes that find directions by one of some methods."""
    return {
        key
        for key, node in plan.nodes.items()
        if node.stage == "directions" and node.settings["directions"]["method"] in methods
    }


def test_a_new_method_of_directions_is_code_of_no_node(changed: Callable[..., Nodes]) -> None:
    source = (code.PACKAGE / METHODS / "random.py").read_text()
    assert not changed(f"{METHODS}/north.py", "", source)


@pytest.mark.parametrize(
    ("name", "old", "new", "methods"),
    [
        (f"{METHODS}/logistic.py", "max_iter=500", "max_iter=600", ["logistic"]),
        (f"{METHODS}/latent.py", "latents.best", "latents.best[:1]", ["latent"]),
        (
            "interventions/fitted.py",
            "x_bpd.mean(1)",
            "x_bpd.max(1)",
            ["logistic", "mean_difference"],
        ),
        (
            "interventions/text_latents.py",
            "decoder_row(latent)",
            "decoder_row(latent + 1)",
            ["latent", "latent_at", "random_latent", "wrong_concept"],
        ),
    ],
)
def test_an_edit_of_a_method_changes_directions_of_that_method_alone(
    plan: Plan,
    changed: Callable[..., Nodes],
    name: str,
    old: str,
    new: str,
    methods: list[str],
) -> None:
    nodes = directions(plan, *methods)
    assert nodes
    assert changed(name, old, new) == nodes
