"""Our pixels are those of the checkpoint's own image processor (transformers, PIL backend)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from vista.data.geometry import prepare_image
from vista.encoders.contract import VisionEncoder, load_encoder
from vista.encoders.preprocessing import Preprocessing
from vista.errors import UserError

# The processors that transformers has for these names, with the PIL backend.
PROCESSORS = {
    "BitImageProcessor": "BitImageProcessorPil",
    "CLIPFeatureExtractor": "CLIPImageProcessorPil",
    "SiglipImageProcessor": "SiglipImageProcessorPil",
    "Siglip2ImageProcessor": "Siglip2ImageProcessorPil",
    "ViTImageProcessor": "ViTImageProcessorPil",
    "BeitImageProcessor": "BeitImageProcessorPil",
}


def picture(side: int) -> Image.Image:
    """Noise over a gradient: every filter gives it other pixels."""
    noise = np.random.default_rng(1).integers(0, 128, (side, side, 3))
    slope = np.linspace(0, 127, side)[None, :, None]
    return Image.fromarray((noise + slope).astype(np.uint8))


def seen(encoder: VisionEncoder, image: Image.Image) -> Any:
    """What the tower is called with for one image."""
    caught: dict[str, Any] = {}
    handle = encoder.model.register_forward_pre_hook(
        lambda _module, _args, given: caught.update(given), with_kwargs=True
    )
    square = prepare_image(image, encoder.size, "pad", resample=encoder.resample)
    encoder.encode(square[None])
    handle.remove()
    return caught


def processor(saved: Any) -> Any:
    content = saved.case.preprocessor
    name = content.get("image_processor_type") or content["feature_extractor_type"]
    # Dinov2's resizes to more than it crops; here the whole image is in the input.
    size = {"size": {"shortest_edge": 24}} if name == "BitImageProcessor" else {}
    return getattr(transformers, PROCESSORS[name]).from_pretrained(saved.folder, **size)


@pytest.mark.parametrize("side", [24, 37, 61, 19])
@pytest.mark.parametrize(
    "name",
    ["dinov2", "clip", "siglip", "siglip2_fixed", "siglip2_naflex", "ijepa", "vit", "beit"],
)
def test_pixels_are_those_of_the_checkpoints_own_processor(save: Any, name: str, side: int) -> None:
    saved = save(name)
    expected = processor(saved)(picture(side), return_tensors="pt")
    given = seen(load_encoder(saved.folder, saved.case.family), picture(side))
    # The resized bytes are equal; what is left is the rounding of float32.
    assert torch.allclose(given["pixel_values"], expected["pixel_values"], rtol=0, atol=1e-5)
    for key in expected.keys() - {"pixel_values"}:
        assert torch.equal(given[key].long(), expected[key].long())


@pytest.mark.parametrize("side", [24, 37, 61])
def test_dinov3_pixels_are_those_of_its_order_of_steps(save: Any, side: int) -> None:
    # It has no PIL backend. Its processor scales first and resizes floats, so nothing is rounded
    # to whole numbers in between: less than 1/255 of a pixel's range apart.
    saved = save("dinov3")
    content = saved.case.preprocessor
    planes = [
        np.asarray(Image.fromarray(plane).resize((24, 24), Image.Resampling.BILINEAR))
        for plane in np.asarray(picture(side), dtype=np.float32).transpose(2, 0, 1) / 255
    ]
    mean, std = (np.array(content[key])[:, None, None] for key in ("image_mean", "image_std"))
    given = seen(load_encoder(saved.folder, "dinov3"), picture(side))["pixel_values"][0].numpy()
    assert np.abs(given * std + mean - np.stack(planes)).max() < 1 / 255


def test_the_filter_is_the_checkpoints(save: Any) -> None:
    filters = {
        name: load_encoder(save(name).folder, save(name).case.family).resample
        for name in ("clip", "dinov2", "siglip", "siglip2_fixed", "ijepa", "dinov3")
    }
    bicubic, bilinear = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
    assert filters == {
        "clip": bicubic,
        "dinov2": bicubic,
        "siglip": bicubic,
        "siglip2_fixed": bilinear,
        "ijepa": bilinear,
        "dinov3": bilinear,
    }
    assert not np.array_equal(
        prepare_image(picture(61), 24, "pad", resample=bicubic),
        prepare_image(picture(61), 24, "pad", resample=bilinear),
    )


def test_steps_can_be_left_out_and_a_wrong_filter_is_told() -> None:
    config = transformers.ViTConfig(image_size=16, patch_size=4)
    content: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": 16}
    white = np.full((1, 16, 16, 3), 255, dtype=np.uint8)

    def read(**changes: Any) -> Preprocessing:
        return Preprocessing.from_config({**content, **changes}, config, 3)

    assert read().resample == Image.Resampling.BICUBIC
    assert read(resample=1).resample == Image.Resampling.LANCZOS
    assert read().mean_colour == (128, 128, 128)
    assert float(read().normalise(white).max()) == pytest.approx(2.0)
    assert float(read(do_normalize=False).normalise(white).max()) == pytest.approx(1.0)
    assert float(read(do_rescale=False).normalise(white).max()) == pytest.approx(254.5 / 0.25)
    with pytest.raises(UserError, match="resample 9 is no filter"):
        read(resample=9)


@pytest.mark.parametrize("name", ["clip", "dinov2", "siglip2_naflex", "vit"])
def test_settings_that_transformers_5_wrote_give_the_same_features(
    save: Any, tmp_path: Path, name: str
) -> None:
    saved = save(name)
    newer = shutil.copytree(saved.folder, tmp_path / "newer")
    (newer / "preprocessor_config.json").unlink()
    nested = {"image_processor": saved.case.preprocessor, "processor_class": "CLIPProcessor"}
    (newer / "processor_config.json").write_text(json.dumps(nested))
    images = np.stack([np.asarray(picture(24))])
    tokens = [load_encoder(f, saved.case.family).encode(images) for f in (saved.folder, newer)]
    assert torch.equal(*tokens)


def test_one_number_means_all_three_colours(save: Any, tmp_path: Path) -> None:
    saved = save("clip")
    images = np.stack([np.asarray(picture(24))])
    tokens = []
    for value in (0.5, "0.5", [0.5, 0.5, 0.5]):
        folder = shutil.copytree(saved.folder, tmp_path / f"copy-{len(tokens)}")
        content = {"image_mean": value, "image_std": value, "size": 24, "do_resize": True}
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
        tokens.append(load_encoder(folder, "clip").encode(images))
    assert torch.equal(tokens[0], tokens[2]) and torch.equal(tokens[1], tokens[2])
    assert torch.isfinite(tokens[0]).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_std": 0}, r"copy/preprocessor_config\.json: image_std is 0, expected more than 0"),
        ({"size": 3, "do_center_crop": False}, r"images of 3 px are smaller than a patch of 4 px"),
        ({"size": {"height": 24, "width": 28}, "do_center_crop": False}, "expected one side, px"),
    ],
)
def test_settings_that_no_model_can_have_are_told(
    save: Any, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    folder = shutil.copytree(save("clip").folder, tmp_path / "copy")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(UserError, match=sentence):
        load_encoder(folder, "clip")


def test_tokens_that_are_no_numbers_are_told(save: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(save("clip_vision").folder, tmp_path / "copy")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "layer_norm_eps": float("nan")}))
    encoder = load_encoder(folder, "clip")
    with pytest.raises(UserError, match=r"no finite numbers; set dtype: float32"):
        encoder.encode(np.zeros((1, 24, 24, 3), dtype=np.uint8))


@pytest.mark.parametrize("key", ["patch_size", "image_size", "hidden_size", "num_hidden_layers"])
@pytest.mark.parametrize("value", [None, "x", [4, 5], -1, 0.5, 0], ids=repr)
def test_odd_values_of_a_models_config_are_told(
    save: Any, tmp_path: Path, key: str, value: Any
) -> None:
    folder = shutil.copytree(save("vit").folder, tmp_path / "copy")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(UserError, match=r"vision encoder|weights do not fit|layer -1") as told:
        load_encoder(folder, "vit")
    assert str(told.value).count("\n") <= 2
