"""Random-weight checkpoints of the real classes, on disk as the hub has them.

What is kept of the published files: their names, config.json in the published spelling (rope_theta
and rope_scaling, torch_dtype), weight names and sharding, special tokens, tokenizer classes, chat
templates in short form, several end tokens in generation_config.json. What is not: sizes, ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LINES = (
    "a red cat at left .",
    "a blue dog on the grass at right .",
    "describe the scene .",
    "what is at left ?",
    "what color is the cat ?",
    "the sand is yellow and the sky is blue .",
)

# Gemma refuses a system role, trims, calls the assistant "model" and writes BOS by itself.
GEMMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Llama 3.1 opens with BOS and a system turn of its own that names the date.
LLAMA_CHAT = (
    "{% macro header(role) %}<|start_header_id|>{{ role }}<|end_header_id|>\n\n{% endmacro %}"
    "{{ bos_token }}{{ header('system') }}Today Date: "
    "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n\n<|eot_id|>"
    "{% for m in messages %}{{ header(m.role) }}{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}{{ header('assistant') }}{% endif %}"
)
# Qwen 3 writes its reasoning before the last answer only: a later turn rewrites an earlier one.
QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
GEMMA_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
LLAMA_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
)
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def save_checkpoint(
    family: str,
    folder: Path,
    *,
    vocabulary: Sequence[str] = LINES,
    d_model: int = 32,
    n_blocks: int = 3,
    window: int = 8,
) -> None:
    """Write a random checkpoint of one of FAMILIES into `folder`, the same bytes every time.

    Args:
        vocabulary: lines that the tokenizer is trained on.
        d_model: width, a multiple of 4.
        window: sliding window of the Gemma models, in tokens.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, described, chat = TOKENIZERS[family](vocabulary)
    config = CONFIGS[family](tokenizer, d_model, n_blocks, window)
    _dump(folder / "config.json", config)
    _save_tokenizer(folder, tokenizer, described, chat, own_file=family in TEMPLATE_FILE)
    if family != "gpt2":
        ends = [tokenizer.token_to_id(token) for token in ENDS[family]]
        _dump(
            folder / "generation_config.json",
            {"bos_token_id": config.get("bos_token_id"), "eos_token_id": ends, "do_sample": True},
        )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = transformers.AutoConfig.from_pretrained(folder)
        model: Any = getattr(transformers, config["architectures"][0])(made)
        for name, weight in model.named_parameters():
            # Norms at their start values would hide a norm that is left out.
            if "norm" in name or name.split(".")[-2].startswith("ln_"):
                weight.data += 0.1 * torch.randn(weight.shape)
    _save_weights(folder, family, model)


def _save_weights(folder: Path, family: str, model: Any) -> None:
    """Two shards with an index (one plain file for GPT-2), under the names of the hub's files."""
    from safetensors.torch import save_file

    tied = model.config.get_text_config().tie_word_embeddings
    weights = {
        _hub_name(family, name): value.contiguous()
        for name, value in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    if family == "gpt2":
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(weights)
    place = {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({n: weights[n] for n in part}, folder / file, metadata={"format": "pt"})
        place.update(dict.fromkeys(part, file))
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    _dump(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": size}, "weight_map": place},
    )


def _hub_name(family: str, name: str) -> str:
    if family == "gpt2":
        return name.removeprefix("transformer.")
    if family == "gemma3_multimodal":
        name = name.removeprefix("model.")
        if name.startswith("language_model."):
            return name.replace("language_model.", "language_model.model.", 1)
        if name.startswith("vision_tower.") and "vision_model" not in name:
            return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


def _gemma_tokenizer(lines: Sequence[str]) -> tuple[Any, dict[str, Any], str | None]:
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer: Any = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    # Bytes are ordinary tokens there; only the trainer needs to hear of them.
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(
        [*lines, "user\nmodel\n"],
        trainers.BpeTrainer(
            vocab_size=420, special_tokens=[*GEMMA_SPECIAL, *fallback], show_progress=False
        ),
    )
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [
        each for each in state["added_tokens"] if each["content"] in GEMMA_SPECIAL
    ]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    described = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    return tokenizer, described, GEMMA_CHAT


def _byte_level(lines: Sequence[str], special: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [*lines, "user\n\nassistant\n\nsystem\n\n"],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def _llama_tokenizer(lines: Sequence[str]) -> tuple[Any, dict[str, Any], str | None]:
    from tokenizers import processors

    tokenizer = _byte_level(lines, LLAMA_SPECIAL)
    bos = LLAMA_SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": "<|eot_id|>",
    }
    return tokenizer, described, LLAMA_CHAT


def _qwen_tokenizer(lines: Sequence[str]) -> tuple[Any, dict[str, Any], str | None]:
    described = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    return _byte_level(lines, QWEN_SPECIAL), described, QWEN_CHAT


def _gpt2_tokenizer(lines: Sequence[str]) -> tuple[Any, dict[str, Any], str | None]:
    described = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return (
        _byte_level(lines, QWEN_SPECIAL[:1]),
        {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, **described},
        None,
    )


def _save_tokenizer(
    folder: Path, tokenizer: Any, described: dict[str, Any], chat: str | None, own_file: bool
) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        **described,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
        "added_tokens_decoder": {
            str(i): {
                "content": token.content,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for i, token in tokenizer.get_added_tokens_decoder().items()
        },
    }
    if chat is not None and own_file:
        (folder / "chat_template.jinja").write_text(chat)
    elif chat is not None:
        described["chat_template"] = chat
    _dump(folder / "tokenizer_config.json", described)
    named = {name: described.get(name) for name in ("bos_token", "eos_token", "pad_token")}
    _dump(
        folder / "special_tokens_map.json", {name: token for name, token in named.items() if token}
    )


def _modern(
    architecture: str, model_type: str, tokenizer: Any, d_model: int, n_blocks: int
) -> dict[str, Any]:
    """What config.json says in every family but GPT-2."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": d_model,
        "intermediate_size": 2 * d_model,
        "num_hidden_layers": n_blocks,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-6,
        "torch_dtype": "float32",
        # Large, so that what a test changes can be told from rounding.
        "initializer_range": 0.2,
    }


def _gemma(
    architecture: str, model_type: str, tokenizer: Any, d_model: int, n_blocks: int, window: int
) -> dict[str, Any]:
    return _modern(architecture, model_type, tokenizer, d_model, n_blocks) | {
        "bos_token_id": tokenizer.token_to_id("<bos>"),
        "eos_token_id": tokenizer.token_to_id("<eos>"),
        "pad_token_id": tokenizer.token_to_id("<pad>"),
        "hidden_activation": "gelu_pytorch_tanh",
        # Not the head's width, so that a scale taken from there is seen.
        "query_pre_attn_scalar": 12,
        "rope_theta": 10000.0,
        "sliding_window": window,
    }


def _gemma2(tokenizer: Any, d_model: int, n_blocks: int, window: int) -> dict[str, Any]:
    # Caps low enough to bite: a head that skips them gives other logits.
    return _gemma("Gemma2ForCausalLM", "gemma2", tokenizer, d_model, n_blocks, window) | {
        "attn_logit_softcapping": 1.0,
        "final_logit_softcapping": 0.5,
    }


def _gemma3(tokenizer: Any, d_model: int, n_blocks: int, window: int) -> dict[str, Any]:
    return _gemma("Gemma3ForCausalLM", "gemma3_text", tokenizer, d_model, n_blocks, window) | {
        "rope_theta": 1000000,
        "rope_local_base_freq": 10000,
        "sliding_window_pattern": 2,
    }


def _gemma3_multimodal(tokenizer: Any, d_model: int, n_blocks: int, window: int) -> dict[str, Any]:
    text = _gemma3(tokenizer, d_model, n_blocks, window)
    del text["architectures"]
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "bos_token_id": text["bos_token_id"],
        "eos_token_id": [tokenizer.token_to_id(token) for token in ENDS["gemma3_multimodal"]],
        "text_config": text | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "vision_use_head": False,
        },
        "mm_tokens_per_image": 4,
        # Beyond the vocabulary, as published: the text part alone must never need it.
        "image_token_index": text["vocab_size"],
        "torch_dtype": "float32",
    }


def _llama31(tokenizer: Any, d_model: int, n_blocks: int, window: int) -> dict[str, Any]:
    ends = [tokenizer.token_to_id(token) for token in ENDS["llama31"]]
    return _modern("LlamaForCausalLM", "llama", tokenizer, d_model, n_blocks) | {
        "bos_token_id": tokenizer.token_to_id("<|begin_of_text|>"),
        "eos_token_id": ends,
        "rope_theta": 500000.0,
        # The published factors; the short original context makes them reach these positions.
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "tie_word_embeddings": False,
    }


def _qwen3(tokenizer: Any, d_model: int, n_blocks: int, window: int) -> dict[str, Any]:
    return _modern("Qwen3ForCausalLM", "qwen3", tokenizer, d_model, n_blocks) | {
        # The model's config names one although the tokenizer has none.
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "rope_theta": 1000000,
        "rope_scaling": None,
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    }


def _gpt2(tokenizer: Any, d_model: int, n_blocks: int, window: int) -> dict[str, Any]:
    end = tokenizer.token_to_id("<|endoftext|>")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": tokenizer.get_vocab_size(),
        "n_embd": d_model,
        "n_layer": n_blocks,
        "n_head": 2,
        "n_positions": 256,
        "n_ctx": 256,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.2,
        "bos_token_id": end,
        "eos_token_id": end,
    }


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


CONFIGS: dict[str, Callable[[Any, int, int, int], dict[str, Any]]] = {
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gemma3_multimodal": _gemma3_multimodal,
    "llama31": _llama31,
    "qwen3": _qwen3,
    "gpt2": _gpt2,
}
TOKENIZERS: dict[str, Callable[[Sequence[str]], tuple[Any, dict[str, Any], str | None]]] = {
    "gemma2": _gemma_tokenizer,
    "gemma3": _gemma_tokenizer,
    "gemma3_multimodal": _gemma_tokenizer,
    "llama31": _llama_tokenizer,
    "qwen3": _qwen_tokenizer,
    "gpt2": _gpt2_tokenizer,
}
# Tokens that end an answer, by generation_config.json; GPT-2's published file names no list.
ENDS = {
    "gemma2": ("<eos>", "<end_of_turn>"),
    "gemma3": ("<eos>", "<end_of_turn>"),
    "gemma3_multimodal": ("<eos>", "<end_of_turn>"),
    "llama31": ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    "qwen3": ("<|im_end|>", "<|endoftext|>"),
    "gpt2": ("<|endoftext|>",),
}
# Newer repositories keep the template in a file of its own, older ones in tokenizer_config.json.
TEMPLATE_FILE = ("gemma3", "gemma3_multimodal", "qwen3")
FAMILIES = tuple(CONFIGS)
