"""Stable Video Diffusion as an encoder: what its denoiser makes of an image in one step.

Stages as in DyVA (arXiv 2510.00855) and in diffusers' StableVideoDiffusionPipeline, up to the
denoiser's middle: CLIP embeds the image; the autoencoder's latents of the image with a little
noise are each frame's condition; the denoiser sees them beside the noise of the first step. Where
this is another way than DyVA's:

- The noise follows from a seed, and is the same for every image: features depend on the image
  alone.
- No classifier-free guidance: DyVA reads the conditional half of that batch, which is what is left.
- The features are read as they are. DyVA passes them through the scheduler's step against fresh
  noise, an affine map plus noise.
- The autoencoder runs in float32 whatever the dtype.

Legend: b image, f frame, c channel, h and w rows and columns, d width.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vista.config.encoders import SvdSettings
from vista.encoders.registry import VideoFamily, plain_inputs
from vista.errors import UserError
from vista.foreign.preprocessor import ImageSteps, image_steps
from vista.foreign.pretrained import load_model, load_part
from vista.foreign.text import read_json_object
from vista.foreign.weights import check_checkpoint

_INDEX = "model_index.json"
_PIPELINE = "StableVideoDiffusionPipeline"
_MODELS = ("unet", "vae", "image_encoder")
_SIZE = 448  # px, DyVA's
_WEIGHTS = "diffusion_pytorch_model"


class Parts(NamedTuple):
    """What a pipeline consists of; `clip` is how CLIP's pixels are normalised."""

    unet: Any
    vae: Any
    image_encoder: Any
    scheduler: Any
    clip: ImageSteps


class OneStep(nn.Module):
    """One pass of the denoiser, up to its middle.

    Attributes:
        config: what an encoder reads of a tower's config. A patch is the part of the image that one
            place of the middle stands for: 64 px in the published model.
    """

    _pixels: Tensor
    _start: Tensor
    _step: Tensor

    def __init__(self, parts: Parts, own: SvdSettings, size: int) -> None:
        super().__init__()
        unet, vae = parts.unet, parts.vae
        shrinks = len(vae.config.block_out_channels) - 1
        patch = 2 ** (shrinks + len(unet.config.block_out_channels) - 1)
        if size % patch:
            raise UserError(
                f"encoders: Stable Video Diffusion cannot see images of {size} px; set `size` to a "
                f"multiple of {patch}"
            )
        channels = vae.config.latent_channels
        if unet.config.in_channels != 2 * channels:
            raise UserError(
                f"encoders: the denoiser reads {unet.config.in_channels} channels, expected "
                f"{2 * channels}, twice the {channels} of the autoencoder; take the parts of one "
                "pipeline"
            )
        # The first parameters are the autoencoder's, float32, and so are the pixels that come in.
        self.vae: Any = vae
        self.unet: Any = unet
        self.image_encoder: Any = parts.image_encoder
        self._own, self._clip = own, parts.clip
        vae.decoder = nn.Identity()  # what makes images of latents would only fill memory
        _end_in_the_middle(unet, own.tap)
        generator = torch.Generator().manual_seed(own.noise_seed)
        latent = size // 2**shrinks
        # In the pipeline's order.
        pixels_1chw = torch.randn((1, 3, size, size), generator=generator)
        start_1fchw = torch.randn((1, own.frames, channels, latent, latent), generator=generator)
        scheduler = parts.scheduler
        scheduler.set_timesteps(1)
        (step,) = scheduler.timesteps
        start_1fchw = scheduler.scale_model_input(start_1fchw * scheduler.init_noise_sigma, step)
        for name, value in (("pixels", pixels_1chw), ("start", start_1fchw), ("step", step)):
            self.register_buffer(f"_{name}", value, persistent=False)
        self.config = SimpleNamespace(
            model_type="stable_video_diffusion",
            hidden_size=unet.config.block_out_channels[-1],
            patch_size=patch,
            image_size=size,
            num_channels=3,
            per_patch=own.frames,
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return tokens [b, f * h * w, d] of pixels [b, 3, size, size], -1..1, float32."""
        own, dtype = self._own, self.unet.dtype
        frames = (-1, own.frames, -1, -1, -1)
        noisy_bchw = pixel_values + own.noise * self._pixels
        condition_bchw = self.vae.encode(noisy_bchw).latent_dist.mode().to(dtype)
        condition_bfchw = condition_bchw[:, None].expand(frames)
        start_bfchw = self._start.to(dtype).expand(len(pixel_values), -1, -1, -1, -1)
        numbers = [own.fps - 1, own.motion_bucket, own.noise]
        numbers_b3 = torch.tensor([numbers] * len(pixel_values), dtype=dtype)
        features_bfchw: Tensor = self.unet(
            torch.cat([start_bfchw, condition_bfchw], dim=2),
            self._step,
            encoder_hidden_states=self._embedding(pixel_values),
            added_time_ids=numbers_b3.to(pixel_values.device),
            return_dict=False,
        )[0]
        return features_bfchw.permute(0, 1, 3, 4, 2).flatten(1, 3)

    def _embedding(self, pixels_bchw: Tensor) -> Tensor:
        """CLIP's embedding of the images [b, 1, c]."""
        # The pipeline's own filter, which PIL's are not.
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
            _resize_with_antialiasing,
        )

        side = self.image_encoder.config.image_size
        small_bchw = _resize_with_antialiasing(pixels_bchw, (side, side))  # type: ignore[no-untyped-call]
        mean, std = (
            torch.tensor(values, device=pixels_bchw.device).view(3, 1, 1)
            for values in (self._clip.mean, self._clip.std)
        )
        given_bchw = (((small_bchw + 1) / 2 - mean) / std).to(self.image_encoder.dtype)
        embedding_bc: Tensor = self.image_encoder(given_bchw).image_embeds
        return embedding_bc[:, None].to(self.unet.dtype)


class _Skipped(nn.Module):
    """In place of the mid block: features as they come in."""

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        return hidden_states


def _end_in_the_middle(unet: Any, tap: str) -> None:
    """Take away what a denoiser does after the place that is read, half of its work."""
    unet.up_blocks = nn.ModuleList()
    unet.conv_norm_out = unet.conv_act = unet.conv_out = nn.Identity()
    if tap == "down":
        unet.mid_block = _Skipped()


def _preprocessor(folder: Path) -> dict[str, Any]:
    """How the autoencoder's images are prepared; no file of a pipeline tells it."""
    return {"size": _SIZE, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def _read(folder: Path, random_weights: int | None, dtype: Any) -> Parts:
    """Load the parts of a pipeline, by the classes of diffusers and transformers alone.

    Raises UserError where the folder holds no such pipeline, or lacks weights.
    """
    if read_json_object(folder / _INDEX).get("_class_name") != _PIPELINE:
        raise UserError(
            f"{folder / _INDEX}: expected the _class_name {_PIPELINE}; give a folder of Stable "
            "Video Diffusion as diffusers saves it"
        )
    for name in _MODELS:
        if not (folder / name).is_dir():
            raise UserError(f"{folder / name} is missing; give the whole pipeline")
        check_checkpoint(folder / name)
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        UNetSpatioTemporalConditionModel,
    )
    from diffusers.utils import logging
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    from transformers.utils.logging import disable_progress_bar

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    extractor = folder / "feature_extractor" / "preprocessor_config.json"
    clip = image_steps(read_json_object(extractor), str(extractor))
    scheduler = load_part(EulerDiscreteScheduler, folder / "scheduler")
    vision: Any = CLIPVisionModelWithProjection
    if random_weights is None:
        unet = _weights(UNetSpatioTemporalConditionModel, folder / "unet")
        vae = _weights(AutoencoderKLTemporalDecoder, folder / "vae")
        image_encoder, missing = load_model(vision, folder / "image_encoder")
        _refuse(missing, folder / "image_encoder")
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_weights)
            unet = _initialised(UNetSpatioTemporalConditionModel, folder / "unet")
            vae = _initialised(AutoencoderKLTemporalDecoder, folder / "vae")
            image_encoder = vision(load_part(CLIPVisionConfig, folder / "image_encoder"))
    return Parts(unet.to(dtype), vae.float(), image_encoder.to(dtype), scheduler, clip)


def _weights(model_class: Any, folder: Path) -> Any:
    whole = (folder / f"{_WEIGHTS}.safetensors").is_file()
    model, report = model_class.from_pretrained(
        str(folder),
        use_safetensors=True,  # no pickle
        local_files_only=True,
        output_loading_info=True,
        variant=None if whole else "fp16",
    )
    _refuse(report["missing_keys"], folder)
    return model


def _initialised(model_class: Any, folder: Path) -> Any:
    return model_class.from_config(read_json_object(folder / "config.json"))


def _refuse(missing: Any, folder: Path) -> None:
    lacking = sorted(missing)
    if lacking:
        raise UserError(
            f"{folder}: its files lack {len(lacking)} weights of the model ({lacking[0]}, ...); "
            "fetch it again"
        )


def _inputs(pixels_bchw: Tensor, patch: int) -> Any:
    return plain_inputs(pixels_bchw, patch)


FAMILY = VideoFamily(
    model_types=("stable_video_diffusion",),
    prefix_tokens=lambda tower: 0,
    norm=lambda tower: None,
    resample=2,
    inputs=_inputs,
    blocks=lambda tower: [tower],
    preprocessor=_preprocessor,
    read=_read,
    shown=lambda parts, own, size: OneStep(parts, own or SvdSettings(), size),
)
