"""A Stable Diffusion pipeline whose text encoder's residual stream is read and edited.

The stream is that after a block of the text encoder, counted from 0. Images are made from noise
that a seed fixes, so that two images of a seed differ by prompt and edit alone.

Legend: b prompt, t token, d width of the text encoder, h and w rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vista.config.pipeline import PipelineSettings
from vista.device import find_device
from vista.errors import UserError
from vista.foreign.pretrained import loading
from vista.foreign.text import read_json_object
from vista.foreign.weights import check_checkpoint
from vista.progress import progress

PARTS = ("text_encoder", "tokenizer", "unet", "vae", "scheduler")
INDEX = "model_index.json"

# What is added to the stream [t, d] at the words of one prompt.
Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sample:
    """One image to be: its prompt, the seed of its noise, and an edit of the prompt's stream."""

    prompt: str
    seed: int
    edit: Edit | None = None


class TextToImage:
    """A pipeline that reads and edits one block of its text encoder.

    Attributes:
        blocks: the text encoder's blocks.
        width: of its residual stream.
    """

    def __init__(self, pipeline: Any, settings: PipelineSettings, layer: int) -> None:
        self._pipeline, self._settings = pipeline, settings
        model = pipeline.text_encoder
        encoder = getattr(getattr(model, "text_model", model), "encoder", None)
        layers = getattr(encoder, "layers", ())
        self.blocks = len(layers)
        if not self.blocks:
            raise UserError(
                f"probing.diffusion.pipeline: its text encoder is a {type(model).__name__}; "
                "choose a pipeline with a CLIP text encoder"
            )
        if layer >= self.blocks:
            raise UserError(
                f"probing.diffusion.layer {layer} does not exist; the text encoder has blocks "
                f"0..{self.blocks - 1}"
            )
        self._block = layers[layer]
        self.width = int(model.config.hidden_size)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._pipeline.device
        return device

    def words(self, prompts: Sequence[str]) -> Tensor:
        """Which tokens are words of the prompt, and not its begin, end or padding: bool [b, t]."""
        tokenizer = self._pipeline.tokenizer
        encoded = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        words_bt: Tensor = encoded.special_tokens_mask == 0
        return words_bt

    def stream(self, prompts: Sequence[str]) -> Tensor:
        """The residual stream after the block, float32 [b, t, d] on the CPU."""
        caught: list[Tensor] = []

        def catch(x_btd: Tensor) -> Tensor:
            caught.append(x_btd.float().cpu())
            return x_btd

        with self._hooked(catch):
            self._embed(prompts)
        return caught[0]

    def images(self, samples: Sequence[Sample]) -> Iterator[NDArray[np.uint8]]:
        """Yield the samples' images in their order, batch by batch [b, h, w, 3]."""
        size = self._settings.batch_size
        starts = range(0, len(samples), size)
        negative_1td = self._embed([""])
        for start in progress(starts, desc="images", unit="batch"):
            yield self._batch(samples[start : start + size], negative_1td)

    @torch.no_grad()
    def _batch(self, samples: Sequence[Sample], negative_1td: Tensor) -> NDArray[np.uint8]:
        prompts = [sample.prompt for sample in samples]
        words_bt = self.words(prompts)

        def edit(x_btd: Tensor) -> Tensor:
            edited_btd = x_btd.clone()
            for b, sample in enumerate(samples):
                if sample.edit is not None:
                    at_t = words_bt[b].to(x_btd.device)
                    x_td = x_btd[b, at_t]
                    edited_btd[b, at_t] = x_td + sample.edit(x_td.float().cpu()).to(x_td)
            return edited_btd

        with self._hooked(edit):
            embeds_btd = self._embed(prompts)
        unet = self._pipeline.unet
        shape = (unet.config.in_channels, *2 * (unet.config.sample_size,))
        generators = [torch.Generator().manual_seed(sample.seed) for sample in samples]
        noise_bchw = torch.stack(
            [torch.randn(shape, generator=generator) for generator in generators]
        )
        made = self._pipeline(
            prompt_embeds=embeds_btd,
            negative_prompt_embeds=negative_1td.expand_as(embeds_btd),
            latents=noise_bchw.to(embeds_btd),
            generator=generators,
            num_inference_steps=self._settings.steps,
            guidance_scale=self._settings.guidance,
            output_type="np",
        )
        images_bhwc: NDArray[np.uint8] = np.rint(255 * np.asarray(made.images)).astype(np.uint8)
        return images_bhwc

    @torch.no_grad()
    def _embed(self, prompts: Sequence[str]) -> Tensor:
        """What the denoiser reads of prompts [b, t, d]."""
        embeds_btd: Tensor = self._pipeline.encode_prompt(
            list(prompts), self._device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )[0]
        return embeds_btd

    @contextmanager
    def _hooked(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Pass the block's output through `change`."""

        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (change(output[0]), *output[1:])
            return change(output)

        handle = self._block.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def load_pipeline(folder: Path, settings: PipelineSettings, layer: int) -> TextToImage:
    """Load a `save_pretrained` folder of a Stable Diffusion pipeline: safetensors weights alone, no
    code of its own, no network, no safety checker.

    Raises UserError naming the folder where it holds no such pipeline, above all one without a
    text encoder or with several.
    """
    _refuse_others(folder)
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging
    from transformers.utils.logging import disable_progress_bar

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    device = find_device(settings.device)
    with loading(
        f"{folder}: could not be loaded as a Stable Diffusion pipeline",
        "a save_pretrained folder with safetensors weights",
    ):
        loader: Any = StableDiffusionPipeline
        pipeline = loader.from_pretrained(
            str(folder),
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    reads, has = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if reads != has:
        raise UserError(
            f"{folder}: the denoiser reads {reads} channels of images with {has}, as one for "
            "inpainting does; choose a text-to-image pipeline"
        )
    side = pipeline.unet.config.sample_size
    if not isinstance(side, int) or side < 1:
        raise UserError(
            f"{folder / 'unet'}: config.json has sample_size {side!r}, expected the side of square "
            "latents"
        )
    pipeline.set_progress_bar_config(disable=True)
    return TextToImage(pipeline.to(device), settings, layer)


def _refuse_others(folder: Path) -> None:
    """Refuse a folder that holds no pipeline, and parts that only code of its own could load."""
    path = folder / INDEX
    index = read_json_object(path)
    libraries = {
        name: entry[0] for name, entry in index.items() if isinstance(entry, list) and entry
    }
    for part in PARTS:
        if libraries.get(part) is None:
            what = part.replace("_", " ")
            raise UserError(
                f"{folder}: the pipeline has no {what}; choose a text-to-image pipeline such as "
                "Stable Diffusion"
            )
        if libraries[part] not in ("diffusers", "transformers"):
            raise UserError(
                f"{path}: {part} needs code from {libraries[part]!r}, which is not run; choose a "
                "pipeline of diffusers' and transformers' own parts"
            )
    if libraries.get("text_encoder_2") is not None:
        raise UserError(
            f"{folder}: the pipeline has several text encoders; choose one with a single one, "
            "such as Stable Diffusion 1 or 2"
        )
    for part in PARTS:
        if not (folder / part).is_dir():
            raise UserError(f"{folder / part} is missing; give the whole pipeline")
        check_checkpoint(folder / part)
