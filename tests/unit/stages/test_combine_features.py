"""Two encoders' features as one: which number lies where, and pairs that do not go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vista.config.encoders import EncoderSettings, refuse_unfit_parts
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.engine.plan import load_plan
from vista.errors import UserError
from vista.inputs.latents import read_geometry
from vista.inputs.maps import read_frames
from vista.inputs.windows import read_windows
from vista.stages import combine_features
from vista.store.features import FeatureReader, FeatureWriter

# More than one shard.
IDS = [f"image_{i}" for i in range(260)]
PLACING = {"size": 16, "patch": 8, "fit": "pad"}


def features(
    root: Path, name: str, width: int, ids: list[str] = IDS, side: int = 2, **placing: Any
) -> Artifact:
    rng, columns = np.random.default_rng(width), side * placing.get("per_patch", 1)
    with publishing(root, "features", name, Provenance("features", {}, {}, "", {})) as work:
        assert work is not None
        writer = FeatureWriter(work / "features.zarr", ids, (side, columns), width)
        for shard in range(writer.shards):
            shape = (len(writer.shard_images(shard)), side * columns, width)
            writer.write_shard(shard, rng.normal(size=shape).astype(np.float16))
        writer.close()
        (work / "geometry.json").write_text(json.dumps({**PLACING, **placing}))
    return open_artifact(root / "features" / name)


def combine(root: Path, how: str, *parts: Artifact, **more: Any) -> Artifact:
    settings = {"encoder": {"source": {"kind": "combined", "how": how, **more}}}
    with publishing(root, "combine_features", how, Provenance("x", {}, {}, "", {})) as work:
        assert work is not None
        combine_features.run(Job("x", settings, {"features": list(parts)}, work))
    return open_artifact(root / "combine_features" / how)


def test_channels_stand_side_by_side_and_tokens_in_turn(tmp_path: Path) -> None:
    # The same patches of a larger input are the same parts of an image.
    parts = [features(tmp_path, "a", 3), features(tmp_path, "b", 5, size=32, patch=16)]
    a, b = (FeatureReader(part.store("features.zarr")).read(range(260)) for part in parts)
    both = combine(tmp_path, "concat", *parts)
    reader = FeatureReader(both.store("features.zarr"))
    assert (reader.grid, reader.image_ids) == ((2, 2), IDS)
    np.testing.assert_array_equal(reader.read(range(260)), np.concatenate([a, b], axis=2))
    assert read_geometry(both) == {**PLACING, "per_patch": 1}
    turns = combine(tmp_path, "interleave", *parts)
    reader = FeatureReader(turns.store("features.zarr"))
    x = reader.read(range(260))
    assert (reader.grid, x.shape) == ((2, 4), (260, 8, 5))
    np.testing.assert_array_equal(x[:, 0::2, :3], a)
    np.testing.assert_array_equal(x[:, 1::2], b)
    assert not x[:, 0::2, 3:].any()
    assert read_geometry(turns) == {**PLACING, "per_patch": 2}


def test_the_tokens_of_a_patch_stay_together(tmp_path: Path) -> None:
    parts = [features(tmp_path, "clip", 3, per_patch=2), features(tmp_path, "still", 5)]
    a, b = (FeatureReader(part.store("features.zarr")).read(range(260)) for part in parts)
    turns = combine(tmp_path, "interleave", *parts)
    reader = FeatureReader(turns.store("features.zarr"))
    x = reader.read(range(260))
    assert (reader.grid, x.shape) == ((2, 6), (260, 12, 5))
    np.testing.assert_array_equal(x[:, 0::3, :3], a[:, 0::2])
    np.testing.assert_array_equal(x[:, 1::3, :3], a[:, 1::2])
    np.testing.assert_array_equal(x[:, 2::3], b)
    assert read_geometry(turns) == {**PLACING, "per_patch": 3}
    with pytest.raises(UserError, match="as many tokens a patch, not 2 and 1"):
        combine(tmp_path, "concat", *parts)
    pair = [parts[0], features(tmp_path, "other", 4, per_patch=2)]
    both = combine(tmp_path, "concat", *pair)
    assert FeatureReader(both.store("features.zarr")).grid == (2, 4)
    assert read_geometry(both) == {**PLACING, "per_patch": 2}


def test_frames_of_clips_stay_frames_where_no_token_is_added(tmp_path: Path) -> None:
    clips = [features(tmp_path, name, 3, per_patch=2, frames=2) for name in ("a", "b")]
    unknown = features(tmp_path, "c", 3, per_patch=2)
    still = features(tmp_path, "d", 3)
    assert read_frames(combine(tmp_path / "clips", "concat", *clips)) == 2
    assert read_frames(combine(tmp_path / "unknown", "concat", clips[0], unknown)) == 1
    assert read_frames(combine(tmp_path / "turns", "interleave", *clips)) == 1
    assert read_frames(combine(tmp_path / "still", "interleave", clips[0], still)) == 1


def test_windows_of_maps_of_other_grids_stand_at_their_places(tmp_path: Path) -> None:
    parts = [
        features(tmp_path, "a", 3, side=4, size=32),
        features(tmp_path, "b", 5),
        features(tmp_path, "c", 2, side=6, size=84, patch=14),
    ]
    a, b, c = (FeatureReader(part.store("features.zarr")).read(range(260)) for part in parts)
    made = combine(tmp_path, "windows", *parts, grid=2)
    reader = FeatureReader(made.store("features.zarr"))
    assert (reader.grid, reader.shape) == ((2, 2), (260, 4, 4 * 3 + 5 + 9 * 2))
    x = reader.read([0, 259])
    # The place in the first row and the second column.
    expected = [a[i, p] for i, p in ((259, 2), (259, 3), (259, 6), (259, 7))]
    rows = [c[259, 6 * row + column] for row in range(3) for column in range(3, 6)]
    np.testing.assert_array_equal(x[1, 1], np.concatenate([*expected, b[259, 1], *rows]))
    assert read_geometry(made) == {**PLACING, "size": 32, "per_patch": 1, "pool": 2}
    assert read_windows(made, 35) == ((4, 3), (1, 5), (9, 2))
    assert read_windows(parts[0], 3) == ((1, 3),)
    with pytest.raises(UserError, match="rebuild them"):
        read_windows(made, 36)
    with pytest.raises(UserError, match="2 x 2, of which 4 x 4 places have no whole windows"):
        combine(tmp_path / "four", "windows", *parts, grid=4)
    with pytest.raises(UserError, match="the same parts of an image"):
        other = features(tmp_path, "d", 3, side=4, size=36)
        combine(tmp_path / "other", "windows", parts[0], other, grid=2)


def test_pooled_patches_are_combined_where_they_are_the_same_parts(tmp_path: Path) -> None:
    pooled = features(tmp_path, "a", 3, size=126, patch=14, pool=2)
    both = combine(tmp_path, "concat", pooled, features(tmp_path, "b", 5))
    assert read_geometry(both) == {
        **PLACING,
        "size": 126,
        "patch": 14,
        "pool": 2,
        "per_patch": 1,
    }
    assert FeatureReader(both.store("features.zarr")).grid == (2, 2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"ids": IDS[::-1]}, "another order"),
        ({"side": 3, "size": 24}, "grids are 2 x 2 and 3 x 3"),
        ({"fit": "crop"}, "16, 8, pad and 16, 8, crop"),
        ({"size": 18}, "16, 8, pad and 18, 8, pad"),
        ({"size": 27, "pool": 2}, "16, 8, pad and 27, 8, pad, 2"),
    ],
)
def test_a_pair_that_does_not_go_together_is_refused(
    tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        combine(tmp_path, "concat", features(tmp_path, "a", 3), features(tmp_path, "b", 3, **other))


def test_a_combined_encoder_is_one_of_the_sweep() -> None:
    content = yaml.safe_load((Path(__file__).parents[3] / "config" / "default.yaml").read_text())
    first, second = list(content["encoders"])[:2]
    source = {"kind": "combined", "encoders": [first, second]}
    content |= {"metrics": {"probe": {}}, "interventions": None, "paper_faithful": True}
    content["encoders"] |= {
        "both": {"source": source},
        "turns": {"source": {**source, "how": "interleave"}},
    }
    plan = load_plan(content)
    combined = [node for node in plan.nodes.values() if node.stage == "combine_features"]
    # Each for training and for evaluation, which crops here; the parts are nodes of their own.
    assert sorted(n.name for n in combined) == ["both", "both-crop", "turns", "turns-crop"]
    for node in combined:
        parts = node.inputs["features"]
        assert isinstance(parts, tuple)
        assert all((each.stage, each.folder) in plan.nodes for each in parts)
        fits = {each.settings["encoder"]["fit"] for each in parts}
        assert fits == {"crop" if node.name.endswith("-crop") else "pad"}
    projectors = [n for n in plan.nodes.values() if n.stage == "train_projector"]
    assert {"both", "turns"} < {n.name.split("-")[0] for n in projectors}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"both": {"kind": "combined", "encoders": ["a", "c"]}}, "names 'c'; there are a, b, both"),
        ({"both": {"kind": "combined", "encoders": ["a", "a"]}}, "names 'a' twice"),
        (
            {
                "x": {"kind": "combined", "encoders": ["a", "b"]},
                "y": {"kind": "combined", "encoders": ["a", "x"]},
            },
            r"encoders\.y\.source\.encoders names 'x', which is combined itself",
        ),
    ],
)
def test_parts_are_two_other_encoders(more: dict[str, Any], message: str) -> None:
    plain = {"kind": "standin", "family": "clip"}
    sources = {"a": plain, "b": plain, **more}
    encoders = {k: EncoderSettings.model_validate({"source": v}) for k, v in sources.items()}
    with pytest.raises(ValueError, match=message):
        refuse_unfit_parts(encoders)


def test_patches_and_a_class_token_are_not_combined() -> None:
    source = {"kind": "standin", "family": "clip"}
    both = {"kind": "combined", "encoders": ["a", "b"]}
    given = {"a": {"source": source}, "b": {"source": source, "tokens": "class"}}
    given["both"] = {"source": both}
    encoders = {name: EncoderSettings.model_validate(each) for name, each in given.items()}
    with pytest.raises(ValueError, match=r"both\.source\.encoders names patches and a class token"):
        refuse_unfit_parts(encoders)


def test_what_the_parts_say_is_not_said_again() -> None:
    source = {"kind": "combined", "encoders": ["a", "b"]}
    both = EncoderSettings.model_validate({"source": source, "layer": 3})
    with pytest.raises(
        ValueError, match=r"encoders\.both\.layer has no effect: set it for a and b"
    ):
        refuse_unfit_parts({"both": both})
