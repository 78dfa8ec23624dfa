"""Whose code is it? Edits of the real package, and the nodes whose code digest they change.

A sweep reruns only the stages that changed, also for whoever writes code: each test makes an edit
on a copy of the package and compares the digests of all nodes of shipped configs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from vista.engine import code
from vista.engine.node import Node
from vista.engine.plan import load_plan

ROOT = Path(__file__).parents[2]
CONFIGS = ("default", "digits", "interventions", "probing", "paper")
Edit = Callable[[str, str, str], dict[str, list[Node]]]


def forget() -> None:
    for cached in (code._closure, code._closure_digest, code._module, code._definition, code._path):
        cached.cache_clear()


@pytest.fixture(scope="module")
def nodes() -> list[Node]:
    """The nodes of several configs, one for each stage and set of modules."""
    found = {
        (node.stage, node.modules): node
        for name in CONFIGS
        for node in load_plan(ROOT / f"config/{name}.yaml").nodes.values()
        if not code.is_fetch(node.stage)
    }
    return list(found.values())


def digests(nodes: list[Node]) -> Mapping[Node, str]:
    forget()
    return {node: code.code_digest(code.stage_code(node.stage, node.modules)) for node in nodes}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    copy = tmp_path / "vista"
    shutil.copytree(code.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copy)
    yield copy
    monkeypatch.undo()
    forget()


@pytest.fixture(scope="module")
def before(nodes: list[Node]) -> Mapping[Node, str]:
    return digests(nodes)


@pytest.fixture
def edit(package: Path, nodes: list[Node], before: Mapping[Node, str]) -> Edit:
    """Replace a text of a file once, or append to it where `old` is empty; return what changed."""

    def edit(name: str, old: str, new: str) -> dict[str, list[Node]]:
        apply(package / name, old, new)
        after = digests(nodes)
        changed: dict[str, list[Node]] = {}
        for node in nodes:
            if before[node] != after[node]:
                changed.setdefault(node.stage, []).append(node)
        return changed

    return edit


def apply(path: Path, old: str, new: str) -> None:
    text = path.read_text() if path.exists() else ""
    assert old in text, f"{path.name} holds no {old!r}"
    path.write_text(text.replace(old, new, 1) if old else text + new)


# What concerns no artifact, or only one that is not there yet.
NEUTRAL = [
    # A new stage and a new metric, with its settings.
    ("stages/new_metric.py", "", "def run(job):\n    pass\n"),
    ("stages/__init__.py", "STAGES = {", 'STAGES = {\n    "new_metric": "a new metric",'),
    ("config/metrics.py", "", "\n\nclass NewSettings(Settings):\n    rate: float = 0.5\n"),
    ("config/run.py", "class Metrics(Settings):", "NEW = 1\n\n\nclass Metrics(Settings):"),
    ("metrics/new_metric.py", "", "def measure(values):\n    return sum(values)\n"),
    # A new encoder family.
    ("encoders/families/new.py", "", "from vista.encoders.registry import EncoderFamily\n"),
    # A new method of directions.
    (
        "interventions/methods/north.py",
        "",
        "from vista.interventions.methods.random import METHOD\n",
    ),
    # A new judge, with its settings.
    (
        "judges/kinds/new.py",
        "",
        "from vista.config.judge_base import JudgeSettings\n\n\n"
        "class Settings(JudgeSettings):\n    kind: str = 'new'\n\n\n"
        "def create(settings, resources):\n    pass\n",
    ),
    # A help text, a docstring, a comment, an annotation, an import for types alone.
    ("config/metrics.py", 'description="', 'description="Another: '),
    ("config/encoders.py", 'description="', 'description="Another: '),
    ("config/projector.py", 'description="', 'description="Another: '),
    ("language/model.py", '"""', '"""Another. '),
    ("store/features.py", "from __future__", "# A comment.\nfrom __future__"),
    ("projector/train.py", "    seed: int,\n", "    seed: float,\n"),
    ("sae/through.py", "if TYPE_CHECKING:", "if TYPE_CHECKING:\n    import vista.sae.train"),
    # How a stage is handed its settings and its opened inputs.
    ("engine/job.py", "return inputs_type(**values)", "return inputs_type(**dict(values))"),
    (
        "engine/artifacts.py",
        'return dict(self.manifest["settings"])',
        'return {**self.manifest["settings"]}',
    ),
    # How work is told to people.
    ("progress.py", "", "\n\ndef new():\n    pass\n"),
]


def test_what_concerns_no_artifact_changes_none(edit: Edit, package: Path) -> None:
    for name, old, new in NEUTRAL[:-1]:
        apply(package / name, old, new)
    # All at once: whose edit it was, the definitions tell.
    assert not edit(*NEUTRAL[-1])


def test_a_setting_of_one_metric_concerns_that_metric(edit: Edit) -> None:
    new = "class ReconstructionSettings(Settings):\n    extra: int = 1\n"
    changed = edit("config/metrics.py", "class ReconstructionSettings(Settings):\n", new)
    assert set(changed) == {"reconstruction"}


def test_a_function_of_one_metric_concerns_that_metric(edit: Edit) -> None:
    changed = edit("metrics/reconstruction.py", "    return ", "    pass\n    return ")
    assert set(changed) == {"reconstruction"}


def test_a_figure_of_the_report_concerns_the_report(edit: Edit) -> None:
    changed = edit("metrics/ood_detection/report.py", "limits=(0, 1.02)", "limits=(0, 1)")
    assert set(changed) == {"report"}


def test_the_reader_of_coco_concerns_records_of_coco(edit: Edit) -> None:
    changed = edit(
        "data/readers/coco.py",
        "def _file_records(",
        "def _new():\n    pass\n\n\ndef _file_records(",
    )
    # A drawn world is written and read as COCO.
    assert set(changed) == {"records"}
    assert all("vista.data.readers.coco" in node.modules for node in changed["records"])


def test_a_new_sae_architecture_concerns_the_import_of_pretrained_saes_at_most(
    edit: Edit, package: Path
) -> None:
    """What a pretrained SAE is, is known when it is imported; the rest reads its function there."""
    apply(package / "sae/architectures/new.py", "", 'ACTIVATION = "relu"\n')
    assert not edit("sae/architectures/new.py", "", "\n")
    changed = edit("sae/architectures/gated.py", '"gated"', '"relu"')
    assert set(changed) == {"import_sae"}
    gated = "vista.sae.architectures.gated"
    assert all(gated in node.modules for node in changed["import_sae"])


def test_a_family_concerns_what_its_encoders_made(edit: Edit) -> None:
    changed = edit("encoders/families/dinov2.py", "resample=", "resample=1 + ")
    family = "vista.encoders.families.dinov2"
    stages = {node.stage for nodes in changed.values() for node in nodes}
    assert stages == {"features", "train_encoder"}
    assert all(family in node.modules for nodes in changed.values() for node in nodes)


def test_a_judge_concerns_what_it_judged(edit: Edit, nodes: list[Node]) -> None:
    changed = edit(
        "judges/kinds/lexical.py", "        names = {name", "        pass\n        names = {name"
    )
    judge = "vista.judges.kinds.lexical"
    assert set(changed) == {node.stage for node in nodes if judge in node.modules}
    assert all(judge in node.modules for nodes in changed.values() for node in nodes)


def test_a_setting_of_a_judge_concerns_what_it_judged(edit: Edit) -> None:
    changed = edit(
        "judges/kinds/lexical.py", "    senses: int", "    extra: int = 1\n    senses: int"
    )
    assert "matching_rate" in changed
    judge = "vista.judges.kinds.lexical"
    assert all(judge in node.modules for nodes in changed.values() for node in nodes)


@pytest.mark.parametrize("name", ["sae/through.py", "projector/loss.py"])
def test_the_sae_term_concerns_projectors_that_are_trained_with_it(edit: Edit, name: str) -> None:
    changed = edit(name, "    return ", "    pass\n    return ")
    assert set(changed) == {"train_projector"}
    assert all(node.settings["sae_weight"] > 0 for node in changed["train_projector"])


@pytest.mark.parametrize(
    ("name", "old", "new", "methods"),
    [
        ("methods/logistic.py", "max_iter=500", "max_iter=600", {"logistic"}),
        ("methods/latent.py", "latents.best", "latents.best[:1]", {"latent"}),
        ("fitted.py", "x_bpd.mean(1)", "x_bpd.max(1)", {"logistic", "mean_difference"}),
        (
            "text_latents.py",
            "decoder_row(latent)",
            "decoder_row(latent + 1)",
            {"latent", "latent_at", "random_latent", "wrong_concept"},
        ),
    ],
)
def test_a_method_concerns_the_directions_that_it_finds(
    edit: Edit, name: str, old: str, new: str, methods: set[str]
) -> None:
    changed = edit(f"interventions/{name}", old, new)
    assert set(changed) == {"directions"}
    # latent_at is in none of these configs.
    found = {node.settings["directions"]["method"] for node in changed["directions"]}
    assert found == methods - {"latent_at"} or found == methods
