"""A language model out of a GGUF file: equal outputs, and files that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_gguf
import torch

from vista.errors import UserError
from vista.language.gguf import convert_gguf
from vista.language.model import LanguageModel

SQUARE = np.ones((tiny_gguf.WIDTH, tiny_gguf.WIDTH), np.float32)
IDS = torch.arange(4, 40)[None]


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_gguf.llama(tiny_gguf.tokenizer().get_vocab_size())


@pytest.fixture
def convert(llama: Any, tmp_path: Path) -> Callable[..., LanguageModel]:
    """Return a function that writes a model as a GGUF file, converts that and loads it."""

    def converted(dtype: Any = "float32", model: Any = llama, **how: Any) -> LanguageModel:
        tiny_gguf.write_gguf(tmp_path / "m.gguf", model, **how)
        convert_gguf(tmp_path / "m.gguf", tmp_path / "model", dtype)
        return LanguageModel.load(tmp_path / "model")

    return converted


@pytest.mark.parametrize("tied", [True, False])
def test_a_file_in_full_precision_gives_the_logits_of_the_model(
    tied: bool, convert: Callable[..., LanguageModel]
) -> None:
    size = tiny_gguf.tokenizer().get_vocab_size()
    model = tiny_gguf.llama(size, tie_word_embeddings=tied)
    llm = convert(model=model)
    assert torch.equal(llm.forward(IDS).logits, model(IDS).logits)
    assert (llm.n_blocks, llm.d_model) == (tiny_gguf.BLOCKS, tiny_gguf.WIDTH)


@pytest.mark.parametrize("quantised", ["Q8_0", "Q4_1"])
def test_a_quantised_file_gives_the_logits_that_transformers_gives(
    quantised: str, convert: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, GgufConfig

    llm = convert(quantised=quantised)
    direct = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", quantization_config=GgufConfig(dequantize=True)
    )
    assert torch.equal(llm.forward(IDS).logits, direct(IDS).logits)


def test_weights_are_stored_in_the_format_that_is_set(
    convert: Callable[..., LanguageModel], llama: Any, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    llm = convert("float16")
    stored = load_file(tmp_path / "model/model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    torch.testing.assert_close(llm.forward(IDS).logits, llama(IDS).logits, rtol=0, atol=0.05)


def test_weights_that_the_format_does_not_hold_are_refused(
    convert: Callable[..., LanguageModel], llama: Any
) -> None:
    large = {"output_norm.weight": np.full(tiny_gguf.WIDTH, 1e5, np.float32)}
    with pytest.raises(
        UserError, match=r"model.norm.weight has numbers that float16 does not hold"
    ):
        convert("float16", tensors=large)


def test_the_tokenizer_and_its_chat_template_come_with_it(
    convert: Callable[..., LanguageModel],
) -> None:
    llm, original = convert(), tiny_gguf.tokenizer()
    for line in tiny_gguf.LINES:
        assert llm.tokenizer(line).input_ids == original.encode(line).ids
    turns = [{"role": "user", "content": "a cat"}]
    text = llm.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "user\na cat<|end|>\nassistant\n"
    assert len(llm.generate(None, ["what is at left?"], 3)) == 1


def test_answers_end_at_the_end_of_a_turn_too(convert: Callable[..., LanguageModel]) -> None:
    assert convert().eos_ids == {2}
    assert convert(metadata={"tokenizer.ggml.eot_token_id": 3}).eos_ids == {2, 3}


def test_two_conversions_write_the_same_bytes_and_leave_nothing_else(
    llama: Any, tmp_path: Path
) -> None:
    tiny_gguf.write_gguf(tmp_path / "m.gguf", llama, "Q8_0")
    for name in ("a", "b"):
        convert_gguf(tmp_path / "m.gguf", tmp_path / name, "float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "m.gguf"]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def llama3(factor: float) -> Any:
    rotary = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": factor}
    rotary |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rotary["original_max_position_embeddings"] = 8192
    return tiny_gguf.llama(tiny_gguf.tokenizer().get_vocab_size(), rope_parameters=rotary)


def test_scaled_rotary_positions_of_llama_3_are_taken_over(
    convert: Callable[..., LanguageModel], llama: Any
) -> None:
    model = llama3(8.0)
    plain_f, scaled_f = (m.model.rotary_emb.inv_freq.numpy() for m in (llama, model))
    factors = {"rope_freqs.weight": plain_f / scaled_f}
    assert 1 == factors["rope_freqs.weight"].min() < factors["rope_freqs.weight"].max()
    llm = convert(model=model, tensors=factors)
    assert torch.equal(llm.model.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    assert torch.equal(llm.forward(IDS).logits, model(IDS).logits)
    assert not torch.equal(llm.forward(IDS).logits, llama(IDS).logits)


def test_files_beside_it_are_not_read(llama: Any, tmp_path: Path) -> None:
    tiny_gguf.write_gguf(tmp_path / "m.gguf", llama)
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).write_text(json.dumps({"model_type": "gpt2", "eos_token_id": 7}))
    convert_gguf(tmp_path / "m.gguf", tmp_path / "model", "float32")
    assert LanguageModel.load(tmp_path / "model").eos_ids == {2}


def test_a_missing_package_is_named(
    convert: Callable[..., LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "gguf" else known(name)
    )
    with pytest.raises(UserError, match=r"pip install 'vista-saes\[gguf\]'"):
        convert()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"architecture": "starship"}, "starship"),
        ({"tensors": {"blk.1.attn_q.weight": None}}, "header describes a model of 86848 weights"),
        ({"tensors": {"blk.1.attn_q.weight": None, "x.weight": SQUARE}}, "1 weights of the model"),
        ({"tensors": {"rope_freqs.weight": np.full(16, 3, np.float32)}}, "another kind than Llama"),
        ({"metadata": {"attention.head_count": 0}}, "could not be read as a causal"),
        # One number changed, for which transformers would build a model of 270 MB, or endless ones.
        ({"metadata": {"rope.dimension_count": 1 << 16}}, "header describes a model of"),
        ({"metadata": {"rope.dimension_count": 1 << 28}}, "head_dim is 268435456, more than any"),
        ({"metadata": {"block_count": 1 << 31}}, r"block_count 2147483648, .* have 2"),
        ({"metadata": {"embedding_length": 1 << 20}}, "embedding_length 1048576, .* have 64"),
        ({"metadata": {"feed_forward_length": 1 << 30}}, "feed_forward_length 1073741824"),
        ({"metadata": {"vocab_size": 1 << 30}}, "vocab_size 1073741824"),
    ],
)
def test_a_file_that_is_not_read_is_refused(
    how: dict[str, Any], message: str, convert: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as told:
        convert(**how)
    assert str(tmp_path / "m.gguf") in str(told.value)
    assert not (tmp_path / "model").exists()
