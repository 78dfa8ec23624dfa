"""One contract for all vision encoders: square images in, patch tokens out, prefix tokens dropped.

Legend of shape suffixes: b image, p patch token (row-major), t token (prefix and patches), d width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vista.encoders.registry import load_family
from vista.errors import UserError

PREPROCESSOR = "preprocessor_config.json"


class VisionEncoder:
    """A frozen vision encoder.

    Attributes:
        family: name of its family.
        d_vision: width of the patch tokens.
        size: side of the square input, px; patch: side of a patch, px.
        grid: rows and columns of patches; token p is row p // columns, column p % columns.
        prefix_tokens: tokens before the patches, which `encode` drops.
        mean_colour: the colour that normalises to zero, 0..255; what padding is filled with.
    """

    def __init__(
        self, family: str, model: Any, preprocessor: dict[str, Any], layer: int, final_norm: bool
    ) -> None:
        parts = load_family(family)
        tower = parts.tower(model)
        # CLIP and SigLIP checkpoints hold a text tower too; it is let go.
        self.model = tower.eval().requires_grad_(False)
        config = _vision_config(tower)
        self.family = family
        self.d_vision = int(config.hidden_size)
        self.patch = int(config.patch_size)
        self.size = _input_size(preprocessor, int(config.image_size))
        side = self.size // self.patch
        self.grid = (side, side)
        self.prefix_tokens = parts.prefix_tokens(config)
        blocks = parts.blocks(self.model)
        if not -len(blocks) <= layer < len(blocks):
            raise UserError(
                f"encoders: layer {layer} does not exist; the {family} model has blocks "
                f"0..{len(blocks) - 1} (or -1 for the last)"
            )
        self._block = blocks[layer]
        self._norm = parts.norm(self.model) if final_norm else None
        self._resized = self.size != int(config.image_size)
        self._scale = float(preprocessor.get("rescale_factor", 1 / 255))
        mean, std = preprocessor["image_mean"], preprocessor["image_std"]
        self._mean_311 = torch.tensor(mean).view(3, 1, 1)
        self._std_311 = torch.tensor(std).view(3, 1, 1)
        red, green, blue = (round(each / self._scale) for each in mean)
        self.mean_colour: tuple[int, int, int] = (red, green, blue)

    @property
    def device(self) -> torch.device:
        found: torch.device = next(self.model.parameters()).device
        return found

    @torch.no_grad()
    def encode(self, images_bhwc: NDArray[np.uint8]) -> Tensor:
        """Return the patch tokens [b, p, d], float32, of square images [b, size, size, 3], uint8.

        The images are those of `vista.data.geometry.prepare_image`. Normalised with the
        checkpoint's own mean and standard deviation.

        Raises ValueError where an image has another size.
        """
        if images_bhwc.shape[1:] != (self.size, self.size, 3):
            raise ValueError(
                f"images {images_bhwc.shape}, expected [b, {self.size}, {self.size}, 3]"
            )
        pixels = torch.from_numpy(images_bhwc).permute(0, 3, 1, 2).float() * self._scale
        pixels = (pixels - self._mean_311) / self._std_311
        caught: list[Tensor] = []

        def catch(_module: Any, _inputs: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)

        # Not `hidden_states`: whether its last entry is normed differs between models.
        handle = self._block.register_forward_hook(catch)
        extra = {"interpolate_pos_encoding": True} if self._resized and self._needs_asking else {}
        try:
            first = next(self.model.parameters())
            self.model(pixel_values=pixels.to(first.device, first.dtype), **extra)
        finally:
            handle.remove()
        tokens_btd = caught[0]
        if self._norm is not None:
            tokens_btd = self._norm(tokens_btd)
        patches_bpd = tokens_btd[:, self.prefix_tokens :].float()
        expected = self.grid[0] * self.grid[1]
        if patches_bpd.shape[1] != expected:
            raise UserError(
                f"{self.family} encoder: {tokens_btd.shape[1]} tokens are not {self.prefix_tokens} "
                f"prefix tokens and {expected} patches; the checkpoint is of another family"
            )
        return patches_bpd

    @property
    def _needs_asking(self) -> bool:
        # Dinov2 always interpolates its position embeddings; CLIP and SigLIP must be asked to.
        return self.family != "dinov2"


def load_encoder(
    location: str | Path,
    family: str,
    layer: int = -1,
    final_norm: bool = True,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
) -> VisionEncoder:
    """Load a vision encoder from a `save_pretrained` folder or the local cache of the hub.

    Args:
        location: folder or repository name; safetensors weights and preprocessor_config.json.
        family: one of `vista.encoders.registry.MODULES`.
        layer: block whose output is read, counted from 0; negative counts from the last.
        final_norm: apply the norm that the family's `last_hidden_state` has.
        device: "cpu", "cuda", "cuda:1", or "auto".
        dtype: "float32", "bfloat16" or "float16".
        revision: commit of a repository.

    Raises:
        UserError: nothing there, another family, or no preprocessor file.
    """
    from transformers import AutoModel

    load_family(family)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    preprocessor = _preprocessor(location, revision)
    try:
        model = AutoModel.from_pretrained(
            str(location),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            local_files_only=True,
            revision=revision,
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"vision encoder {location}: could not be loaded ({str(error).splitlines()[0]}); "
            "expected a save_pretrained folder with safetensors weights, or a fetched repository"
        ) from error
    found = str(model.config.model_type)
    if not found.startswith(family):
        raise UserError(f"vision encoder {location}: it is a {found} model, not of {family!r}")
    return VisionEncoder(family, model.to(device), preprocessor, layer, final_norm)


def _preprocessor(location: str | Path, revision: str | None) -> dict[str, Any]:
    path = Path(location) / PREPROCESSOR
    if not Path(location).is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(str(location), PREPROCESSOR, revision=revision)
        path = Path(cached) if isinstance(cached, str) else path
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["image_mean"], content["image_std"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"vision encoder {location}: {PREPROCESSOR} is missing or lacks image_mean and "
            "image_std; without it images cannot be normalised as in training"
        ) from error
    return content


def _vision_config(tower: Any) -> Any:
    config = tower.config
    return getattr(config, "vision_config", config)


def _input_size(preprocessor: dict[str, Any], default: int) -> int:
    """The side of the input: what the preprocessor crops to, else resizes to."""
    keys = ("crop_size", "size") if preprocessor.get("do_center_crop") else ("size",)
    for key in keys:
        size = preprocessor.get(key)
        if isinstance(size, int):
            return size
        if isinstance(size, dict):
            side = size.get("height") or size.get("shortest_edge")
            if side:
                return int(side)
    return default
