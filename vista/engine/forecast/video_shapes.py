"""Sizes of the encoders that see an image as a clip, from their settings and small files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vista.config.encoders import SvdSettings, Vjepa2Settings
from vista.config.published import VIDEO_CONFIGS, VisionShape
from vista.engine.forecast.model_shapes import (
    first_size,
    input_side,
    read_config,
    vit_parameters,
)

VIDEO_FAMILIES = ("svd", "vjepa2")
_SVD_SIDE = 448  # px, as vista/encoders/families/svd.py has it, which is not imported: torch
_SVD_PARTS = ("unet", "vae", "image_encoder")


def video_shape(source: Mapping[str, Any], fetched: Path | None) -> VisionShape | None:
    """Return the sizes of an encoder of a video family; None where a size is missing.

    Args:
        source: The encoder's settings (`CheckpointEncoder`): family, size, frames.
        fetched: Folder that its repository is fetched to, if it is one; else the settings' path.
    """
    folder = fetched or Path(source["path"])
    published = VIDEO_CONFIGS.get(str(source.get("repo")), {})
    if source["family"] == "vjepa2":
        config = read_config(folder / "config.json") or published
        own = Vjepa2Settings.model_validate(source.get("vjepa2") or {})
        return _vjepa2(config, own.frames, source.get("size") or input_side(folder))
    parts = {
        part: read_config(folder / part / "config.json") or published.get(part, {})
        for part in _SVD_PARTS
    }
    svd = SvdSettings.model_validate(source.get("svd") or {})
    return _svd(parts, svd, source.get("size") or _SVD_SIDE)


def _vjepa2(config: Mapping[str, Any], frames: int, side: int | None) -> VisionShape | None:
    """A token for each patch and `tubelet_size` frames. The predictor is loaded, but not run."""
    keys = ("hidden_size", "num_hidden_layers", "patch_size", "tubelet_size")
    d, blocks, patch, tubelet = (first_size(config, key) for key in keys)
    side = side or first_size(config, "crop_size")
    if not (d and blocks and patch and tubelet and side):
        return None
    ratio = config.get("mlp_ratio")
    wide = round(d * ratio) if isinstance(ratio, int | float) and 0 < ratio < d else None
    parameters = vit_parameters(d, blocks, wide)
    width, depth = (first_size(config, f"pred_{key}") for key in keys[:2])
    beside = vit_parameters(width, depth, None) if width and depth else 0.0
    tokens = (side // patch) ** 2 * (frames // tubelet)
    return VisionShape(parameters, parameters + beside, d, blocks, tokens, 0)


def _svd(parts: Mapping[str, Mapping[str, Any]], own: SvdSettings, side: int) -> VisionShape | None:
    """The autoencoder's way in and half of the denoiser, layer by layer: the rest is not loaded.

    With c channels of a size: 18 c^2 weights a residual layer of the autoencoder; in the denoiser
    6 c^2 more, over frames, and 50 c^2 of a transformer over places and one over frames where a
    size has attention. FLOP: 2 x the weights at each place, in the denoiser of each frame;
    attention's square is left out. CLIP sees the image once. Activations: at the largest size six
    times in float32 in the autoencoder (five measured), or 14 numbers a channel, place and frame.
    """
    unet, vae, clip = (parts[part] for part in _SVD_PARTS)
    outer, inner = _channels(vae), _channels(unet)
    layers, steps = first_size(vae, "layers_per_block"), first_size(unet, "layers_per_block")
    keys = ("hidden_size", "num_hidden_layers", "patch_size", "image_size")
    d, blocks, patch, size = (first_size(clip, key) for key in keys)
    kinds = unet.get("down_block_types")
    if not (outer and inner and layers and steps and d and blocks and patch and size):
        return None
    if not isinstance(kinds, Sequence) or len(kinds) != len(inner):
        return None
    clip_parameters = vit_parameters(d, blocks, first_size(clip, "intermediate_size"))
    weights = [18.0 * layers * c**2 for c in outer]
    flops = [2.0 * w * (side / 2**i) ** 2 for i, w in enumerate(weights)]
    latent = side / 2 ** (len(outer) - 1)
    denoiser = [
        (24.0 + 50.0 * str(kind).startswith("CrossAttn")) * steps * c**2
        for c, kind in zip(inner, kinds, strict=True)
    ]
    sides = [latent / 2**i for i in range(len(inner))]
    if own.tap == "mid":
        denoiser.append((2 * 24.0 + 50.0) * inner[-1] ** 2)
        sides.append(sides[-1])
    flops += [2.0 * w * own.frames * s**2 for w, s in zip(denoiser, sides, strict=True)]
    parameters = sum(weights) + sum(denoiser) + clip_parameters
    tokens = own.frames * int(sides[-1]) ** 2
    return VisionShape(
        parameters,
        parameters,
        inner[-1],
        len(inner),
        tokens,
        0,
        sum(flops) + 2.0 * clip_parameters * ((size // patch) ** 2 + 1),
        max(24.0 * outer[0] * side**2, 56.0 * inner[0] * own.frames * latent**2),
    )


def _channels(config: Mapping[str, Any]) -> list[int] | None:
    """Channels of each size, from the largest; None where they are not a list of numbers."""
    sizes = config.get("block_out_channels")
    if not isinstance(sizes, Sequence) or not sizes:
        return None
    return list(sizes) if all(isinstance(c, int) and c > 0 for c in sizes) else None
