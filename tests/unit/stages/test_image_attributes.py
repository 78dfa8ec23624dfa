"""Attributes in images that a planted vision SAE finds, and its controls do not."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fake_endpoint import Endpoint
from PIL import Image, ImageColor

from tests.long_table import figures_of, read_rows
from vista.data.records import Box, Object, Record, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.metrics.image_attributes import ImageAttributeSettings
from vista.metrics.image_attributes import stage as image_attributes
from vista.metrics.image_attributes.report import (
    image_attributes_figure,
    image_attributes_section,
)
from vista.metrics.results import read_result
from vista.report.table import LongTable
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.store.features import FeatureWriter

D, PATCHES = 12, 4
COLOURS, NOUNS = ("red", "blue", "green"), ("cat", "cow", "pig", "owl")
WORDS = (*COLOURS, *NOUNS)
SPLITS = {"train": 108, "validation": 60, "test": 84}


BLOCK = {"encoder": {"source": {"kind": "standin"}}}


def publish(
    root: Path, stage: str, write: Callable[[Path], Any], settings: dict[str, Any] | None = None
) -> Artifact:
    node = f"n{len(list(root.glob(f'{stage}/*')))}"
    with publishing(root, stage, node, Provenance(stage, settings or {}, {}, "c", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / node)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Images of a colour and a noun, each in a direction of its own on one of four patches; an SAE
    of these directions, with a latent that fires everywhere."""
    torch.set_num_threads(1)
    root, rng = tmp_path_factory.mktemp("results"), np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(D, D)))
    split_b = [split for split, n in SPLITS.items() for _ in range(n)]
    x_bpd = rng.normal(0, 0.1, (len(split_b), PATCHES, D))
    records = []
    for b, split in enumerate(split_b):
        colour, noun = COLOURS[b % 3], NOUNS[b % 4]
        for word in (colour, noun):
            x_bpd[b, rng.integers(PATCHES)] += 2 * basis[WORDS.index(word)]
        # Captions leave some out, and annotations alone tell an owl.
        caption = f"A {colour} {'thing' if noun == 'owl' else noun}." if b % 10 else "A thing."
        objects = (Object(noun, Box(0, 0, 8, 8)),)
        records.append(Record(f"i{b}", split, f"{b}.png", 16, 16, (caption,), (), objects))

    def write_features(work: Path) -> None:
        writer = FeatureWriter(work / "features.zarr", [r.image_id for r in records], (2, 2), D)
        writer.write_shard(0, x_bpd.astype(np.float16))
        writer.close()

    sae = SparseAutoencoder(
        SaeConfig("standard", D, D, 2, "planted"),
        {
            "W_enc": torch.from_numpy(basis.T.astype(np.float32)),
            "W_dec": torch.from_numpy(basis.astype(np.float32)),
            "b_enc": torch.tensor([-0.5] * len(WORDS) + [5.0] + [-0.5] * (D - len(WORDS) - 1)),
            "b_dec": torch.zeros(D),
        },
    )
    return {
        "features": publish(root, "features", write_features, BLOCK),
        "records": publish(
            root,
            "records",
            lambda work: write_records(work / "records.parquet", records),
            {"kind": "drawn"},
        ),
        "sae": publish(root, "train_vision_sae", lambda work: save_sae(work, sae)),
        "check": publish(
            root, "check_vision_sae", lambda work: (work / "result.json").write_text('{"l0": 1.5}')
        ),
    }


def run(inputs: dict[str, Artifact], root: Path, **settings: Any) -> Artifact:
    own = ImageAttributeSettings(**settings).model_dump(mode="json")
    return publish(
        root,
        "image_attributes",
        lambda work: image_attributes.run(Job("image_attributes", own, inputs, work)),
    )


def test_planted_latents_are_found_and_controls_are_not(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    found = run(inputs, tmp_path)
    result = read_result(found)
    assert result["images"] == {
        "fit_split": 108, "rank_split": 60, "split": 84
    }  # fmt: skip
    by_name = result["dictionaries"]
    recall = {name: each["recall"]["all"]["value"] for name, each in by_name.items()}
    # One latent a value.
    assert recall["sae"] == 1 and by_name["sae"]["correct"]["value"] == 1
    assert by_name["sae"]["recall"]["noun"]["n"] == 4 and "row" not in by_name["sae"]["recall"]
    # The words of other images verify nothing.
    assert all(each["correct"]["chance"] in (0, None) for each in by_name.values())
    assert by_name["random_latents"]["correct"]["n"] == by_name["sae"]["correct"]["n"] == 7
    assert max(recall["neurons"], recall["random"]) < 0.6
    items = pq.read_table(found.file("items.parquet")).to_pylist()
    own = [row for row in items if row["dictionary"] == "sae"]
    assert [row["rank"] for row in own] == list(range(7))
    # The latent that fires on every image was not proposed.
    assert {row["latent"]: row["name"] for row in own} == dict(enumerate(WORDS))
    assert {row["name"]: row["attribute"] for row in own}["owl"] == "noun"
    assert run(inputs, tmp_path).digest == found.digest

    point = {"metric": "image_attributes", "encoder": "dinov2", "method": "topk"}
    table = LongTable(figures_of(point, read_rows(found)))
    grid, attributes = image_attributes_section(table).grids
    assert [tuple(row[1:5]) for row in grid.rows] == [
        ("2", "topk", "–", name)
        for name in ("SAE", "neurons", "random dictionary", "random latents")
    ]  # fmt: skip
    assert [row[2:4] for row in attributes.rows] == [
        ["all", "1.000"], ["colour", "1.000"], ["noun", "1.000"]
    ]  # fmt: skip
    assert image_attributes_figure(table) is not None
    assert image_attributes_figure(LongTable([])) is None


def test_few_images_and_other_attributes(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    found = read_result(run(inputs, tmp_path, images=40, attributes={"kind": ("thing", "sky")}))
    assert set(found["images"].values()) == {40}
    assert found["dictionaries"]["sae"]["recall"]["all"]["n"] == 1  # nobody says sky
    with pytest.raises(UserError, match=r"of 108 images name no value of an attribute 3 times"):
        run(inputs, tmp_path, attributes={"place": ("sky",)})


def test_a_judge_names_by_sheets_of_top_images(
    inputs: dict[str, Artifact], tmp_path: Path, endpoint: Endpoint
) -> None:
    def write_images(work: Path) -> None:
        (work / "images").mkdir()
        for b in range(sum(SPLITS.values())):
            Image.new("RGB", (16, 16), COLOURS[b % 3]).save(work / f"images/{b}.png")

    def say(_: Any) -> str:
        url = endpoint.requests[-1]["messages"][1]["content"][0]["image_url"]["url"]
        sheet = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        assert sheet.size == (392, 392)
        tiles = {sheet.getpixel((64 + 132 * x, 64 + 132 * y)) for x in range(3) for y in range(3)}
        names = [name for name in COLOURS if ImageColor.getrgb(name) in tiles]
        return json.dumps({"name": f"A {names[0]}." if len(names) == 1 else "no one knows what"})

    endpoint.script = [say] * 200
    judge = {"kind": "api", "base_url": endpoint.url, "model": "small", "concurrency": 1}
    world = publish(tmp_path, "draw_world", write_images)
    settings = {"judge": judge, "judged_latents": 7}
    found = run({**inputs, "world": world}, tmp_path, **settings)
    own = read_result(found)["dictionaries"]["sae"]
    assert own["precision"]["n"] == 3 and own["recall"]["colour"]["value"] == 1
    assert own["recall"]["noun"]["value"] == 0  # sheets of a noun are of all colours
    rows = pq.read_table(found.file("items.parquet")).to_pylist()
    assert {row["name"] for row in rows} == set(COLOURS)
    tally, asked = json.loads(found.file("judge.json").read_text()), len(endpoint.requests)
    assert 0 < tally["unanswered"] < tally["verdicts"]
    # What was named is not asked again; what was not is asked twice, as every malformed answer.
    assert run({**inputs, "world": world}, tmp_path, **settings).digest == found.digest
    assert len(endpoint.requests) - asked == 2 * tally["unanswered"]
