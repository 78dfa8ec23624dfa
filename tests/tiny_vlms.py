"""Tiny vision-language models of random weights, on disk as the hub has them.

What is kept of the published files: classes, special tokens, how blanks become tokens, the places
of the template and of the image processor's settings, chat templates in short form. What is not:
sizes, ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LINES = (
    "a red cat at left .",
    "a blue dog on the grass at right .",
    "describe the scene .",
    "what is at left ?",
    "USER: ASSISTANT: user\nmodel\n",
)
GEMMA_SPECIAL = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
)
LLAVA_SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
# Writes BOS by itself, trims, and calls the assistant "model".
GEMMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text | trim }}{% endif %}"
    "{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Takes lists of parts alone, images first; writes no BOS.
LLAVA_CHAT = (
    "{% for m in messages %}{{ m.role | upper }}: "
    "{% for part in m.content if part.type == 'image' %}<image>\n{% endfor %}"
    "{% for part in m.content if part.type == 'text' %}{{ part.text }} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
QWEN_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
# Opens with a system turn of its own; no BOS.
QWEN_CHAT = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "<|im_start|>system\ndescribe .<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLIP_STEPS = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
SIGLIP_STEPS = {
    "image_processor_type": "Gemma3ImageProcessor",
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_pan_and_scan": None,
    "rescale_factor": 1 / 255,
    "resample": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
QWEN_STEPS = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "min_pixels": 256,
    "max_pixels": 4096,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": CLIP_STEPS["image_mean"],
    "image_std": CLIP_STEPS["image_std"],
}
SIZE = 32
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "max_position_embeddings": 256,
    # Large, so that what a test changes can be told from rounding.
    "initializer_range": 0.3,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
    "initializer_range": 0.3,
}


def _bpe(
    lines: Sequence[str], special: Sequence[str], pre_tokenizer: Any, normalizer: Any = None
) -> Any:
    """A byte-fallback BPE with blanks as ▁, trained on some lines."""
    from tokenizers import Tokenizer, decoders, models, trainers

    tokenizer: Any = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=900, special_tokens=[*special, *fallback], show_progress=False
        ),
    )
    # Bytes are ordinary tokens; only the trainer needs to hear of them.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if token["content"] in special
    ]
    return Tokenizer.from_str(json.dumps(state))


def _gemma_tokenizer(lines: Sequence[str]) -> Any:
    from tokenizers import normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = pre_tokenizers.Split("▁", "merged_with_previous")
    tokenizer = _bpe(lines, GEMMA_SPECIAL, pieces, normalizers.Replace(" ", "▁"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )


def _llava_tokenizer(lines: Sequence[str]) -> Any:
    from tokenizers import pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # As Llama's: a blank is put before the first piece of a text, and of it alone.
    blanks = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer = _bpe(lines, LLAVA_SPECIAL, blanks)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )


def _qwen_tokenizer(lines: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=list(QWEN_SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )


def _qwen_config(sizes: dict[str, Any], tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    vision = {
        "depth": 2,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 16,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        # Windows of 2 x 2 visual tokens, and one block that sees all.
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "out_hidden_size": sizes["hidden_size"],
        "initializer_range": 0.3,
    }
    rope = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 2, 2]}
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            *(("image", "image_pad"), ("video", "video_pad")),
            *(("vision_start", "vision_start"), ("vision_end", "vision_end")),
        )
    }
    return Qwen2_5_VLConfig(
        text_config={**sizes, "rope_parameters": rope}, vision_config=vision, **ids
    )


def save_vlm(
    kind: str,
    folder: Path,
    *,
    lines: Sequence[str] = LINES,
    size: int = SIZE,
    text: dict[str, Any] | None = None,
) -> None:
    """Write a model of one of KINDS into `folder`, the same bytes every time.

    Args:
        lines: text that the tokenizer is trained on.
        size: side of the images that its image processor makes, px; the tower's is SIZE.
        text: further settings of the language model.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    gemma = kind == "gemma3"
    tokenizer = TOKENIZERS.get(kind, _llava_tokenizer)(lines)
    sizes = {**TEXT, "vocab_size": len(tokenizer), **(text or {})}
    special = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    image_id = tokenizer.convert_tokens_to_ids(tokenizer.image_token)
    if gemma:
        # A window shorter than the prompt, and both kinds of attention.
        window = {"sliding_window": 12, "query_pre_attn_scalar": 12}
        layers = ["sliding_attention", "full_attention"] * (sizes["num_hidden_layers"] // 2)
        config: Any = transformers.Gemma3Config(
            text_config={**sizes, **special, **window, "layer_types": layers},
            vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION},
            mm_tokens_per_image=4,
            image_token_id=image_id,
            boi_token_id=tokenizer.convert_tokens_to_ids("<start_of_image>"),
            eoi_token_id=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        )
    elif kind == "qwen2_5_vl":
        config = _qwen_config({**sizes, **special}, tokenizer)
    else:
        class_config = getattr(transformers, {"llava": "LlavaConfig"}.get(kind, "LlavaNextConfig"))
        more = {} if kind == "llava" else {"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]}
        config = class_config(
            text_config={"model_type": "llama", **sizes, **special},
            vision_config={"model_type": "clip_vision_model", **VISION},
            image_token_id=image_id,
            image_seq_length=16,
            **more,
        )
    names = {
        "gemma3": "Gemma3ForConditionalGeneration",
        "llava": "LlavaForConditionalGeneration",
        "llava_next": "LlavaNextForConditionalGeneration",
        "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = getattr(transformers, names[kind])(config)
        for name, weight in model.named_parameters():
            # What starts at zero or one would hide that it is left out.
            if "norm" in name or name.endswith(("bias", "mm_input_projection_weight")):
                weight.data += 0.2 * torch.randn(weight.shape)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if gemma:
        (folder / "chat_template.jinja").write_text(GEMMA_CHAT)
        steps = {**SIGLIP_STEPS, "size": {"height": size, "width": size}}
    elif kind == "qwen2_5_vl":
        (folder / "chat_template.jinja").write_text(QWEN_CHAT)
        steps = QWEN_STEPS
    else:
        # Older repositories keep the processor's template here.
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": LLAVA_CHAT}))
        square = {"height": size, "width": size}
        steps = {**CLIP_STEPS, "size": {"shortest_edge": size}, "crop_size": square}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps))


TOKENIZERS = {"gemma3": _gemma_tokenizer, "qwen2_5_vl": _qwen_tokenizer}
KINDS = ("llava", "gemma3", "llava_next", "qwen2_5_vl")
