"""Class tokens as features: the one token of an image, and families that have none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from pydantic import ValidationError

from vista.config.encoders import EncoderSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, write_records
from vista.encoders.contract import load_encoder
from vista.engine.artifacts import Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.stages import features
from vista.store.features import FeatureReader

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)


def test_the_class_token_is_the_one_that_the_class_parameter_makes(saved: Any) -> None:
    if saved.case.prefix == 0:
        with pytest.raises(UserError, match=r"no class token; set encoders\..*\.tokens: patches"):
            load_encoder(saved.folder, saved.case.family, tokens="class")
        return
    patches = load_encoder(saved.folder, saved.case.family)
    encoder = load_encoder(saved.folder, saved.case.family, tokens="class")
    assert (encoder.grid, encoder.patch, encoder.size) == ((1, 1), 24, 24)
    token = encoder.encode(IMAGES)
    assert token.shape == (2, 1, 32)
    model = transformers.AutoModel.from_pretrained(saved.folder).eval()
    tower = getattr(model, "vision_model", model)
    pixels = patches._preprocessing.normalise(IMAGES)
    with torch.no_grad():
        whole = tower(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(token[:, 0], whole[:, 0], rtol=1e-4, atol=1e-5)
        before = _embedded(tower, pixels)
        named = dict(tower.embeddings.named_parameters())
        named["class_embedding" if "class_embedding" in named else "cls_token"] += 1
        moved = (_embedded(tower, pixels) - before).abs().amax(dim=(0, 2))
    assert moved.nonzero().flatten().tolist() == [0]


def _embedded(tower: Any, pixels: Any) -> Any:
    found = tower.embeddings(pixels)
    return found[0] if isinstance(found, tuple) else found


def test_a_store_of_class_tokens_is_one_patch_an_image(save: Any, tmp_path: Path) -> None:
    for b, pixels in enumerate(IMAGES):
        Image.fromarray(pixels).save(tmp_path / f"{b}.png")
    rows = [Record(f"i{b}", "test", f"{b}.png", 24, 24) for b in range(2)]
    described = {"kind": "folder", "images": str(tmp_path), "fetch": []}
    with publishing(
        tmp_path, "records", "r", Provenance("records", described, {}, "c", {})
    ) as work:
        assert work is not None
        write_records(work / "records.parquet", rows)
    clip = save("clip_vision")
    source = {"kind": "checkpoint", "path": str(clip.folder), "family": "clip"}
    settings = EncoderSettings.model_validate({"source": source, "tokens": "class"})
    out = tmp_path / "out"
    out.mkdir()
    inputs = {"records": open_artifact(tmp_path / "records" / "r")}
    features.run(Job("features", {"encoder": settings.model_dump()}, inputs, out))
    store = FeatureReader(out / "features.zarr")
    wanted = load_encoder(clip.folder, "clip", tokens="class").encode(IMAGES).numpy()
    np.testing.assert_allclose(store.read([0, 1]), wanted, atol=1e-2)
    placing = json.loads((out / "geometry.json").read_text())
    assert ImageGeometry(24, 24, **placing).grid == store.grid == (1, 1)


def test_a_prefix_without_a_class_token_is_told(save: Any) -> None:
    # Two tokens of I-JEPA's 36 taken for a prefix: none of them is a class token.
    with pytest.raises(UserError, match="no class token"):
        load_encoder(save("ijepa").folder, "ijepa", prefix_tokens=2, tokens="class")


@pytest.mark.parametrize("family", ["siglip", "siglip2", "ijepa"])
def test_settings_refuse_families_without_one(family: str) -> None:
    source = {"kind": "checkpoint", "path": "x", "family": family}
    with pytest.raises(ValidationError, match=f"{family} has no class token; set tokens: patches"):
        EncoderSettings.model_validate({"source": source, "tokens": "class"})
    assert EncoderSettings.model_validate({"source": source}).tokens == "patches"
