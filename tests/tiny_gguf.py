"""Tiny GGUF files of real models, as llama.cpp's converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

BLOCKS, HEADS, WIDTH, HIDDEN = 2, 2, 64, 96
LINES = ["a red cat sits on the grass", "two dogs run", "what is at left? a cat."]
SPECIAL = ["<unk>", "<s>", "</s>", "<|end|>"]
CHAT = (
    "{% for message in messages %}{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"
)
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tokenizer() -> Any:
    """A byte-level BPE tokenizer with a few merges."""
    from tokenizers import ByteLevelBPETokenizer

    bytes_ = ByteLevelBPETokenizer()
    bytes_.train_from_iterator(LINES, 300, special_tokens=SPECIAL, show_progress=False)
    return bytes_


def llama(vocabulary: int, seed: int = 0, **sizes: Any) -> Any:
    """A Llama of random weights, large enough that a change of one shows."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        **{
            "vocab_size": vocabulary,
            "hidden_size": WIDTH,
            "intermediate_size": HIDDEN,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": 64,
            "initializer_range": 0.2,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **sizes,
        }
    )
    return transformers.LlamaForCausalLM(config).eval()


def write_gguf(
    path: Path,
    model: Any,
    quantised: str = "F32",
    architecture: str = "llama",
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
) -> None:
    """Write a Llama of transformers with `tokenizer()` as a GGUF file.

    Matrices are quantised as `quantised` says, norms are float32. `metadata` are further sizes of
    the architecture (int), `tensors` further tensors, or None to leave one out.
    """
    import gguf

    config = model.config
    sizes: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.dimension_count": config.head_dim,
        "vocab_size": config.vocab_size,
    }
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**sizes, **(metadata or {})}.items():
        writer.add_uint32(key if key.startswith("tokenizer") else f"{architecture}.{key}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_float32(f"{architecture}.rope.freq_base", 10_000.0)
    _write_tokenizer(writer)
    kind = gguf.GGMLQuantizationType[quantised]
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]
    named = {_gguf_name(name): _stored(name, weight) for name, weight in weights.items()}
    for name, weight in {**named, **(tensors or {})}.items():
        if weight is None:
            continue
        if weight.ndim < 2:
            writer.add_tensor(name, weight)
        else:
            writer.add_tensor(name, gguf.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_tokenizer(writer: Any) -> None:
    import json

    described = json.loads(tokenizer()._tokenizer.to_str())["model"]
    tokens = sorted(described["vocab"], key=described["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in described["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT)


def _gguf_name(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{_NAMES[stem]}.{suffix}"
    _, _, number, part = stem.split(".", 3)
    return f"blk.{number}.{_NAMES[part]}.{suffix}"


def _stored(name: str, weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A weight as llama.cpp orders it: it turns neighbouring dimensions of queries and keys,
    transformers turns those half a head apart."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return weight
    halves = weight.reshape(HEADS, 2, weight.shape[0] // HEADS // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
