"""Several jobs that do a part each of one artifact: together, and with the bytes of one job."""

from __future__ import annotations

import functools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from vista.cli import main
from vista.config.data import FolderData
from vista.config.encoders import CheckpointEncoder, EncoderSettings
from vista.data.records import Record, write_records
from vista.engine import artifacts
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing, sharing
from vista.engine.job import Job
from vista.engine.plan import Plan, load_plan
from vista.stages import features
from vista.store.features import FeatureWriter

RECORD = Provenance("features", {"seed": 0}, {}, {}, {})
IMAGES, SHARD = 7, 2


def test_parts_are_done_at_the_same_time_and_publishing_waits_for_them(tmp_path: Path) -> None:
    together = threading.Barrier(3, timeout=120)
    published = threading.Event()
    left: list[str] = []

    def part(name: str) -> None:
        with sharing(tmp_path, "features", "n", RECORD) as work:
            assert work is not None
            (work / name).write_text(name)
            together.wait()
            published.wait(0.5)
            left.append(name)

    def publish() -> None:
        together.wait()
        with publishing(tmp_path, "features", "n", RECORD) as work:
            assert work is not None
            assert sorted(left) == ["a", "b"]
        published.set()

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(part, "a"), pool.submit(part, "b"), pool.submit(publish)]:
            done.result()
    made = open_artifact(tmp_path / "features" / "n")
    assert set(made.checksums) == {"a", "b"}
    with sharing(tmp_path, "features", "n", RECORD) as work:
        assert work is None


def test_a_part_that_came_too_early_does_not_wait_for_the_whole_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = artifacts._prepared
    with sharing(tmp_path, "features", "n", RECORD) as first:
        # As if the other had prepared the folder right after this one looked.
        answers = iter([False])
        monkeypatch.setattr(artifacts, "_prepared", lambda *args: next(answers, real(*args)))
        found: list[Path | None] = []

        def second() -> None:
            with sharing(tmp_path, "features", "n", RECORD) as work:
                found.append(work)

        waiting = threading.Thread(target=second, daemon=True)
        waiting.start()
        waiting.join(timeout=120)
        assert found == [first]


def test_a_part_of_something_else_starts_afresh(tmp_path: Path) -> None:
    with sharing(tmp_path, "features", "n", RECORD) as work:
        assert work is not None
        (work / "shard").write_text("of seed 0")
    with sharing(tmp_path, "features", "n", RECORD) as work:
        assert work is not None
        assert (work / "shard").exists()
    other = Provenance("features", {"seed": 1}, {}, {}, {})
    with sharing(tmp_path, "features", "n", other) as work:
        assert work is not None
        assert not (work / "shard").exists()


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Artifact]:
    """Images of noise with their records, and a small vision transformer."""
    import torch
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
    )
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    names = [f"{i}.png" for i in range(IMAGES)]
    for name in names:
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    settings = FolderData(kind="folder", images=str(tmp_path / "photos")).model_dump(mode="json")
    record = Provenance("records", settings, {}, {}, {})
    with publishing(tmp_path, "records", "n", record) as work:
        assert work is not None
        rows = [Record(name, "train", name, 16, 16) for name in names]
        write_records(work / "records.parquet", rows)
    with publishing(
        tmp_path, "fetch_model", "n", Provenance("fetch_model", {}, {}, {}, {})
    ) as work:
        assert work is not None
        with torch.random.fork_rng():
            torch.manual_seed(0)
            ViTModel(config).save_pretrained(work / "model")
        preprocessor = {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 16, "width": 16},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
        (work / "model" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return {role: open_artifact(tmp_path / stage / "n") for role, stage in ROLES.items()}


ROLES = {"records": "records", "encoder": "fetch_model"}


def test_parts_have_the_bytes_of_one_job_whatever_is_left_of_them(
    tmp_path: Path, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "FeatureWriter", functools.partial(FeatureWriter, shard=SHARD))
    source = CheckpointEncoder(kind="checkpoint", family="vit", path="unused")
    settings = {"encoder": EncoderSettings(source=source).model_dump(mode="json")}
    encoded = []
    write = FeatureWriter.write_shard

    def counted(self: FeatureWriter, shard: int, values: NDArray[Any]) -> None:
        encoded.append(shard)
        write(self, shard, values)

    monkeypatch.setattr(FeatureWriter, "write_shard", counted)

    def run(root: Path, part: tuple[int, int] | None) -> list[int]:
        """Run one job; return the shards that it wrote."""
        encoded.clear()
        place = publishing if part is None else sharing
        with place(root, "features", "n", RECORD) as work:
            assert work is not None
            features.run(Job("features", settings, inputs, work, part=part))
        return list(encoded)

    assert run(tmp_path / "one", None) == [0, 1, 2, 3]
    root = tmp_path / "three"
    # More shards than jobs, none twice; the last job has not come yet.
    assert [run(root, (part, 3)) for part in (2, 1)] == [[1], [0]]
    assert not (root / "features").exists()
    assert run(root, (1, 3)) == []
    assert run(root, (3, 3)) == [2, 3]
    # A shard that was damaged since is made again by the job that publishes.
    shard = next((root / ".work").rglob("c/1/0/0"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert run(root, None) == [1]
    first, second = (open_artifact(tmp_path / name / "features" / "n") for name in ("one", "three"))
    assert first.manifest == second.manifest
    assert first.checksums == second.checksums


def planned(jobs: int) -> Plan:
    content = yaml.safe_load((Path(__file__).parents[3] / "config" / "paper.yaml").read_text())
    content["encoders"]["clip"]["jobs"] = jobs
    return load_plan(content)


def test_the_number_of_jobs_changes_no_order_and_features_that_are_there_keep_theirs() -> None:
    one, four = planned(1), planned(4)
    assert {key: node.spec for key, node in one.nodes.items()} == {
        key: node.spec for key, node in four.nodes.items()
    }
    clip = next(
        folder for stage, folder in one.nodes if stage == "features" and folder.startswith("clip-")
    )
    start = f"{one.results}/.work/features/{clip}"
    never = [plan.parts(clip, lambda manifest: None) for plan in (one, four)]
    assert never == [[], [f"{start}.{part}of4" for part in (1, 2, 3, 4)]]
    inputs = [file for role in four.inputs(clip, four.node(clip).inputs).values() for file in role]
    made_from = [*inputs, f"{start}.1of2", f"{start}.2of2"]
    recorded = {f"{four.results}/features/{clip}/manifest.json": made_from}
    assert four.parts(clip, recorded.get) == made_from[-2:]
    assert one.parts(clip, recorded.get) == made_from[-2:]
    assert four.parts(clip, lambda manifest: inputs) == []


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b"])
def test_a_part_that_is_none_is_refused(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["features", "--spec", "{}", "--manifest", "a/b/c/manifest.json", "--part", part])
    assert "--part" in capsys.readouterr().err
