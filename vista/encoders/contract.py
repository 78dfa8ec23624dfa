"""One contract for all vision encoders: square images in, patch tokens out, prefix tokens dropped.

Legend of shape suffixes: b image, p patch token (row-major), t token (prefix and patches), d width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vista.config.encoders import SvdSettings, Vjepa2Settings
from vista.device import find_device
from vista.encoders.pooling import pool_tokens
from vista.encoders.preprocessing import Preprocessing, square
from vista.encoders.registry import EncoderFamily, VideoFamily, family_of, load_family
from vista.errors import UserError, reason_of
from vista.foreign.preprocessor import read_preprocessor
from vista.foreign.pretrained import load_model, load_part, loading
from vista.foreign.weights import check_checkpoint

# What towers call the token that stands for the whole image; where there is one it comes first,
# before registers.
_CLASS_PARAMETERS = {"cls_token", "class_token", "class_embedding"}


class VisionEncoder:
    """A frozen vision encoder.

    Attributes:
        family: name of its family.
        d_vision: width of the patch tokens.
        size: side of the square input, px; patch: side of a patch, px.
        pool: side of the grid that patches are averaged to; None: they are not.
        per_patch: tokens of a patch, one of each frame where an image is seen as a clip, else 1.
        grid: rows and columns of tokens; token p is row p // columns, column p % columns. The
            tokens of a patch stand side by side, in the order of frames, so that there are
            `per_patch` times as many columns as in the grid of patches. A class token is the one
            patch of a 1 x 1 grid, as large as the input.
        n_patches: patch tokens of an image before they are pooled, in a class token's encoder too.
        prefix_tokens: tokens before the patches, which `encode` drops (but for a class token).
        resample: the filter that images are resized with.
        mean_colour: the colour that normalises to zero, 0..255; what padding is filled with.
    """

    def __init__(
        self,
        family: str,
        model: Any,
        preprocessor: dict[str, Any],
        layer: int,
        final_norm: bool,
        prefix_tokens: int | None = None,
        tokens: Literal["patches", "class"] = "patches",
        pool: int | None = None,
    ) -> None:
        parts = load_family(family)
        # CLIP and SigLIP checkpoints hold a text tower too; it is dropped.
        self.model = parts.tower(model).eval().requires_grad_(False)
        config = self.model.config
        self.family = family
        self.patch = square(getattr(config, "patch_size", None), "patch_size")
        self.d_vision = int(config.hidden_size)
        self._preprocessing = Preprocessing.from_config(preprocessor, config, parts.resample)
        self.size = self._preprocessing.size
        self.resample = self._preprocessing.resample
        self.mean_colour = self._preprocessing.mean_colour
        side = self.size // self.patch
        if side == 0:
            raise UserError(
                f"vision encoder: its images of {self.size} px are smaller than a patch of "
                f"{self.patch} px; correct size in its preprocessor_config.json"
            )
        if getattr(config, "num_channels", 3) != 3:
            raise UserError(
                f"vision encoder: config.json has num_channels {config.num_channels!r}, expected 3 "
                "colours; take another checkpoint"
            )
        if pool is not None and not 1 <= pool <= side:
            raise UserError(
                f"encoders.<name>.pool: expected 1..{side}, not {pool}, since the {family} encoder "
                f"has {side} x {side} patches of an image of {self.size} px"
            )
        self.pool = pool
        self.per_patch = int(getattr(config, "per_patch", 1))
        self.grid = (pool or side, (pool or side) * self.per_patch)
        self.n_patches = side * side * self.per_patch
        self.prefix_tokens = (
            parts.prefix_tokens(self.model) if prefix_tokens is None else prefix_tokens
        )
        self._kept = slice(self.prefix_tokens, None)
        if tokens == "class":
            names = {name.rpartition(".")[2] for name, _ in self.model.named_parameters()}
            if self.prefix_tokens == 0 or not names & _CLASS_PARAMETERS:
                raise UserError(
                    f"vision encoder: the {config.model_type} model has no class token; set "
                    "encoders.<name>.tokens: patches"
                )
            self._kept, self.grid, self.patch = slice(1), (1, 1), self.size
        blocks = parts.blocks(self.model)
        if not -len(blocks) <= layer < len(blocks):
            raise UserError(
                f"encoders: layer {layer} does not exist; the {family} model has blocks "
                f"0..{len(blocks) - 1} (or -1 for the last)"
            )
        self._block = blocks[layer]
        self._norm = parts.norm(self.model) if final_norm else None
        self._inputs = parts.inputs
        # Some towers interpolate their position embeddings by themselves, others when asked to.
        asks = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        resized = asks and square(getattr(config, "image_size", None), "image_size") != self.size
        self._extra = {"interpolate_pos_encoding": True} if resized else {}

    @property
    def device(self) -> torch.device:
        place: torch.device = next(self.model.parameters()).device
        return place

    @torch.no_grad()
    def encode(self, images_bhwc: NDArray[np.uint8]) -> Tensor:
        """Return the patch tokens (pooled, or the class token) [b, p, d], float32, of square
        images [b, size, size, 3], uint8.

        The images are those of `vista.data.geometry.prepare_image`. Normalised with the
        checkpoint's own mean and standard deviation.

        Raises:
            ValueError: an image has another size.
            UserError: the tokens are not the prefix tokens and the patches of the grid, or no
                finite numbers, or the model refuses images of this size.
        """
        if images_bhwc.shape[1:] != (self.size, self.size, 3):
            raise ValueError(
                f"images {images_bhwc.shape}, expected [b, {self.size}, {self.size}, 3]"
            )
        first = next(self.model.parameters())
        pixels = self._preprocessing.normalise(images_bhwc).to(first.device, first.dtype)
        caught: list[Tensor] = []

        def catch(_module: Any, _inputs: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)

        # Not `hidden_states`: whether its last entry is normed differs between models.
        handle = self._block.register_forward_hook(catch)
        try:
            self.model(**self._inputs(pixels, self.patch), **self._extra)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # with a nonsensical config a model may raise anything
            raise UserError(
                f"{self.family} encoder: the {self.model.config.model_type} model refuses images "
                f"of {self.size} px ({reason_of(error)})"
            ) from error
        finally:
            handle.remove()
        tokens_btd = caught[0]
        patches, expected = self.n_patches, tuple(tokens_btd.shape[1:2])
        if tokens_btd.ndim != 3 or expected != (self.prefix_tokens + patches,):
            raise UserError(
                f"{self.family} encoder: the {self.model.config.model_type} model gives tokens "
                f"{list(tokens_btd.shape)}, which are not {self.prefix_tokens} prefix tokens and "
                f"{patches} patches; set prefix_tokens, or take another checkpoint"
            )
        if self._norm is not None:
            tokens_btd = self._norm(tokens_btd)
        tokens_bpd = by_patch(tokens_btd[:, self._kept].float(), self.per_patch)
        if not tokens_bpd.isfinite().all():
            raise UserError(
                f"{self.family} encoder: the {self.model.config.model_type} model gives tokens "
                "that are no finite numbers; set dtype: float32, or check its config.json"
            )
        if self.pool is None:
            return tokens_bpd
        # The frames of a patch are averaged each with their own.
        frames_bpd = tokens_bpd.reshape(len(tokens_bpd), -1, self.per_patch * self.d_vision)
        return pool_tokens(frames_bpd, self.pool).reshape(len(tokens_bpd), -1, self.d_vision)


def by_patch(tokens_bpd: Tensor, per_patch: int) -> Tensor:
    """Tokens in the order (frame, row, column), as video models have them, in the order (row,
    column, frame), in which the tokens of a patch follow one another [b, p, d]."""
    b, tokens, d = tokens_bpd.shape
    frames_bfpd = tokens_bpd.reshape(b, per_patch, tokens // per_patch, d)
    return frames_bfpd.transpose(1, 2).reshape(b, tokens, d)


def load_encoder(
    folder: Path,
    family: str,
    layer: int = -1,
    final_norm: bool = True,
    device: str = "cpu",
    dtype: str = "float32",
    prefix_tokens: int | None = None,
    tokens: Literal["patches", "class"] = "patches",
    pool: int | None = None,
    random_weights: int | None = None,
    size: int | None = None,
    own: SvdSettings | Vjepa2Settings | None = None,
) -> VisionEncoder:
    """Load a vision encoder from a `save_pretrained` folder.

    Args:
        folder: config, safetensors weights and preprocessor_config.json (or, as transformers 5
            writes it, processor_config.json).
        family: one of `vista.config.encoders.family_names()`.
        layer: block whose output is read, counted from 0; negative counts from the last.
        final_norm: apply the norm that the family's `last_hidden_state` has.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto".
        dtype: "float32", "bfloat16" or "float16".
        prefix_tokens: tokens before the patches; None: as the family counts them.
        tokens: what `encode` returns: the patches, or the class token.
        pool: side of the grid that patches are averaged to; None: they are not.
        random_weights: seed of weights as the model's class initialises them, in place of those in
            the folder, which are not read.
        size: side of the square input, px; None: that of the folder's image processor.
        own: what families svd and vjepa2 have to choose; None: their defaults.

    Raises:
        UserError: the folder is missing, is of another family, or lacks weights or valid settings
            of an image processor; the device is not there; or the model has no class token, or
            fewer patches than `pool` asks for.
    """
    parts = load_family(family)
    place = find_device(device)
    video = parts if isinstance(parts, VideoFamily) else None
    preprocessor = (video.preprocessor if video else read_preprocessor)(folder)
    if size is not None:
        square_input = {"height": size, "width": size}
        preprocessor |= {"do_resize": True, "do_center_crop": False, "size": square_input}
    with loading(
        f"vision encoder {folder}: could not be loaded",
        "a save_pretrained folder with safetensors weights",
    ):
        if video and video.read:
            model = video.read(folder, random_weights, getattr(torch, dtype))
        else:
            model = _read(parts, family, folder, dtype, random_weights, size)
        if video:
            config = getattr(model, "config", None)
            side = Preprocessing.from_config(preprocessor, config, parts.resample).size
            model = video.shown(model, own, side)
        return VisionEncoder(
            family, model.to(place), preprocessor, layer, final_norm, prefix_tokens, tokens, pool
        )


def _read(
    parts: EncoderFamily,
    family: str,
    folder: Path,
    dtype: str,
    random_weights: int | None,
    size: int | None,
) -> Any:
    """The model of transformers in a folder."""
    from transformers import AutoConfig, AutoModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    # The config first: a wrong family is refused before gigabytes are read.
    config = load_part(AutoConfig, folder)
    model_type = str(config.model_type)
    other = parts.model_types and model_type not in parts.model_types
    # "vit" takes any model type, but not a model that is called with other inputs.
    if other or load_family(family_of(model_type)).inputs is not parts.inputs:
        raise UserError(
            f"vision encoder {folder}: it is a {model_type} model, not of {family!r}; "
            + (parts.instead or f"set family: {family_of(model_type)}")
        )
    if size is None and model_type in parts.any_size:
        raise UserError(
            f"vision encoder {folder}: a {model_type} model takes images of any size; set "
            "`size`, the side of the square that images are resized to, px"
        )
    if random_weights is None:
        model, missing = load_model(AutoModel, folder, config=config, dtype=getattr(torch, dtype))
        _refuse_missing(folder, model, parts.tower(model), missing)
        return model
    check_checkpoint(folder)
    return _random(AutoModel, config, random_weights).to(getattr(torch, dtype))


def _random(auto_class: Any, config: Any, seed: int) -> Any:
    """A model of random weights; the same for a seed, whatever else draws random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _refuse_missing(folder: Path, model: Any, tower: Any, missing: Sequence[str]) -> None:
    # A pooler, a head or a mask token takes no part in patch tokens, and real checkpoints do lack
    # them.
    tower_ids = {id(parameter) for parameter in tower.parameters()}
    lacking = sorted(
        name
        for name, parameter in model.named_parameters()
        if name in missing
        and id(parameter) in tower_ids
        and not {"pooler", "head", "mask_token"} & set(name.split("."))
    )
    if lacking:
        raise UserError(
            f"vision encoder {folder}: its files lack {len(lacking)} weights of the model "
            f"({lacking[0]}, ...); fetch it again"
        )
