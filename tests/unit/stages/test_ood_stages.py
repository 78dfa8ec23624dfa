"""Both experiments out of distribution, on planted features: what is read of what, and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.long_table import read_rows
from vista.data.records import Box, Object, Record, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.metrics.ood_detection import OodDetectionSettings
from vista.metrics.ood_detection import stage as ood_detection
from vista.metrics.ood_generalization import OodGeneralizationSettings
from vista.metrics.ood_generalization import stage as ood_generalization
from vista.metrics.results import read_result
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.store.features import FeatureWriter

D, PATCHES = 8, 4
CLASSES = ("ant", "bee", "cow")


def publish(root: Path, stage: str, write: Callable[[Path], Any]) -> Artifact:
    node = f"n{len(list(root.glob(f'{stage}/*')))}"
    with publishing(root, stage, node, Provenance(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / node)


def images(root: Path, channel_of: dict[str, int], splits: dict[str, int], seed: int) -> Any:
    """Features and records of images that show the classes in turn, on two patches of theirs in a
    channel each; every fifth shows a second class, and tells so."""
    rng = np.random.default_rng(seed)
    names = list(channel_of)
    split_b = [split for split, n in splits.items() for _ in range(n)]
    x = rng.normal(0, 0.1, (len(split_b), PATCHES, D)).astype(np.float16)
    records = []
    for b, split in enumerate(split_b):
        shown = [names[b % len(names)]] + ([names[(b + 1) % len(names)]] if b % 5 == 4 else [])
        for place, name in enumerate(shown):
            x[b, 2 * place : 2 * place + 2, channel_of[name]] += 3
        objects = tuple(Object(name, Box(0, 0, 8, 8)) for name in shown if name != "nothing")
        records.append(Record(f"i{b}", split, f"{b}.png", 16, 16, objects=objects))

    def write_features(work: Path) -> None:
        writer = FeatureWriter(work / "features.zarr", [r.image_id for r in records], (2, 2), D)
        writer.write_shard(0, x)
        writer.close()

    return {
        "features": publish(root, "features", write_features),
        "records": publish(
            root, "records", lambda w: write_records(w / "records.parquet", records)
        ),
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run's data, an SAE whose latents are the channels less .5, its check, and four sets."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("results")
    weights = {"W_enc": torch.eye(D), "W_dec": torch.eye(D)}
    weights |= {"b_enc": torch.full((D,), -0.5), "b_dec": torch.zeros(D)}
    sae = SparseAutoencoder(SaeConfig("standard", D, D, 0, "planted"), weights)
    own = {name: c for c, name in enumerate(CLASSES)}
    test = {"test": 45}
    return {
        **images(root, own, {"train": 90, "test": 60}, 0),
        "sae": publish(root, "train_vision_sae", lambda work: save_sae(work, sae)),
        "check": publish(
            root, "check_vision_sae", lambda w: (w / "result.json").write_text('{"l0": 1.0}')
        ),
        "same": images(root, own, test, 1),
        "moved": images(root, {"ant": 1, "bee": 0}, test, 2),
        "other": images(root, {"nothing": 6}, test, 3),
        "unknown": images(root, {"ant": 0, "yak": 2}, test, 4),
    }


def run(stage: Any, settings: Any, inputs: dict[str, Any], names: list[str], out: Path) -> Artifact:
    read = {name: inputs[name] for name in ("features", "records", "sae", "check")}
    read |= {f"set_{role}": [inputs[n][role] for n in names] for role in ("features", "records")}
    name = stage.__name__.rsplit(".", 1)[1]
    own = settings.model_dump(mode="json") | {"sae": {"device": inputs.get("device", "cpu")}}
    return publish(out, name, lambda work: stage.run(Job(name, own, read, work)))


def test_scores_tell_the_set_that_lies_elsewhere(inputs: dict[str, Any], tmp_path: Path) -> None:
    settings = OodDetectionSettings(
        near=("same",), far=("other",), neighbours=3, fit_images=60, core_share=0.5
    )
    found = run(ood_detection, settings, inputs, ["same", "other"], tmp_path)
    value = {(row["metric"], row["of"], row["set"]): row["value"] for row in read_rows(found)}
    read = ("knn_latents", "mahalanobis_latents", "profile_latents", "energy_profile_latents")
    for score in (*read, "knn_raw"):
        assert value["far_ood_auroc", score, "other"] > 0.95
        assert 0.35 < value["near_ood_auroc", score, "same"] < 0.65
    result = read_result(found)
    assert (result["n_fitted"], result["sets"]["other"]["n_in"]) == (60, 60)
    items = pq.read_table(found.file("items.parquet")).to_pydict()
    assert [items["set"].count(name) for name in ("", "same", "other")] == [60, 45, 45]
    # The run's own judged images are those of its test split.
    assert items["image_id"][0] == "i90"


def test_parts_of_a_set_are_not_to_be_seen(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = OodDetectionSettings(far=("other",), neighbours=3)
    whole, parts = [], []
    for size, found in ((1024, whole), (7, parts)):
        monkeypatch.setattr("vista.inputs.image_sets._IMAGES", size)
        made = run(ood_detection, settings, inputs, ["other"], tmp_path)
        found.append(pq.read_table(made.file("items.parquet")).to_pydict())
    for name, values in whole[0].items():
        same = parts[0][name]
        assert same == (values if isinstance(values[0], str) else pytest.approx(values, abs=1e-5))


def test_probes_read_images_of_one_class(inputs: dict[str, Any], tmp_path: Path) -> None:
    settings = OodGeneralizationSettings(shifts=("same", "moved"), latents=(2,))
    found = read_result(run(ood_generalization, settings, inputs, ["same", "moved"], tmp_path))
    assert (found["n_fitted"], found["n_classes"]) == (72, 3)
    assert found["inside"]["accuracy"]["latents"]["n"] == 48
    assert found["inside"]["accuracy"]["latents"]["value"] == 1
    same, moved = found["sets"]["same"], found["sets"]["moved"]
    assert same["accuracy"]["latents"]["value"] == 1
    # What probes learnt to be an ant is a bee there.
    assert moved["accuracy"]["latents"]["value"] == 0
    assert (moved["drop"]["raw"]["value"], moved["drop"]["raw"]["n"]) == (1, 36)


def test_mistakes_are_named(inputs: dict[str, Any], tmp_path: Path) -> None:
    def fails(stage: Any, match: str, set_name: str, **changes: Any) -> None:
        kind = OodDetectionSettings if stage is ood_detection else OodGeneralizationSettings
        own = {"far": (set_name,)} if stage is ood_detection else {"shifts": (set_name,)}
        with pytest.raises(UserError, match=match):
            run(stage, kind(**own, **changes), inputs, [set_name], tmp_path)

    fails(ood_generalization, "unknown shows the class 'yak'", "unknown")
    fails(ood_generalization, "same shows the class .* no image shows alone", "same", fit_images=2)
    fails(ood_generalization, "other: no image of split 'test' shows one class alone", "other")
    fails(ood_generalization, "fit_split: the data has no image", "same", fit_split="validation")
    fails(ood_detection, "far: same: the data has no image of split 'train'", "same",
          fit_split="test", split="train")  # fmt: skip
    fails(ood_detection, "90 images", "same", neighbours=91)
    with pytest.raises(UserError, match="device: mps is not on this machine"):
        settings = OodDetectionSettings(far=("same",))
        run(ood_detection, settings, {**inputs, "device": "mps"}, ["same"], tmp_path)
