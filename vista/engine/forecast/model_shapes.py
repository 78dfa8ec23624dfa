"""Sizes of models from their small files, without the libraries that would load them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vista.config.published import LLM_CONFIGS, ONNX, ONNX_SIZE, VisionShape
from vista.engine.node import Node
from vista.errors import UserError
from vista.foreign.gguf import read_header
from vista.foreign.onnx import read_graph
from vista.foreign.onnx_dinov2 import Dinov2Layout
from vista.foreign.preprocessor import input_size, preprocessors
from vista.foreign.text import read_json_object
from vista.foreign.values import integer

# Tokens of a drawn scene's longest caption of one object, and its end.
STANDIN_PROMPT = 16


@dataclass(frozen=True)
class LanguageShape:
    """Sizes of a decoder. `loaded` counts the parameters of other parts that come with it too."""

    d_model: int
    blocks: int
    d_mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    gated_mlp: bool
    eager: bool
    positions: int = 0
    other_parts: float = 0.0

    @property
    def block_parameters(self) -> float:
        """Attention, MLP and norms of all blocks."""
        attention = 2 * self.d_model * self.head_dim * (self.heads + self.kv_heads)
        mlp = (3 if self.gated_mlp else 2) * self.d_model * self.d_mlp
        return float(self.blocks * (attention + mlp + 4 * self.d_model))

    @property
    def parameters(self) -> float:
        """The blocks, the last norm, embeddings and head."""
        tables = self.vocabulary * (1 if self.tied else 2) + self.positions
        return self.block_parameters + self.d_model * (tables + 1)

    @property
    def loaded(self) -> float:
        """All parameters that are loaded."""
        return self.parameters + self.other_parts


def language_shape(config: Mapping[str, Any]) -> LanguageShape | None:
    """Return the sizes that a config.json gives; None where it lacks one.

    Gemma 2 computes its attention scores in full, since the fused way cannot cap them.
    """
    text = _mapping(config.get("text_config")) or config
    d_model = first_size(text, "hidden_size", "n_embd")
    blocks = first_size(text, "num_hidden_layers", "n_layer")
    heads = first_size(text, "num_attention_heads", "n_head")
    vocabulary = first_size(text, "vocab_size")
    if not (d_model and blocks and heads and vocabulary):
        return None
    kind = str(config.get("model_type"))
    plain = kind in ("gpt2", "gpt_neox")
    return LanguageShape(
        d_model=d_model,
        blocks=blocks,
        d_mlp=first_size(text, "intermediate_size", "n_inner") or 4 * d_model,
        heads=heads,
        kv_heads=first_size(text, "num_key_value_heads") or heads,
        head_dim=first_size(text, "head_dim") or d_model // heads,
        vocabulary=vocabulary,
        tied=bool(text.get("tie_word_embeddings", kind.startswith(("gpt2", "gemma")))),
        gated_mlp=not plain,
        eager=kind == "gemma2",
        positions=first_size(text, "n_positions") or 0,
        other_parts=_vision_part(_mapping(config.get("vision_config"))),
    )


def gguf_shape(path: Path) -> LanguageShape | None:
    """Return the sizes that the header of a GGUF file gives, or else those of a published file of
    this name; None where neither is there."""
    try:
        header = read_header(path)
    except UserError:
        known = LLM_CONFIGS.get(path.name)
        return language_shape(known) if known else None
    rotary = header.size("attention.key_length") or header.size("rope.dimension_count")
    config = {
        "model_type": header.architecture,
        "hidden_size": header.size("embedding_length"),
        "num_hidden_layers": header.size("block_count"),
        "num_attention_heads": header.size("attention.head_count"),
        "num_key_value_heads": header.size("attention.head_count_kv"),
        "intermediate_size": header.size("feed_forward_length"),
        "head_dim": rotary,
        "vocab_size": header.size("vocab_size") or header.lengths.get("tokenizer.ggml.tokens"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }
    return language_shape(config)


def onnx_shape(path: Path, size: int) -> VisionShape | None:
    """Return the sizes of the encoder in an ONNX file, for images of `size` px, or else those of a
    published file of this name; None where neither is there."""
    try:
        model = Dinov2Layout(read_graph(path))
    except UserError:
        known = ONNX.get(path.name)
        if known is None:
            return None
        return replace(known, patches=round(known.patches * (size / ONNX_SIZE) ** 2))
    parameters = vit_parameters(model.width, model.blocks, model.hidden)
    patches = (size // model.patch) ** 2
    return VisionShape(parameters, parameters, model.width, model.blocks, patches, 1)


def _vision_part(config: Mapping[str, Any]) -> float:
    d, blocks = first_size(config, "hidden_size"), first_size(config, "num_hidden_layers")
    return vit_parameters(d, blocks or 0, first_size(config, "intermediate_size")) if d else 0.0


def prompt_shape(pipeline: Node | None, source: Mapping[str, Any]) -> VisionShape | None:
    """Return the sizes of a pipeline's text encoder, whose tokens stand for patches: of one that is
    made with a stand-in's usual prompt for an image, else by the folder of `source` with the
    longest prompt; None where a size is missing."""
    if pipeline is None:
        text = read_config(Path(source["path"]) / "text_encoder" / "config.json")
    else:
        width = pipeline.settings["recipe"]["text_width"]
        text = {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": pipeline.settings["recipe"]["text_blocks"],
            "max_position_embeddings": STANDIN_PROMPT,
        }
    keys = ("hidden_size", "num_hidden_layers", "max_position_embeddings")
    d, blocks, tokens = (first_size(text, key) for key in keys)
    if not (d and blocks and tokens):
        return None
    parameters = vit_parameters(d, blocks, first_size(text, "intermediate_size"))
    return VisionShape(parameters, parameters, d, blocks, tokens, 1)


def vit_parameters(d: int, blocks: int, d_mlp: int | None) -> float:
    """Attention and MLP of a ViT's blocks; embeddings and norms are below 1 % of them."""
    return float(blocks * (4 * d * d + 2 * d * (d_mlp or 4 * d)))


def vision_shape(folder: Path, side: int | None = None) -> VisionShape | None:
    """Return the sizes of a checkpoint's folder, for images of `side` px or else as it prepares
    them; None where its config.json lacks one, and of a video model (`video_shape`). Of a
    vision-language model those of its tower, whose features are as wide as its language model."""
    config = read_config(folder / "config.json")
    vision = _mapping(config.get("vision_config")) or config
    keys = ("hidden_size", "num_hidden_layers", "patch_size", "image_size")
    d, blocks, patch, size = (first_size(vision, key) for key in keys)
    size = side or input_side(folder) or size
    if not (d and blocks and patch and size) or config.get("model_type") == "vjepa2":
        return None
    parameters = vit_parameters(d, blocks, first_size(vision, "intermediate_size"))
    text = _mapping(config.get("text_config"))
    tokens = (first_size(text, "vocab_size") or 0) * (first_size(text, "hidden_size") or 0)
    beside = _vision_part(text) + tokens
    kind = str(config.get("model_type"))
    registers = first_size(vision, "num_register_tokens") or 0
    prefix = 0 if kind.startswith(("siglip", "ijepa")) else 1 + registers
    patches = (size // patch) ** 2
    if config.keys() & {"image_token_index", "image_token_id"}:
        d = first_size(text, "hidden_size")
        if d is None:
            return None
        visual = first_size(config, "mm_tokens_per_image") or patches
        # The tower sees all patches, and the store holds what they are averaged to.
        patches, prefix = visual, prefix + patches - visual
    return VisionShape(parameters, parameters + beside, d, blocks, patches, prefix)


def input_side(folder: Path) -> int | None:
    """Return the side of the square that images are prepared to, where a file tells it."""
    try:
        _, content = preprocessors(folder)[0]
        return input_size(content)
    except (UserError, IndexError):
        return None


def first_size(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first of some keys that has a number above 0."""
    numbers = (integer(config.get(key)) for key in keys)
    return next((value for value in numbers if value is not None and value > 0), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def read_config(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is none to read: a forecast fails over nothing."""
    try:
        return read_json_object(path)
    except UserError:
        return {}
