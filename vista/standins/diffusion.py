"""A small Stable Diffusion, trained on the drawn images and their captions.

Plain classes of diffusers and transformers, saved with `save_pretrained`, as in Stable Diffusion
(Rombach et al., 2022, arXiv 2112.10752): AutoencoderTiny, CLIPTextModel, UNet2DConditionModel and
DDIMScheduler. The autoencoder is trained first; text encoder and denoiser then learn together to
predict the velocity (Salimans and Ho, 2022, arXiv 2202.00512) of its latents, with some captions
left out at random (Ho and Salimans, 2022, arXiv 2207.12598). A noise schedule that ends without any
signal (Lin et al., 2023, arXiv 2305.08891) lets images be as dark or bright as real ones.

Legend: n image, b image of the batch, c channel, h and w rows and columns, t token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vista.config.pipeline import StandinPipeline
from vista.errors import UserError
from vista.progress import progress
from vista.standins.encoder import batches

BOS, EOS, UNK = "<bos>", "<eos>", "<unk>"
# Sides of squares over which the autoencoder's error is averaged too, so that it learns colours
# before edges.
_POOLED, _POOLED_WEIGHT = (2, 4, 8), 4.0
_ENCODED = 64


def train_standin_pipeline(
    settings: StandinPipeline,
    images_nhwc: NDArray[np.uint8],
    captions: Sequence[str],
    out: Path,
) -> dict[str, list[Any]]:
    """Train a pipeline and save it to `out` in diffusers' own format.

    Args:
        settings: sizes, and how long.
        images_nhwc: square images [n, size, size, 3], uint8.
        captions: one for each image.

    Returns:
        The learning curve: part ("autoencoder" or "denoiser"), step, and the mean loss since the
        last row.

    Raises:
        UserError: no captions, or fewer images than a batch.
    """
    from diffusers import StableDiffusionPipeline

    if not all(captions):
        raise UserError("the images that the pipeline learns from need a caption each")
    if len(captions) < max(settings.batch_size, settings.autoencoder_batch):
        raise UserError(
            f"{len(captions)} images are fewer than the batch of {settings.batch_size} that the "
            "pipeline learns from; draw more or lower batch_size"
        )
    pixels_nchw = torch.from_numpy(images_nhwc).permute(0, 3, 1, 2).float() / 127.5 - 1
    tokenizer = build_tokenizer(captions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        autoencoder = _autoencoder(settings)
        text_encoder = _text_encoder(settings, tokenizer)
        unet = _unet(settings, pixels_nchw.shape[2] // 2 ** (settings.autoencoder_sizes - 1))
        scheduler = _scheduler()
        curve: dict[str, list[Any]] = {"part": [], "step": [], "loss": []}
        _train_autoencoder(settings, autoencoder, pixels_nchw, curve)
        latents_nchw = _encode(autoencoder, pixels_nchw)
        autoencoder.register_to_config(scaling_factor=1 / float(latents_nchw.std()))
        latents_nchw *= autoencoder.config.scaling_factor
        ids_nt = _tokens(tokenizer, [*captions, ""])
        parts = (unet, text_encoder, scheduler)
        _train_denoiser(settings, parts, latents_nchw, ids_nt, curve)
    make: Any = StableDiffusionPipeline
    pipeline = make(
        vae=autoencoder.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    return curve


def build_tokenizer(captions: Sequence[str]) -> Any:
    """A tokenizer of one token for each word of the captions, with room for the longest of them;
    padded with the end, as CLIP's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for caption in captions for word in caption.split()})
    vocabulary = {word: i for i, word in enumerate([UNK, BOS, EOS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        special_tokens=[(BOS, vocabulary[BOS]), (EOS, vocabulary[EOS])],
    )
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        unk_token=UNK,
        model_max_length=2 + max(len(caption.split()) for caption in captions),
    )


def _tokens(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    encoded = tokenizer(
        list(texts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    ids_nt: Tensor = encoded.input_ids
    return ids_nt


def _autoencoder(settings: StandinPipeline) -> Any:
    from diffusers import AutoencoderTiny

    make: Any = AutoencoderTiny
    channels = (settings.autoencoder_channels,) * settings.autoencoder_sizes
    # Blocks where images are small, and cheap.
    blocks = tuple(int(size + 2 >= settings.autoencoder_sizes) for size in range(len(channels)))
    return make(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
        latent_channels=settings.latent_channels,
    )


def _text_encoder(settings: StandinPipeline, tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": settings.text_width,
        "intermediate_size": 2 * settings.text_width,
        "projection_dim": settings.text_width,
        "num_hidden_layers": settings.text_blocks,
        "num_attention_heads": settings.heads,
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextModel(CLIPTextConfig(**shape))


def _unet(settings: StandinPipeline, size: int) -> Any:
    from diffusers import UNet2DConditionModel

    sizes = len(settings.channels)
    make: Any = UNet2DConditionModel
    return make(
        sample_size=size,
        in_channels=settings.latent_channels,
        out_channels=settings.latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * sizes,
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D",) * sizes,
        block_out_channels=settings.channels,
        layers_per_block=1,
        cross_attention_dim=settings.text_width,
        attention_head_dim=settings.heads,
        norm_num_groups=8,
    )


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    make: Any = DDIMScheduler
    return make(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def _train_autoencoder(
    settings: StandinPipeline, autoencoder: Any, pixels_nchw: Tensor, curve: dict[str, list[Any]]
) -> None:
    steps, n = settings.autoencoder_steps, len(pixels_nchw)

    def loss(rows: Tensor) -> Tensor:
        images_bchw = pixels_nchw[rows]
        # Its own forward rounds the latents to bytes, which lets no gradient through.
        latents_bchw = autoencoder.encode(images_bchw).latents
        error_bchw = autoencoder.decode(latents_bchw).sample - images_bchw
        pooled = [functional.avg_pool2d(error_bchw, side).square().mean() for side in _POOLED]
        total: Tensor = error_bchw.square().mean() + _POOLED_WEIGHT * torch.stack(pooled).sum()
        return total

    rows = batches(n, settings.autoencoder_batch, steps)
    _fit("autoencoder", [autoencoder], loss, rows, settings.lr, steps, curve)


@torch.no_grad()
def _encode(autoencoder: Any, pixels_nchw: Tensor) -> Tensor:
    autoencoder.eval()
    parts = [autoencoder.encode(part).latents for part in torch.split(pixels_nchw, _ENCODED)]
    return torch.cat(parts)


def _train_denoiser(
    settings: StandinPipeline,
    parts: tuple[Any, Any, Any],
    latents_nchw: Tensor,
    ids_nt: Tensor,
    curve: dict[str, list[Any]],
) -> None:
    """Train text encoder and denoiser; the last row of `ids_nt` is that of an empty caption."""
    unet, text_encoder, scheduler = parts

    def loss(rows: Tensor) -> Tensor:
        left_out = torch.rand(len(rows)) < settings.unconditional
        text_bte = text_encoder(ids_nt[torch.where(left_out, len(ids_nt) - 1, rows)])[0]
        clean_bchw = latents_nchw[rows]
        noise_bchw = torch.randn_like(clean_bchw)
        time_b = torch.randint(scheduler.config.num_train_timesteps, (len(rows),))
        noisy_bchw = scheduler.add_noise(clean_bchw, noise_bchw, time_b)
        target_bchw = scheduler.get_velocity(clean_bchw, noise_bchw, time_b)
        output_bchw = unet(noisy_bchw, time_b, encoder_hidden_states=text_bte).sample
        return functional.mse_loss(output_bchw, target_bchw)

    rows = batches(len(latents_nchw), settings.batch_size, settings.steps)
    trained = [unet, text_encoder]
    _fit("denoiser", trained, loss, rows, settings.lr, settings.steps, curve)


def _fit(
    part: str,
    models: Sequence[Any],
    loss_of: Any,
    batches: Iterator[Tensor],
    lr: float,
    steps: int,
    curve: dict[str, list[Any]],
) -> None:
    parameters = [p for model in models for p in model.train().parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, fused=True)
    warm, every = max(1, steps // 20), max(1, steps // 20)
    since: list[float] = []
    for step, rows in enumerate(progress(batches, total=steps, desc=part, unit="step")):
        fall = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / warm) * fall
        loss = loss_of(rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        since.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == steps:
            curve["part"].append(part)
            curve["step"].append(step + 1)
            curve["loss"].append(float(np.mean(since)))
            since = []
