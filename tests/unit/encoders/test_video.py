"""Video models as encoders: an image as a clip, read where the models' own code has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from tiny_video import SIZE, save_svd, save_vjepa2

from vista.config.encoders import (
    CheckpointEncoder,
    EncoderSettings,
    SvdSettings,
    Vjepa2Settings,
)
from vista.data.records import Record, write_records
from vista.encoders.contract import VisionEncoder, by_patch, load_encoder
from vista.encoders.pooling import pool_tokens
from vista.engine.artifacts import Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.stages import features


@pytest.fixture(scope="module")
def svd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder, and the pipeline in it."""
    folder = tmp_path_factory.mktemp("svd")
    return folder, save_svd(folder)


@pytest.fixture(scope="module")
def vjepa2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("vjepa2")
    return folder, save_vjepa2(folder)


def load_svd(folder: Path, size: int = SIZE, pool: int | None = None, **own: Any) -> VisionEncoder:
    settings = SvdSettings(**{"frames": 3, **own})
    return load_encoder(folder, "svd", size=size, pool=pool, own=settings)


def load_vjepa2(folder: Path, frames: int = 4, size: int | None = None) -> VisionEncoder:
    return load_encoder(folder, "vjepa2", size=size, own=Vjepa2Settings(frames=frames))


def images(n: int = 2, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def by_hand(pipeline: Any, image_hwc: NDArray[np.uint8], tap: str, **own: Any) -> torch.Tensor:
    """What the mid block of the pipeline itself is given, or gives, in one step [f, c, h, w]."""
    block, caught = pipeline.unet.mid_block, list[torch.Tensor]()
    if tap == "down":
        handle = block.register_forward_pre_hook(
            lambda _module, _args, given: caught.append(given["hidden_states"]), with_kwargs=True
        )
    else:
        handle = block.register_forward_hook(lambda _module, _args, out: caught.append(out))
    try:
        pipeline(
            Image.fromarray(image_hwc),
            height=len(image_hwc),
            width=len(image_hwc),
            num_frames=3,
            num_inference_steps=1,
            min_guidance_scale=1.0,  # 1 is no guidance
            max_guidance_scale=1.0,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
            **own,
        )
    finally:
        handle.remove()
    (features,) = caught
    return features


@pytest.mark.parametrize(
    ("tap", "own", "given"),
    [
        ("down", {}, {}),
        (
            "mid",
            {"fps": 20, "motion_bucket": 9, "noise": 0.5},
            {"fps": 20, "motion_bucket_id": 9, "noise_aug_strength": 0.5},
        ),
    ],
)
def test_svd_gives_what_the_pipelines_own_denoiser_has_in_its_middle(
    svd: tuple[Path, Any], tap: str, own: dict[str, Any], given: dict[str, Any]
) -> None:
    folder, pipeline = svd
    encoder = load_svd(folder, tap=tap, **own)
    assert (encoder.size, encoder.patch, encoder.per_patch) == (SIZE, 4, 3)
    assert (encoder.grid, encoder.d_vision) == ((4, 12), 64)
    tokens_bpd = encoder.encode(images())
    for image, tokens_pd in zip(images(), tokens_bpd, strict=True):
        features_fchw = by_hand(pipeline, image, tap, **given)
        # Token (row, column, frame).
        tokens_hwfc = tokens_pd.unflatten(0, (4, 4, 3))
        expected_hwfc = features_fchw.permute(2, 3, 0, 1)
        assert torch.allclose(tokens_hwfc, expected_hwfc, atol=1e-4, rtol=1e-4)
    # The frames differ, else their order would not be tested.
    assert not torch.allclose(tokens_hwfc[:, :, 0], tokens_hwfc[:, :, 1], atol=1e-2)


def test_svd_depends_on_image_and_seed_alone(svd: tuple[Path, Any]) -> None:
    encoder, other = load_svd(svd[0]), load_svd(svd[0], noise_seed=1)
    together = encoder.encode(images(3))
    torch.rand(1)
    assert together.numpy().tobytes() == load_svd(svd[0]).encode(images(3)).numpy().tobytes()
    assert not torch.allclose(together, other.encode(images(3)), atol=1e-2)
    alone = torch.cat([encoder.encode(images(3)[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4, rtol=1e-4)


def test_svd_of_random_weights_needs_no_weights(svd: tuple[Path, Any], tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(svd[0], bare, ignore=shutil.ignore_patterns("*.safetensors"))

    def tokens(seed: int | None) -> torch.Tensor:
        encoder = load_encoder(bare, "svd", size=SIZE, random_weights=seed)
        assert encoder.grid == (4, 4 * 8)
        return encoder.encode(images())

    assert torch.equal(tokens(1), tokens(1))
    assert not torch.equal(tokens(1), tokens(2))
    with pytest.raises(UserError, match="could not be loaded"):
        tokens(None)


@pytest.mark.parametrize("family", ["svd", "vjepa2"])
def test_the_shipped_architectures_have_the_stand_ins_grid(family: str) -> None:
    folder = Path(__file__).parents[3] / "config/architectures" / family
    encoder = load_encoder(folder, family, random_weights=0, size=48)
    assert (encoder.grid, encoder.d_vision) == ((6, 6 * encoder.per_patch), 96)


def test_svd_refuses_what_it_cannot_read(svd: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images of 18 px; set `size` to a multiple of 4"):
        load_svd(svd[0], size=18)
    other = tmp_path / "other"
    shutil.copytree(svd[0], other)
    (other / "model_index.json").write_text(json.dumps({"_class_name": "Other"}))
    with pytest.raises(UserError, match="expected the _class_name StableVideoDiffusionPipeline"):
        load_svd(other)


def test_pooling_averages_each_frame_with_its_own(svd: tuple[Path, Any]) -> None:
    fine_bpd = load_svd(svd[0]).encode(images()).unflatten(1, (16, 3))
    pooled = load_svd(svd[0], pool=2)
    assert pooled.grid == (2, 6)
    coarse_bpd = pooled.encode(images()).unflatten(1, (4, 3))
    for frame in range(3):
        expected = pool_tokens(fine_bpd[:, :, frame], 2)
        assert torch.allclose(coarse_bpd[:, :, frame], expected, atol=1e-4)


@pytest.mark.parametrize(("frames", "size"), [(4, None), (2, 24)])
def test_vjepa2_sees_an_image_as_a_clip_of_equal_frames(
    vjepa2: tuple[Path, Any], frames: int, size: int | None
) -> None:
    folder, model = vjepa2
    encoder = load_vjepa2(folder, frames, size)
    side = (size or SIZE) // 4
    assert (encoder.grid, encoder.per_patch) == ((side, side * frames // 2), frames // 2)
    given = images(size=size or SIZE)
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    pixels = (torch.from_numpy(given).permute(0, 3, 1, 2) / 255 - mean) / std
    clip = torch.stack([pixels] * frames, dim=1)
    for block in model.encoder.layer:
        block.attention.grid_size = side
    with torch.no_grad():
        whole_btd = model(pixel_values_videos=clip, skip_predictor=True).last_hidden_state
    tokens_bpd = encoder.encode(given)
    expected = whole_btd.unflatten(1, (frames // 2, side * side)).transpose(1, 2).flatten(1, 2)
    assert torch.allclose(tokens_bpd, expected, atol=1e-5)
    alone = torch.cat([encoder.encode(given[i : i + 1]) for i in range(2)])
    assert torch.allclose(tokens_bpd, alone, atol=1e-5)


def test_features_of_a_clip_tell_its_frames(vjepa2: tuple[Path, Any], tmp_path: Path) -> None:
    Image.fromarray(images(1)[0]).save(tmp_path / "0.png")
    described = {"kind": "folder", "images": str(tmp_path), "fetch": []}
    with publishing(
        tmp_path, "records", "r", Provenance("records", described, {}, "c", {})
    ) as work:
        assert work is not None
        write_records(work / "records.parquet", [Record("i", "test", "0.png", SIZE, SIZE)])
    records = open_artifact(tmp_path / "records" / "r")
    placings = []
    for frames in (4, 2):  # of two tokens a patch, and of one
        own = {"frames": frames}
        source = {"kind": "checkpoint", "path": str(vjepa2[0]), "family": "vjepa2", "vjepa2": own}
        order = {"encoder": EncoderSettings.model_validate({"source": source}).model_dump()}
        out = tmp_path / f"out{frames}"
        out.mkdir()
        features.run(Job("features", order, {"records": records}, out))
        placings.append(json.loads((out / "geometry.json").read_text()))
    plain = {"size": SIZE, "patch": 4, "fit": "pad"}
    assert placings == [{**plain, "per_patch": 2, "frames": 2}, plain]


def test_vjepa2_needs_whole_tubelets(vjepa2: tuple[Path, Any]) -> None:
    with pytest.raises(UserError, match=r"vjepa2\.frames is 3, expected a multiple of 2"):
        load_vjepa2(vjepa2[0], frames=3)
    with pytest.raises(UserError, match="it is a vjepa2 model, not of 'vit'; set family: vjepa2"):
        load_encoder(vjepa2[0], "vit")


def test_the_tokens_of_a_patch_follow_one_another() -> None:
    # Token 10 f + p of frame f and patch p.
    tokens_bpd = torch.tensor([0, 1, 2, 3, 10, 11, 12, 13]).reshape(1, 8, 1)
    assert by_patch(tokens_bpd, 2).flatten().tolist() == [0, 10, 1, 11, 2, 12, 3, 13]


def test_a_familys_own_settings_are_in_the_id_and_in_no_other() -> None:
    def source(**given: Any) -> CheckpointEncoder:
        return CheckpointEncoder.model_validate({"kind": "checkpoint", "path": "x", **given})

    assert source(family="svd").model_dump()["svd"] == SvdSettings().model_dump()
    assert source(family="vjepa2", vjepa2={"frames": 4}).model_dump()["vjepa2"] == {"frames": 4}
    assert not {"svd", "vjepa2"} & source(family="vit").model_dump().keys()
    with pytest.raises(ValidationError, match="svd is for family svd, not vit; drop it"):
        source(family="vit", svd={})
