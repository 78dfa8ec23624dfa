"""Tiny video models of random weights, saved as the published ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIZE = 16  # of the drawn inputs, px
CLIP = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}


def save_svd(folder: Path, seed: int = 0) -> Any:
    """Save a StableVideoDiffusionPipeline whose patches have 4 px; return it."""
    import torch
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    unet = UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        layers_per_block=1,
        num_attention_heads=(2, 2),
        cross_attention_dim=8,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        sample_size=8,
        num_frames=3,
    )
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, sample_size=SIZE
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,  # the pipeline's own, whatever the config
        patch_size=56,
        projection_dim=8,
    )
    # As the published scheduler_config.json.
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        sigma_min=0.002,
        sigma_max=700.0,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
    pipeline = StableVideoDiffusionPipeline(
        vae.eval(),
        CLIPVisionModelWithProjection(vision).eval(),
        unet.eval(),
        scheduler,
        CLIPImageProcessor(**CLIP),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


def save_vjepa2(folder: Path, seed: int = 0) -> Any:
    """Save a VJEPA2Model whose patches have 4 px, and return it."""
    import torch
    from transformers import VJEPA2Config, VJEPA2Model

    torch.manual_seed(seed)
    config = VJEPA2Config(
        patch_size=4,
        crop_size=SIZE,
        frames_per_clip=4,
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        initializer_range=0.2,
        pred_hidden_size=16,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=2,
    )
    model = VJEPA2Model(config).eval()
    model.save_pretrained(folder)
    # The keys and the name of the published file.
    processor = {
        "video_processor_type": "VJEPA2VideoProcessor",
        "do_resize": True,
        "do_center_crop": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "resample": 2,
        "size": {"shortest_edge": 18},
        "crop_size": {"height": SIZE, "width": SIZE},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "video_preprocessor_config.json").write_text(json.dumps(processor))
    return model
