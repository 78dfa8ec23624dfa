"""Damaged GGUF and ONNX files: the model is read, or one short sentence tells why not, in bounded
time and memory.

VISTA_FUZZ sets how many damaged copies of each file are read.
"""

from __future__ import annotations

import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
import tiny_onnx
from safety.mutations import FUZZ, damaged_files, fuzz, read_or_told

from vista.encoders.onnx import convert_dinov2
from vista.engine.forecast.model_shapes import gguf_shape, onnx_shape
from vista.foreign.gguf import read_header
from vista.language.gguf import convert_gguf
from vista.language.model import LanguageModel

# Bytes beside what the process holds; the files have a few hundred thousand.
_MOST = 1 << 30


@contextmanager
def little_memory() -> Iterator[None]:
    """What is done inside fails where it asks the system for more than a gigabyte."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + _MOST, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    tiny_gguf.write_gguf(path, tiny_gguf.llama(tiny_gguf.tokenizer().get_vocab_size()), "Q8_0")
    return path.read_bytes()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("onnx")
    return tiny_onnx.export(tiny_onnx.weights(tiny_onnx.dinov2(), folder))


def test_damaged_onnx_files(onnx_file: bytes, tmp_path: Path) -> None:
    path, folder = tmp_path / "m.onnx", tmp_path / "model"
    for content in damaged_files(onnx_file, "onnx"):
        path.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        with little_memory(), read_or_told(str(path)):
            onnx_shape(path, 24)
            convert_dinov2(path, folder, size=24, mean=[0.5] * 3, std=[0.5] * 3)
            assert (folder / "model.safetensors").stat().st_size < 2 * len(onnx_file)


def test_damaged_structure_of_onnx_files(onnx_file: bytes, tmp_path: Path) -> None:
    """Most bytes of a file are numbers; here those between them are damaged."""
    path, folder = tmp_path / "m.onnx", tmp_path / "model"
    names = [place for place in range(len(onnx_file)) if onnx_file.startswith(b"encoder.l", place)]

    def check(rng: random.Random) -> None:
        content = bytearray(onnx_file)
        for _ in range(rng.randint(1, 3)):
            place = rng.choice(names) + rng.randint(-20, 60)
            content[place] = rng.choice(
                [content[place] ^ 1 << rng.randrange(8), rng.randrange(256)]
            )
        path.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        with little_memory(), read_or_told(str(path)):
            convert_dinov2(path, folder, size=24, mean=[0.5] * 3, std=[0.5] * 3)

    fuzz("structure of onnx", check)


def test_damaged_headers_of_gguf_files(gguf_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    end = gguf_file.index(b"tokenizer.chat_template")

    def check(rng: random.Random) -> None:
        content = bytearray(gguf_file)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(end)
            content[place] = rng.choice(
                [content[place] ^ 1 << rng.randrange(8), rng.randrange(256)]
            )
        path.write_bytes(content)
        gguf_shape(path)
        with little_memory(), read_or_told(str(path)):
            header = read_header(path)
            assert sum(tensor.n_bytes for tensor in header.tensors.values()) < len(content)

    fuzz("header of gguf", check)


def test_damaged_sizes_of_gguf_files(gguf_file: bytes, tmp_path: Path) -> None:
    """Each number of the header in turn is one that would fill the memory."""
    path, folder = tmp_path / "m.gguf", tmp_path / "model"
    rng = np.random.default_rng(0)
    keys = [
        *("llama.block_count", "llama.context_length", "llama.embedding_length"),
        *("llama.feed_forward_length", "llama.attention.head_count", "llama.vocab_size"),
        *("llama.attention.head_count_kv", "llama.rope.dimension_count"),
        *("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"),
    ]
    for number, key in enumerate(keys):
        place = gguf_file.index(key.encode()) + len(key) + 4
        for value in (1 << 31, 1 << 24, int(rng.integers(1, 1 << 16)))[: 3 if FUZZ > 50 else 1]:
            content = gguf_file[:place] + value.to_bytes(4, "little") + gguf_file[place + 4 :]
            path.write_bytes(content)
            shutil.rmtree(folder, ignore_errors=True)
            with little_memory(), read_or_told(str(path)):
                convert_gguf(path, folder, "float32")
                assert LanguageModel.load(folder).n_blocks == tiny_gguf.BLOCKS, (number, value)


def test_damaged_gguf_files(gguf_file: bytes, tmp_path: Path) -> None:
    path, folder = tmp_path / "m.gguf", tmp_path / "model"
    for content in list(damaged_files(gguf_file, "gguf"))[: max(20, FUZZ // 10)]:
        path.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        with little_memory(), read_or_told(str(path)):
            convert_gguf(path, folder, "float32")
