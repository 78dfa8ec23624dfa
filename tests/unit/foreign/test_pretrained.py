"""Checkpoints of every loader: pointers in place of weights, missing packages, unfit weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from word_tokenizer import word_tokenizer

from vista.encoders.contract import load_encoder
from vista.errors import UserError
from vista.foreign.pretrained import loading
from vista.judges.backends.image_text import ImageTextModel
from vista.judges.backends.sentences import sentence_embedder
from vista.language.checkpoint import load_checkpoint

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
PLAIN = {"image_mean": 0.5, "image_std": 0.5, "size": 8}
SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
TEXT = {**SMALL, "vocab_size": 4}


def llava() -> Any:
    vision = transformers.CLIPVisionConfig(**SMALL, image_size=8, patch_size=4)
    text = transformers.LlamaConfig(**TEXT)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=3)
    return transformers.LlavaForConditionalGeneration(config)


def embedder(folder: Path) -> Any:
    return sentence_embedder(str(folder), device="cpu", dtype="float32", max_tokens=8, batch=1)


def image_text(folder: Path) -> Any:
    return ImageTextModel(str(folder), device="cpu", dtype="float32")


def model(name: str) -> Any:
    if name == "image-text":
        return llava()
    if name == "vision":
        config: Any = transformers.ViTConfig(**SMALL, image_size=8, patch_size=4)
        return transformers.ViTModel(config, add_pooling_layer=False)
    if name == "language":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT))
    return transformers.BertModel(transformers.BertConfig(**TEXT))


LOADERS: dict[str, Callable[[Path], Any]] = {
    "language": load_checkpoint,
    "vision": lambda folder: load_encoder(folder, "vit"),
    "sentence": embedder,
    "image-text": image_text,
}


@pytest.fixture(params=LOADERS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[Path], Any]]:
    """A checkpoint of each kind in turn, and what loads it."""
    folder = tmp_path / "model"
    model(request.param).save_pretrained(folder)
    tokenizer = word_tokenizer(["<pad>", "<bos>", "<eos>", "<unk>"])
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**PLAIN, "image_processor_type": "CLIPImageProcessor"})
    )
    processor = {"processor_class": "LlavaProcessor", "patch_size": 4}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder, LOADERS[request.param]


def test_a_pointer_in_place_of_weights_is_told(saved: Any) -> None:
    folder, load = saved
    (folder / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(UserError, match=r"model\.safetensors is a Git LFS pointer.*git lfs pull"):
        load(folder)


def test_a_package_for_quantised_weights_is_named(
    saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, load = saved
    file = folder / "config.json"
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **quantised}))
    monkeypatch.setattr("vista.foreign.weights._is_installed", lambda _: False)
    with pytest.raises(UserError, match="quantised with bitsandbytes, which needs") as caught:
        load(folder)
    assert "full precision" in str(caught.value)
    # Where the package seems to be there and is of no use, the loader's own reason is told.
    monkeypatch.setattr("vista.foreign.weights._is_installed", lambda _: True)
    with pytest.raises(UserError, match="bitsandbytes") as caught:
        load(folder)
    assert str(folder) in str(caught.value) and str(caught.value).count("\n") <= 2


def test_weights_of_another_shape_are_told_with_both(saved: Any) -> None:
    folder, load = saved
    weights = load_file(folder / "model.safetensors")
    # Blocks of the text model come after those of the vision tower.
    name = max(name for name in weights if weights[name].shape == (8, 8))
    weights[name] = torch.ones(8, 6)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights do not fit .* is \[8, 6\], expected \[8, 8\]"):
        load(folder)


def test_more_blocks_than_the_config_says_are_told(saved: Any) -> None:
    folder, load = saved
    weights = load_file(folder / "model.safetensors")
    more = {
        name.replace("layers.0.", "layers.1.").replace("layer.0.", "layer.1."): value.clone()
        for name, value in weights.items()
    }
    assert len(weights | more) > len(weights)
    save_file(weights | more, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"more blocks than its config\.json says .*layer"):
        load(folder)


@pytest.mark.parametrize(
    "content", ["", "[1]", "{", '{"model_type": 3}', '{"model_type": "none such"}', "\0"]
)
def test_a_damaged_config_is_told(saved: Any, content: str) -> None:
    folder, load = saved
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError) as caught:
        load(folder)
    assert str(folder) in str(caught.value) and str(caught.value).count("\n") <= 2


def test_what_a_loader_raises_is_told_with_its_reason() -> None:
    for error, reason in (
        (ImportError("it needs the package sentencepiece"), "it needs the package sentencepiece"),
        (KeyError("vocab"), "KeyError: 'vocab'"),
        (AttributeError("no such name"), "AttributeError: no such name"),
        (MemoryError(), "MemoryError"),
    ):
        with (
            pytest.raises(UserError) as caught,
            loading("model x: could not be loaded", "another one"),
        ):
            raise error
        assert str(caught.value) == f"model x: could not be loaded ({reason}); expected another one"
    with pytest.raises(UserError, match="as it is"), loading("x", "y"):
        raise UserError("as it is")
    with pytest.raises(KeyboardInterrupt), loading("x", "y"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", LOADERS)
def test_a_name_that_is_no_folder_is_not_looked_up(name: str) -> None:
    # The hub's cache of this machine may have it.
    with pytest.raises(UserError, match=r"maker/model is not a folder|maker/model: preprocessor_"):
        LOADERS[name](Path("maker/model"))
