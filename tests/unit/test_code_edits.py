"""Edits of the real package, and the nodes whose code digest they change.

An edit reruns only the stages that it can change. Each test makes an edit on a copy of the package
and compares the digests of all nodes of shipped configs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from code_caches import forget

from vista.engine import code
from vista.engine.node import Node
from vista.engine.plan import load_plan

ROOT = Path(__file__).parents[2]
CONFIGS = ("default", "digits", "interventions", "probing", "paper", "dictionaries")
Edit = Callable[[str, str, str], dict[str, list[Node]]]


@pytest.fixture(scope="module")
def nodes() -> list[Node]:
    """The nodes of several configs, one for each stage and set of modules."""
    by_code = {
        (node.stage, node.modules): node
        for name in CONFIGS
        for node in load_plan(ROOT / f"config/{name}.yaml").nodes.values()
        if not code.is_fetch(node.stage)
    }
    return list(by_code.values())


def digests(nodes: list[Node]) -> Mapping[Node, str]:
    forget()
    return {node: code.code_digest(code.stage_code(node.stage, node.modules)) for node in nodes}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    copy = tmp_path / "vista"
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    shutil.copytree(code.PACKAGE, copy, ignore=ignored)
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
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.replace(old, new, 1) if old else text + new)


# What concerns no artifact, or only one that is not there yet.
NEUTRAL = [
    # A new stage, and a new metric with its settings, its measure and its part of the report.
    ("stages/new_stage.py", "", "def run(job):\n    pass\n"),
    ("stages/__init__.py", "MAKERS = {", 'MAKERS = {\n    "new_stage": "a new stage",'),
    (
        "metrics/new/__init__.py",
        "",
        "from vista.config.metric import Metric, MetricSettings\n\n\n"
        "class NewSettings(MetricSettings):\n    rate: float = 0.5\n\n\n"
        'METRIC = Metric("new", "a new metric", NewSettings, "point", ("latents",))\n',
    ),
    ("metrics/new/stage.py", "", "def run(job):\n    pass\n"),
    (
        "metrics/new/report.py",
        "",
        "from vista.report.shown import Shown\n\nSHOWN = Shown()\n",
    ),
    # A new trainer of dictionaries.
    ("sae/trainers/new.py", "", "def fit(*arguments):\n    return {}\n"),
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
    ("metrics/reconstruction/__init__.py", 'description="', 'description="Another: '),
    ("config/metrics.py", 'description="', 'description="Another: '),
    ("config/encoders.py", 'description="', 'description="Another: '),
    ("config/projector.py", 'description="', 'description="Another: '),
    ("language/model.py", '"""', '"""Another. '),
    ("store/features.py", "from __future__", "# A comment.\nfrom __future__"),
    ("projector/train.py", "    seed: int,\n", "    seed: float,\n"),
    ("sae/through.py", "if TYPE_CHECKING:", "if TYPE_CHECKING:\n    import vista.sae.train"),
    # How a stage gets its settings and its opened inputs.
    ("engine/job.py", "return inputs_type(**values)", "return inputs_type(**dict(values))"),
    (
        "engine/artifacts.py",
        'return dict(self.manifest["settings"])',
        'return {**self.manifest["settings"]}',
    ),
    # How progress is shown.
    ("progress.py", "", "\n\ndef new():\n    pass\n"),
]


def test_what_concerns_no_artifact_changes_none(edit: Edit, package: Path) -> None:
    for name, old, new in NEUTRAL[:-1]:
        apply(package / name, old, new)
    # All edits at once.
    assert not edit(*NEUTRAL[-1])


def test_the_order_of_definitions_concerns_no_artifact(edit: Edit, package: Path) -> None:
    path = package / "metrics/reconstruction/measure.py"
    head, moved, *others = path.read_text().split("\n\n\n")
    assert moved.startswith("@dataclass")
    path.write_text("\n\n\n".join([head, *others, moved]))
    assert not edit("progress.py", "", "\n")


def test_a_setting_of_one_metric_concerns_that_metric(edit: Edit) -> None:
    old = "class ReconstructionSettings(MetricSettings):\n"
    changed = edit("metrics/reconstruction/__init__.py", old, f"{old}    extra: int = 1\n")
    assert set(changed) == {"reconstruction"}


def test_a_function_of_one_metric_concerns_that_metric(edit: Edit) -> None:
    changed = edit("metrics/reconstruction/measure.py", "    return ", "    pass\n    return ")
    assert set(changed) == {"reconstruction"}


def test_what_the_report_reads_of_a_metric_concerns_both(edit: Edit) -> None:
    changed = edit("metrics/ood_detection/measure.py", "FIGURES = {", 'FIGURES = {"new": None, ')
    assert set(changed) == {"ood_detection", "report"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("limits=(0, 1.02)", "limits=(0, 1)"),
        ("def _head(", "def _new():\n    pass\n\n\ndef _head("),
    ],
)
def test_a_figure_of_a_metric_concerns_reports_that_show_it(
    edit: Edit, nodes: list[Node], old: str, new: str
) -> None:
    changed = edit("metrics/ood_detection/report.py", old, new)
    part = "vista.metrics.ood_detection.report"
    assert changed == {"report": [node for node in nodes if part in node.modules]}


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


def test_a_trainer_concerns_the_dictionaries_that_it_fitted(edit: Edit) -> None:
    changed = edit("sae/trainers/kmeans.py", "step / (step + 2)", "step / (step + 3)")
    assert set(changed) == {"train_sae", "import_sae", "train_vision_sae"}
    trainer = "vista.sae.trainers.kmeans"
    assert all(trainer in node.modules for nodes in changed.values() for node in nodes)


def test_a_family_concerns_what_its_encoders_made(edit: Edit) -> None:
    changed = edit("encoders/families/dinov2.py", "resample=", "resample=1 + ")
    family = "vista.encoders.families.dinov2"
    stages = {node.stage for nodes in changed.values() for node in nodes}
    # Labels by steering encode a blank image.
    assert stages == {"features", "train_encoder", "label_by_steering"}
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


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("sae/through.py", "return grad_nd, None", "return 2 * grad_nd, None"),
        ("projector/loss.py", "    return ", "    pass\n    return "),
    ],
)
def test_the_sae_term_concerns_projectors_that_are_trained_with_it(
    edit: Edit, name: str, old: str, new: str
) -> None:
    changed = edit(name, old, new)
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
    affected = {node.settings["directions"]["method"] for node in changed["directions"]}
    assert affected in (methods, methods - {"latent_at"})
