"""The features of a blank image: those of a blank file, whatever the family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vista.config.encoders import EncoderSettings
from vista.data.records import Record, write_records
from vista.encoders.contract import load_encoder
from vista.engine.artifacts import Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs.blank_image import Colour, blank_features
from vista.stages import features
from vista.store.features import FeatureReader


@pytest.mark.parametrize("colour", ["white", "mean", "black"])
@pytest.mark.parametrize(
    "changes", [{}, {"tokens": "class"}, {"fit": "crop"}, {"pool": 2, "layer": 0}]
)
def test_they_are_what_the_features_of_a_blank_file_are(
    save: Any, tmp_path: Path, colour: Colour, changes: dict[str, Any]
) -> None:
    clip = save("clip_vision")
    source = {"kind": "checkpoint", "path": str(clip.folder), "family": "clip"}
    settings = EncoderSettings.model_validate({"source": source, **changes})
    mean = load_encoder(clip.folder, "clip").mean_colour
    fill = {"white": (255, 255, 255), "mean": mean, "black": (0, 0, 0)}[colour]
    # Square and of another size than the encoder's: nothing is padded.
    Image.new("RGB", (50, 50), fill).save(tmp_path / "blank.png")
    described = {"kind": "folder", "images": str(tmp_path), "fetch": []}
    record = Provenance("records", described, {}, "c", {})
    with publishing(tmp_path, "records", "r", record) as work:
        assert work is not None
        write_records(work / "records.parquet", [Record("b", "test", "blank.png", 50, 50)])
    out = tmp_path / "out"
    out.mkdir()
    inputs = {"records": open_artifact(tmp_path / "records" / "r")}
    features.run(Job("features", {"encoder": settings.model_dump()}, inputs, out))
    stored = FeatureReader(out / "features.zarr").read([0])[0]
    np.testing.assert_array_equal(blank_features(settings, None, colour), stored)


def test_a_combined_encoder_is_shown_no_picture() -> None:
    source = {"kind": "combined", "encoders": ["a", "b"]}
    settings = EncoderSettings.model_validate({"source": source})
    with pytest.raises(UserError, match="a combined one reads the features of its parts; name one"):
        blank_features(settings, None, "white")
