"""The matching rate by a judge that is shown the images: a drawn world, real HTTP on the loopback.

The endpoint tells the images apart by their bytes and answers by what is drawn in them. The
strongest latent of an image is named after something in it on layer 1, and after something that is
not in it on layer 2.
"""

from __future__ import annotations

import base64
import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from fake_endpoint import Endpoint, labels_of

from tests.long_table import read_rows
from vista.config.drawn import DrawnData
from vista.config.judges import judge_names
from vista.config.reading import parse_config
from vista.data.records import Record, write_records
from vista.data.skipped import Skipped
from vista.data.source import iterate_records
from vista.data.world import draw_world
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.metrics.matching_rate import MatchingSettings
from vista.metrics.matching_rate import stage as matching_rate
from vista.metrics.results import read_result
from vista.metrics.shuffled import other_images
from vista.sae.label_table import LatentLabels, write_labels
from vista.store.latents import LatentWriter

SCENES = 8
LAYERS = (1, 2)
SMOKE = Path(__file__).parents[3] / "config" / "smoke.yaml"


class Eyes(Endpoint):
    """Accepts the labels that are drawn in the image it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[bytes, tuple[str, ...]] = {}

    def _reply(self, body: dict[str, Any], step: Any) -> tuple[int, dict[str, str], bytes]:
        url = body["messages"][1]["content"][0]["image_url"]["url"]
        seen = self.drawn[base64.b64decode(url.removeprefix("data:image/png;base64,"))]
        answers = json.dumps({"answers": [label in seen for label in labels_of(body)]})
        return super()._reply(body, answers if step is None else step)


@pytest.fixture
def eyes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Eyes]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    endpoint = Eyes()
    yield endpoint
    endpoint.close()


def publish(
    root: Path,
    stage: str,
    node: str,
    write: Callable[[Path], object],
    settings: dict[str, Any] | None = None,
    inputs: dict[str, Any] | None = None,
) -> Artifact:
    record = Provenance(stage, settings or {}, inputs or {}, "code", {})
    with publishing(root, stage, node, record) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / node)


class Run:
    """A drawn world and what stands between it and the metric, below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        counts = {"scenes": {"train": 1, "validation": 1, "test": SCENES}}
        documents = {"documents": {"train": 1, "heldout": 1}}
        drawn = DrawnData.model_validate({"kind": "drawn", **counts, **documents})
        self.world = publish(root, "draw_world", "w", lambda work: draw_world(drawn, work, 0))
        every = iterate_records(drawn, self.world.path, None, Skipped())
        self.records = [record for record in every if record.split == "test"]
        self.truth = [record.categories for record in self.records]
        # Nobody annotated the first image; what is drawn in it can be seen all the same.
        self.records[0] = Record(**{**vars(self.records[0]), "objects": ()})
        self.names = sorted({name for names in self.truth for name in names})
        self.right = [self.names.index(names[0]) for names in self.truth]
        self.wrong = [
            next(s for s, name in enumerate(self.names) if name not in names)
            for names in self.truth
        ]
        self.inputs = {
            "world": self.world,
            "records": publish(
                root,
                "records",
                "r",
                lambda work: write_records(work / "records.parquet", self.records),
                {"kind": "drawn"},
            ),
            "latents": publish(root, "latents", "z", self._latents, inputs={"saes": ["sae"]}),
            "labels": [
                publish(
                    root,
                    "label_latents",
                    f"l{layer}",
                    lambda work, layer=layer: self._labels(work, layer),
                    inputs={"sae": "sae"},
                )
                for layer in LAYERS
            ],
        }

    def _latents(self, work: Path) -> None:
        ids = [record.image_id for record in self.records]
        shape = (len(ids), 4, 1)
        sizes = dict.fromkeys(LAYERS, len(self.names))
        writer = LatentWriter(work / "latents.zarr", ids, (2, 2), sizes, {"image": 4}, k=1)
        writer.set_valid("image", 0, np.ones(shape[:2], dtype=bool))
        for layer, latents in zip(LAYERS, (self.right, self.wrong), strict=True):
            index = np.zeros(shape, dtype=np.uint16)
            index[:, 0, 0] = latents
            value = np.zeros(shape, dtype=np.float16)
            value[:, 0] = 2
            nnz = (value[..., 0] > 0).astype(np.uint16)
            zeros = np.zeros(shape[:2], dtype=np.float32)
            writer.write("image", 0, layer, index, value, nnz, zeros, zeros)
            writer.finish(layer, "image", np.full(4, 1.0))
        writer.close()

    def _labels(self, work: Path, layer: int) -> None:
        n = len(self.names)
        density, share = np.zeros(n, dtype=np.float32), np.ones(n, dtype=np.float32)
        none = tuple(() for _ in self.names)
        table = LatentLabels(layer, "sae", 100, tuple(self.names), share, density, none)
        write_labels(work / "labels.parquet", table)

    def settings(self, eyes: Eyes, **changes: Any) -> dict[str, Any]:
        for record, names in zip(self.records, self.truth, strict=True):
            image = self.world.path / "images" / record.path
            eyes.drawn[image.read_bytes()] = names
        judge = {"kind": "api", "base_url": eyes.url, "model": "eyes", "concurrency": 1}
        given = {
            "judge": {**judge, "retries": 0},
            "evidence": "image",
            "mask": {"max_image_share": 1.0},
            **changes,
        }
        return MatchingSettings.model_validate(given).model_dump(mode="json")

    def questions(self) -> set[tuple[int, tuple[str, ...]]]:
        """Each image with its own labels of both layers, and they with another image."""
        labels = [
            tuple(sorted({self.names[s] for s in pair}))
            for pair in zip(self.right, self.wrong, strict=True)
        ]
        other = other_images(SCENES, 0).tolist()
        return {*enumerate(labels), *zip(other, labels, strict=True)}

    def measure(self, node: str, settings: dict[str, Any]) -> Artifact:
        def write(work: Path) -> None:
            matching_rate.run(Job("matching_rate", settings, dict(self.inputs), work))

        return publish(self.root, "matching_rate", node, write)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "results")


def rate(artifact: Artifact, layer: int) -> dict[str, Any]:
    """The matching rate of the three strongest latents on a layer."""
    wanted = {"metric": "matching_rate", "of": None, "k": 3, "layer": layer}
    (row,) = [row for row in read_rows(artifact) if row | wanted == row]
    return row


def items(artifact: Artifact) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(artifact.file("items.parquet")).to_pylist()
    return found


def test_labels_are_judged_by_what_the_images_show(run: Run, eyes: Eyes) -> None:
    made = run.measure("m", run.settings(eyes))
    other = other_images(SCENES, 0)
    for layer, latents in ((1, run.right), (2, run.wrong)):
        found = rate(made, layer)
        assert (found["value"], found["n"]) == (float(layer == 1), SCENES)
        pairs = zip(latents, other, strict=True)
        assert found["chance"] == np.mean([run.names[s] in run.truth[b] for s, b in pairs])
    # The image that nobody annotated is among them.
    assert [each["named"] for each in items(made)] == [[True]] * SCENES + [[False]] * SCENES
    assert items(made)[0]["image_id"] == run.records[0].image_id
    result = read_result(made)
    assert (result["evidence"], result["n_images"], result["n_without_objects"]) == (
        ("image", SCENES, 0)
    )
    assert not any("recall" in each["metric"] for each in read_rows(made))
    questions = run.questions()
    assert len(eyes.requests) == len(questions)
    verdicts = [label for _, labels in questions for label in labels]
    told = json.loads(made.file("judge.json").read_text())
    assert told == {"judge": "api:eyes", "verdicts": len(verdicts), "unanswered": 0}


def test_without_seeing_an_image_without_objects_is_left_out(run: Run, eyes: Eyes) -> None:
    made = run.measure("m", run.settings(eyes, judge="lexical", evidence="objects"))
    found = rate(made, 1)
    assert (found["value"], found["n"]) == (1.0, SCENES - 1)
    assert read_result(made)["n_without_objects"] == 1
    assert not eyes.requests


def test_an_answer_that_stays_malformed_is_counted_and_no_mismatch(run: Run, eyes: Eyes) -> None:
    eyes.script = ["I see a cat.", '{"answers": [true]}']
    made = run.measure("m", run.settings(eyes))
    # The first image's question about its own labels, of both layers.
    for layer in LAYERS:
        found = rate(made, layer)
        assert (found["value"], found["n"]) == (float(layer == 1), SCENES - 1)
    top = read_result(made)["layers"][0]["top"][0]
    assert (top["n_unanswered"], top["n_unanswered_shuffled"]) == (1, 0)
    first, second = items(made)[:2]
    assert (first["named"], first["matched@3"]) == ([None], None)
    assert (second["named"], second["matched@3"]) == ([True], True)
    assert json.loads(made.file("judge.json").read_text())["unanswered"] == 2


def test_what_was_judged_before_a_kill_is_not_asked_again(run: Run, eyes: Eyes) -> None:
    def place(artifact: Artifact) -> str:
        return artifact.path.relative_to(run.root).as_posix()

    settings = run.settings(eyes)
    paths = {
        role: [place(each) for each in found] if isinstance(found, list) else place(found)
        for role, found in run.inputs.items()
    }
    spec = {"settings": settings, "inputs": paths, "modules": ["vista.judges.kinds.api"]}
    manifest = run.root / "matching_rate" / "m" / "manifest.json"
    eyes.pause_s = 0.2
    killed = subprocess.Popen(
        [
            *(sys.executable, "-m", "vista.cli", "matching_rate"),
            *("--spec", json.dumps(spec), "--manifest", str(manifest)),
        ]
    )
    deadline = time.monotonic() + 120
    while len(eyes.requests) < 5 and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and not manifest.exists()
    eyes.pause_s = 0.0
    every = len(run.questions())
    assert 5 <= len(eyes.requests) < every
    made = run.measure("m", settings)
    # At most one question was under way when it was killed, and is asked twice.
    asked = len(eyes.requests)
    assert every <= asked <= every + 1
    again = run.measure("again", settings)
    assert len(eyes.requests) == asked
    assert again.digest == made.digest


def test_an_image_that_is_gone_is_named_before_anything_is_asked(run: Run, eyes: Eyes) -> None:
    settings = run.settings(eyes)
    (run.world.path / "images" / run.records[3].path).unlink()
    with pytest.raises(UserError, match=r"is missing: put it back, or set .*evidence to objects"):
        run.measure("m", settings)
    assert not eyes.requests


def with_judge(judge: dict[str, Any] | str) -> dict[str, Any]:
    """The smoke config, with its images judged by that judge."""
    config: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    config["metrics"] = {"matching_rate": {"evidence": "image", "judge": judge}}
    return config


SOURCE = {"source": {"kind": "checkpoint", "path": "/model"}}
LOOKING = {"api": {"base_url": "http://localhost/v1", "model": "m"}, "vlm": SOURCE}


@pytest.mark.parametrize("name", LOOKING)
def test_a_judge_that_can_look_is_shown_images(name: str) -> None:
    assert importlib.import_module(f"vista.judges.kinds.{name}").AskingJudge.looks
    parse_config(with_judge({"kind": name, **LOOKING[name]}))


@pytest.mark.parametrize(
    "judge",
    [
        "lexical",
        *({"kind": name} for name in sorted({*judge_names()} - {*LOOKING, "embedding"})),
        {"kind": "embedding", **SOURCE},
    ],
    ids=str,
)
def test_a_judge_that_cannot_look_is_refused_by_the_config(judge: dict[str, Any] | str) -> None:
    name = judge if isinstance(judge, str) else judge["kind"]
    with pytest.raises(
        UserError, match=rf"metrics\.matching_rate.*'{name}' cannot: set `judge` to"
    ):
        parse_config(with_judge(judge))
