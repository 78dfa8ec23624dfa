"""Settings of a text-to-image pipeline: where it comes from, and how it generates."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings
from vista.config.data import Split


class StandinPipeline(Settings):
    """A small Stable Diffusion that the run trains: autoencoder first, then text encoder and
    denoiser together, on its cached latents."""

    kind: Literal["standin"] = "standin"
    split: Split = Field("train", description="images and captions that are learnt from")
    image_size: int = Field(48, ge=8, description="side of the square images, pixels")
    autoencoder_channels: int = Field(32, ge=1, description="channels of the autoencoder")
    autoencoder_sizes: int = Field(
        4, ge=2, description="sizes of its images, each half of the one before; the last: latents"
    )
    latent_channels: int = Field(16, ge=1, description="channels of the latents")
    autoencoder_steps: int = Field(1000, ge=1, description="optimizer steps")
    autoencoder_batch: int = Field(16, ge=1, description="images a step")
    channels: tuple[int, ...] = Field(
        (64, 96), min_length=1, description="the denoiser's channels, multiples of 8, at each size"
    )
    text_width: int = Field(64, ge=8, description="width of the text encoder")
    text_blocks: int = Field(2, ge=1, description="blocks of the text encoder")
    heads: int = Field(4, ge=1, description="attention heads of each block")
    steps: int = Field(1800, ge=1, description="optimizer steps of denoiser and text encoder")
    batch_size: int = Field(32, ge=1, description="images a step")
    lr: float = Field(2e-3, gt=0, description="peak learning rate of AdamW, cosine to 0")
    unconditional: float = Field(
        0.1, ge=0, lt=1, description="share of captions left out, for classifier-free guidance"
    )
    seed: int = Field(475, ge=0, description="seed of weights, noise and order of images")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.text_width % self.heads:
            raise ValueError(f"text_width {self.text_width} is no multiple of heads {self.heads}")
        if odd := [channels for channels in self.channels if channels % 8]:
            raise ValueError(f"channels {odd[0]} are no multiple of 8")
        if self.image_size % 2 ** (self.autoencoder_sizes - 1):
            raise ValueError(
                f"image_size {self.image_size} cannot be halved {self.autoencoder_sizes - 1} times"
            )
        return self


class CheckpointPipeline(Settings):
    """A Stable Diffusion pipeline on disk, as `save_pretrained` writes it."""

    kind: Literal["checkpoint"]
    path: str = Field(
        description="folder with model_index.json, text_encoder, tokenizer, unet, vae, scheduler"
    )


class PipelineSettings(Settings):
    """The pipeline and how it generates."""

    source: Annotated[StandinPipeline | CheckpointPipeline, Field(discriminator="kind")] = Field(
        StandinPipeline(), description="trained here, or a checkpoint"
    )
    steps: int = Field(20, ge=1, description="denoising steps an image")
    guidance: float = Field(3.0, ge=1, description="scale of classifier-free guidance; 1: none")
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda|cuda:\d+|mps|auto)$",
        description='"cpu", "cuda", "cuda:1", "mps" or "auto"',
    )
    batch_size: int = Field(32, ge=1, description="images that are generated together")
