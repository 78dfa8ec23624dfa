"""One contract for every family: tokens, grid order, layers, norm, shards, sizes, clear errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from vista.config.encoders import family_names
from vista.encoders.contract import VisionEncoder, load_encoder
from vista.encoders.registry import family_of, load_family
from vista.errors import UserError


@pytest.fixture(scope="module")
def encoder(saved: Any) -> VisionEncoder:
    return load_encoder(saved.folder, saved.case.family)


@pytest.fixture(scope="module")
def reference(saved: Any) -> Any:
    """The model itself, called with what its own image processor would give it."""
    model = transformers.AutoModel.from_pretrained(saved.folder).eval()
    tower = getattr(model, "vision_model", model)
    content = saved.case.preprocessor
    mean, std = (torch.tensor(content[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))

    def call(images_bhwc: Any, **options: Any) -> Any:
        pixels = torch.from_numpy(images_bhwc).permute(0, 3, 1, 2).float() / 255
        given = {"pixel_values": (pixels - mean) / std}
        if saved.case.family == "siglip2":
            given = naflex(given["pixel_values"], content["patch_size"])
        with torch.no_grad():
            return tower(**given, **options)

    return call


def naflex(pixels: Any, patch: int) -> dict[str, Any]:
    """Patches cut by slices, row by row; inside one, the colour runs fastest."""
    b, _, height, width = pixels.shape
    cut = [
        pixels[:, :, y : y + patch, x : x + patch].permute(0, 2, 3, 1).reshape(b, -1)
        for y in range(0, height, patch)
        for x in range(0, width, patch)
    ]
    return {
        "pixel_values": torch.stack(cut, dim=1),
        "pixel_attention_mask": torch.ones(b, len(cut), dtype=torch.int32),
        "spatial_shapes": torch.tensor([[height // patch, width // patch]] * b),
    }


def images(n: int = 3, size: int = 24) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def lit_token(encoder: VisionEncoder, row: int, column: int) -> int:
    """The token that changes most when one patch of a grey image turns to glaring noise."""
    plain = np.full((1, encoder.size, encoder.size, 3), 128, dtype=np.uint8)
    lit, patch = plain.copy(), encoder.patch
    glare = 255 * np.random.default_rng(2).integers(0, 2, (patch, patch, 3))
    lit[0, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = glare
    moved = (encoder.encode(lit) - encoder.encode(plain)).norm(dim=-1)[0]
    return int(moved.argmax())


def changed_copy(folder: Path, out: Path, **changes: Any) -> Path:
    """A copy of a checkpoint with other values in preprocessor_config.json."""
    shutil.copytree(folder, out)
    path = out / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return out


def test_tokens_are_the_patches_and_nothing_else(encoder: VisionEncoder, saved: Any) -> None:
    assert encoder.prefix_tokens == saved.case.prefix
    assert (encoder.size, encoder.patch, encoder.grid, encoder.d_vision) == (24, 4, (6, 6), 32)
    tokens = encoder.encode(images())
    assert tokens.shape == (3, 36, 32)
    assert tokens.dtype == torch.float32


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 5), (2, 3), (5, 0), (5, 5)])
def test_a_changed_patch_changes_its_own_token_most(
    encoder: VisionEncoder, row: int, column: int
) -> None:
    assert lit_token(encoder, row, column) == row * 6 + column


def test_an_image_does_not_depend_on_its_batch(encoder: VisionEncoder) -> None:
    batch = images()
    together = encoder.encode(batch)
    alone = torch.cat([encoder.encode(batch[i : i + 1]) for i in range(len(batch))])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(together, encoder.encode(batch))


def test_the_last_layer_is_the_models_own_last_hidden_state(
    encoder: VisionEncoder, reference: Any, saved: Any
) -> None:
    expected = reference(images()).last_hidden_state[:, saved.case.prefix :]
    assert torch.allclose(encoder.encode(images()), expected, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_is_the_stream_after_its_block(saved: Any, reference: Any, layer: int) -> None:
    # Entry l + 1 is the stream after block l, un-normed in every model but for the last one.
    stream = reference(images(), output_hidden_states=True).hidden_states[layer + 1]
    for named in (layer, layer - 3):
        read = load_encoder(saved.folder, saved.case.family, layer=named, final_norm=False)
        assert torch.allclose(read.encode(images()), stream[:, saved.case.prefix :], atol=1e-5)


def test_layers_count_blocks_and_the_norm_is_optional(encoder: VisionEncoder, saved: Any) -> None:
    folder, family = saved.folder, saved.case.family
    last = encoder.encode(images())
    assert torch.equal(last, load_encoder(folder, family, layer=2).encode(images()))
    raw = load_encoder(folder, family, final_norm=False).encode(images())
    assert torch.equal(last, raw) == (family == "clip")
    with pytest.raises(UserError, match=r"layer 3 does not exist.*blocks 0\.\.2"):
        load_encoder(folder, family, layer=3)


def test_another_input_size_gives_another_grid(saved: Any, tmp_path: Path) -> None:
    larger = {
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "max_num_patches": 64,
    }
    folder = changed_copy(saved.folder, tmp_path / "copy", **larger)
    encoder = load_encoder(folder, saved.case.family)
    assert encoder.grid == (8, 8)
    assert encoder.encode(images(1, 32)).shape == (1, 64, 32)
    assert lit_token(encoder, 2, 5) == 21


def test_sharded_weights_are_the_same_weights(
    encoder: VisionEncoder, saved: Any, tmp_path: Path
) -> None:
    model = transformers.AutoModel.from_pretrained(saved.folder)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert not (tmp_path / "model.safetensors").exists()
    shutil.copy(saved.folder / "preprocessor_config.json", tmp_path)
    sharded = load_encoder(tmp_path, saved.case.family)
    assert torch.equal(sharded.encode(images()), encoder.encode(images()))


@pytest.mark.parametrize("name", ["clip_vision", "siglip2_vision"])
def test_a_tower_alone_may_keep_the_names_of_the_pair(save: Any, tmp_path: Path, name: str) -> None:
    # Vision towers that older releases saved have "vision_model." before every name.
    from safetensors.torch import load_file, save_file

    saved = save(name)
    shutil.copytree(saved.folder, tmp_path / "copy")
    weights = load_file(saved.folder / "model.safetensors")
    renamed = {f"vision_model.{key.removeprefix('vision_model.')}": w for key, w in weights.items()}
    save_file(renamed, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    tokens = load_encoder(tmp_path / "copy", saved.case.family).encode(images())
    assert torch.equal(tokens, load_encoder(saved.folder, saved.case.family).encode(images()))


@pytest.mark.parametrize(("dtype", "apart"), [("bfloat16", 0.03), ("float16", 0.004)])
def test_short_numbers_are_close_to_float32(
    encoder: VisionEncoder, saved: Any, dtype: str, apart: float
) -> None:
    short = load_encoder(saved.folder, saved.case.family, dtype=dtype)
    assert next(short.model.parameters()).dtype == getattr(torch, dtype)
    tokens, expected = short.encode(images()), encoder.encode(images())
    assert tokens.dtype == torch.float32
    assert 0 < float((tokens - expected).norm() / expected.norm()) < apart


def test_images_of_another_size_are_refused(encoder: VisionEncoder) -> None:
    with pytest.raises(ValueError, match="expected"):
        encoder.encode(np.zeros((1, 24, 25, 3), dtype=np.uint8))


def test_nothing_in_it_can_be_trained(encoder: VisionEncoder) -> None:
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not encoder.model.training


def test_files_that_lack_something_are_told(saved: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    family, copy = saved.case.family, tmp_path / "copy"
    shutil.copytree(saved.folder, copy)
    weights = load_file(copy / "model.safetensors")
    # The largest weight of the last block.
    lost = max(
        (n for n in weights if ".2." in n and "text" not in n), key=lambda n: weights[n].numel()
    )
    del weights[lost]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="files lack 1 weights of the model"):
        load_encoder(copy, family)
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="could not be loaded"):
        load_encoder(copy, family)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="could not be loaded"):
        load_encoder(copy, family)
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"preprocessor_config\.json is missing"):
        load_encoder(copy, family)


@pytest.mark.parametrize(
    ("name", "asked", "found"),
    [
        ("siglip2_naflex", "siglip", "it is a siglip2 model, not of 'siglip'; set family: siglip2"),
        ("siglip", "siglip2", "it is a siglip model, not of 'siglip2'; set family: siglip"),
        ("dinov3", "dinov2", "it is a dinov3_vit model, not of 'dinov2'; set family: dinov3"),
        ("siglip2_naflex", "vit", "it is a siglip2 model, not of 'vit'; set family: siglip2"),
        ("vit", "ijepa", "it is a vit model, not of 'ijepa'; set family: vit"),
        ("clip_vision", "dinov2", "it is a clip_vision_model model, .* set family: clip"),
    ],
)
def test_a_wrong_family_is_told_with_the_right_one(
    save: Any, name: str, asked: str, found: str
) -> None:
    with pytest.raises(UserError, match=found):
        load_encoder(save(name).folder, asked)


def test_a_pickle_is_never_read(save: Any, tmp_path: Path) -> None:
    shutil.copytree(save("clip").folder, tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "copy" / "pytorch_model.bin")
    with pytest.raises(UserError, match="could not be loaded"):
        load_encoder(tmp_path / "copy", "clip")


def test_code_of_a_checkpoint_is_never_run(save: Any, tmp_path: Path) -> None:
    shutil.copytree(save("clip_vision").folder, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    remote = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"}
    config = {**json.loads(path.read_text()), "model_type": "theirs", "auto_map": remote}
    path.write_text(json.dumps(config))
    (tmp_path / "copy" / "theirs.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(UserError, match="could not be loaded"):
        load_encoder(tmp_path / "copy", "vit")


def test_a_device_that_is_not_there_is_told(save: Any) -> None:
    folder = save("clip_vision").folder
    with pytest.raises(UserError, match=r"device: cuda:99 is not on this machine, which has cpu"):
        load_encoder(folder, "clip", device="cuda:99")
    found = load_encoder(folder, "clip", device="auto").device.type
    better = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
    assert found == next((name for name, there in better if there), "cpu")


def test_the_registry_knows_its_families_once() -> None:
    with pytest.raises(UserError, match="'vit5' is unknown; known families: clip, dinov2, dinov3"):
        load_family("vit5")
    claimed = [kind for name in family_names() for kind in load_family(name).model_types]
    assert len(claimed) == len(set(claimed))
    assert (family_of("siglip2"), family_of("deit")) == ("siglip2", "vit")


def test_random_weights_are_those_of_a_seed_in_the_same_architecture(saved: Any) -> None:
    def load(seed: int | None) -> VisionEncoder:
        return load_encoder(saved.folder, saved.case.family, random_weights=seed)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other, trained = load(1), load(1), load(2), load(None)
    assert torch.equal(torch.get_rng_state(), before)
    tokens = one.encode(images())
    assert torch.equal(tokens, two.encode(images()))
    assert not torch.equal(tokens, other.encode(images()))
    assert not torch.equal(tokens, trained.encode(images()))
    shapes = [
        {name: weight.shape for name, weight in encoder.model.named_parameters()}
        for encoder in (one, trained)
    ]
    assert shapes[0] == shapes[1]
    assert (one.grid, one.size, one.patch) == (trained.grid, trained.size, trained.patch)


def test_random_weights_need_no_weights(save: Any, tmp_path: Path) -> None:
    folder = save("dinov2").folder
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert load_encoder(tmp_path, "dinov2", random_weights=0).d_vision == 32
