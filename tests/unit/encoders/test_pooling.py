"""Patches averaged to fewer tokens: the weights, the stage, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError

from vista.config.encoders import EncoderSettings
from vista.config.reading import parse_config
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, write_records
from vista.encoders.contract import load_encoder
from vista.encoders.pooling import cell_weights, pool_tokens
from vista.engine.artifacts import Provenance, open_artifact, publishing
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import Job
from vista.engine.plan import load_plan
from vista.errors import UserError
from vista.inputs.latents import read_geometry
from vista.stages import features
from vista.store.features import FeatureReader

DEFAULT = Path(__file__).parents[3] / "config" / "default.yaml"
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize(("side", "cells"), [(9, 3), (8, 4), (6, 6), (6, 1)])
def test_whole_patches_are_averaged_plainly(side: int, cells: int) -> None:
    x_bpd = torch.randn(2, side * side, 5, generator=torch.Generator().manual_seed(side))
    n = side // cells
    plain = x_bpd.reshape(2, cells, n, cells, n, 5).mean(dim=(2, 4)).reshape(2, -1, 5)
    torch.testing.assert_close(pool_tokens(x_bpd, cells), plain)


@pytest.mark.parametrize(("side", "cells"), [(9, 4), (9, 5), (7, 3), (16, 5)])
def test_parts_of_patches_count_by_their_area(side: int, cells: int) -> None:
    """Every patch split into cells x cells equal parts, of which a cell holds whole ones."""
    x_bpd = torch.randn(2, side * side, 3, generator=torch.Generator().manual_seed(side))
    x_brcd = x_bpd.reshape(2, side, side, 3)
    fine = x_brcd.repeat_interleave(cells, 1).repeat_interleave(cells, 2)
    mean = fine.reshape(2, cells, side, cells, side, 3).mean(dim=(2, 4)).reshape(2, -1, 3)
    torch.testing.assert_close(pool_tokens(x_bpd, cells), mean)


def test_nine_patches_in_four_cells() -> None:
    weight_ir = cell_weights(9, 4) * 9 / 4
    assert weight_ir[0].tolist() == [1, 1, 0.25, 0, 0, 0, 0, 0, 0]
    assert weight_ir[1].tolist() == [0, 0, 0.75, 1, 0.5, 0, 0, 0, 0]
    torch.testing.assert_close(cell_weights(9, 5).sum(dim=1), torch.ones(5))


def test_a_store_of_pooled_patches_has_their_grid(save: Any, tmp_path: Path) -> None:
    for b, pixels in enumerate(IMAGES):
        Image.fromarray(pixels).save(tmp_path / f"{b}.png")
    rows = [Record(f"i{b}", "test", f"{b}.png", 24, 24) for b in range(2)]
    described = {"kind": "folder", "images": str(tmp_path), "fetch": []}
    record = Provenance("records", described, {}, "c", {})
    with publishing(tmp_path, "records", "r", record) as work:
        assert work is not None
        write_records(work / "records.parquet", rows)
    clip = save("clip_vision")
    source = {"kind": "checkpoint", "path": str(clip.folder), "family": "clip"}
    settings = EncoderSettings.model_validate({"source": source, "pool": 4})
    inputs = {"records": open_artifact(tmp_path / "records" / "r")}
    with publishing(tmp_path, "features", "f", Provenance("features", {}, {}, "c", {})) as work:
        assert work is not None
        features.run(Job("features", {"encoder": settings.model_dump()}, inputs, work))
    made = open_artifact(tmp_path / "features" / "f")
    store = FeatureReader(made.store("features.zarr"))
    whole = load_encoder(clip.folder, "clip")
    side = whole.grid[0]
    assert side % 4 != 0
    expected = pool_tokens(whole.encode(IMAGES), 4).numpy()
    np.testing.assert_allclose(store.read([0, 1]), expected, atol=1e-2)
    placing = json.loads((made.path / "geometry.json").read_text())
    assert placing == {"size": 24, "patch": whole.patch, "fit": "pad", "pool": 4}
    geometry = ImageGeometry(24, 24, **read_geometry(made))
    assert geometry.grid == store.grid == (4, 4)
    assert geometry.patch_to_box(5) == (6, 6, 6, 6)
    with pytest.raises(UserError, match=f"expected 1..{side}, not {side + 1}, since the clip"):
        load_encoder(clip.folder, "clip", pool=side + 1)


def test_settings_refuse_what_cannot_be_pooled() -> None:
    source = {"kind": "standin", "family": "clip"}
    with pytest.raises(ValidationError, match="tokens: class keeps none"):
        EncoderSettings.model_validate({"source": source, "tokens": "class", "pool": 2})
    with pytest.raises(ValidationError, match="pool"):
        EncoderSettings.model_validate({"source": source, "pool": 0})
    content = yaml.safe_load(DEFAULT.read_text())
    name = next(iter(content["encoders"]))
    content["encoders"][name]["pool"] = 6
    parse_config(content, "x")
    content["encoders"][name]["pool"] = 7
    with pytest.raises(UserError, match=rf"encoders\.{name}\.pool: expected at most 6"):
        parse_config(content, "x")


def test_a_plan_counts_pooled_tokens(tmp_path: Path) -> None:
    content = yaml.safe_load(DEFAULT.read_text()) | {"results": str(tmp_path)}
    name = next(iter(content["encoders"]))
    before = {node.id: node for node in load_plan(content).nodes.values()}
    content["encoders"][name]["pool"] = 4
    nodes = load_plan(content).nodes.values()
    changed = {node.stage for node in nodes if node.id not in before}
    assert "features" in changed and not {"train_encoder", "train_sae", "records"} & changed
    shapes = Shapes(tmp_path, nodes)
    (pooled,) = (n for n in nodes if n.stage == "features" and "pool" in n.settings["encoder"])
    shape = shapes.vision(pooled)
    assert shape is not None
    # The encoder still computes all of its 36 patches and the class token.
    prefix = 0 if pooled.settings["encoder"]["source"]["family"] == "siglip" else 1
    assert (shape.patches, shape.patches + shape.prefix) == (16, 36 + prefix)
