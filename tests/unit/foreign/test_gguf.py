"""Headers of GGUF files: what they say, and damage that is noticed before anything is built."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_gguf

from vista.errors import UserError
from vista.foreign.gguf import TYPES, read_header


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    tiny_gguf.write_gguf(path, tiny_gguf.llama(tiny_gguf.tokenizer().get_vocab_size()), "Q8_0")
    return path.read_bytes()


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Callable[[bytes], Path]:
    """Return a function that writes a file."""

    def written(content: bytes) -> Path:
        path = tmp_path / "m.gguf"
        path.write_bytes(content)
        return path

    return written


def test_a_header_says_what_its_reader_of_the_package_says(
    content: bytes, file: Callable[[bytes], Path]
) -> None:
    path = file(content)
    header, expected = read_header(path), gguf.GGUFReader(path)
    assert header.architecture == "llama"
    assert header.size("block_count") == tiny_gguf.BLOCKS
    assert header.lengths["tokenizer.ggml.tokens"] == tiny_gguf.tokenizer().get_vocab_size()
    assert [*header.tensors] == [tensor.name for tensor in expected.tensors]
    for tensor in expected.tensors:
        held = header.tensors[tensor.name]
        assert held.shape == tuple(tensor.shape.tolist())
        assert (held.type, held.start) == (tensor.tensor_type.name, tensor.data_offset)
        assert (held.size, held.n_bytes) == (tensor.n_elements, tensor.n_bytes)


def test_sizes_of_blocks_are_those_of_the_package() -> None:
    for number, (name, elements, n_bytes) in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (elements, n_bytes))


def count(place: int) -> Callable[[bytes], bytes]:
    """Replace a number of 64 bits by one that no file has."""
    return lambda content: content[:place] + struct.pack("<Q", 1 << 62) + content[place + 8 :]


def after(text: bytes, skipped: int, code: str, value: int) -> Callable[[bytes], bytes]:
    """Replace the number that stands `skipped` bytes behind a text."""

    def changed(content: bytes) -> bytes:
        place = content.index(text) + len(text) + skipped
        number = struct.pack(f"<{code}", value)
        return content[:place] + number + content[place + len(number) :]

    return changed


TABLE = b"token_embd.weight"  # then dimensions (4 bytes), sizes (8 each), type (4), offset (8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"", "is empty"),
        (lambda _: b"<!doctype html>", "is a web page"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (lambda _: b"\x08\x07GGUF", "no GGUF file"),
        (lambda content: content[:4], "a number ends beyond the end"),
        (lambda content: content[:2000], "damaged or truncated"),
        (lambda content: content[:-1], "and the file has"),
        (lambda content: content[:4] + b"\x01" + content[5:], "version 1, and versions 2 and 3"),
        (lambda content: content[:4] + b"\0\0\0\x03" + content[8:], "version 50331648"),
        (count(8), "it counts 4611686018427387904 tensors"),
        (count(16), "it counts 4611686018427387904 keys"),
        (count(24), "a key has 4611686018427387904 bytes"),
        (after(b"tokenizer.ggml.tokens", 8, "Q", 1 << 62), "items of 'tokenizer.ggml.tokens'"),
        (after(b"tokenizer.ggml.tokens", 4, "I", 9), "has items of type 9"),
        (after(b"tokenizer.ggml.token_type", 8, "Q", 9_999_999), "ends beyond the end"),
        (after(b"tokenizer.ggml.tokens", 16, "Q", 1 << 63), "ends beyond the end of the file"),
        (after(b"llama.block_count", 0, "I", 77), "a value of type 77"),
        (after(TABLE, 0, "I", 9), "has 9 dimensions"),
        (after(TABLE, 4, "Q", 0), r"has the shape \[0, "),
        (after(TABLE, 4, "Q", 65), r"has the shape \[65, .* in Q8_0"),
        (after(TABLE, 12, "Q", 1 << 60), "lies at bytes"),
        (after(TABLE, 20, "I", 99), "quantisation type 99, which is not read"),
        (after(TABLE, 24, "Q", 1 << 63), "lies at bytes"),
        (after(b"blk.0.attn_k.weight", 24, "Q", 0), "overlaps another"),
    ],
)
def test_damage_is_noticed(
    damage: Callable[[bytes], bytes],
    message: str,
    content: bytes,
    file: Callable[[bytes], Path],
) -> None:
    path = file(damage(content))
    with pytest.raises(UserError, match=message) as told:
        read_header(path)
    assert str(path) in str(told.value)


@pytest.mark.parametrize("value", [0, 48, 1 << 31])
def test_an_alignment_that_is_no_power_of_two_is_refused(value: int, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_uint32("general.alignment", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match=f"general.alignment is {value}, expected a power of two"):
        read_header(tmp_path / "m.gguf")


def test_a_tensor_that_is_there_twice_is_refused(
    content: bytes, file: Callable[[bytes], Path]
) -> None:
    twice = content.replace(b"blk.1.attn_q.weight", b"blk.1.attn_k.weight")
    with pytest.raises(UserError, match=r"tensor 'blk.1.attn_k.weight' is there twice"):
        read_header(file(twice))


def test_a_block_that_is_left_out_is_noticed(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for block in (0, 2):
        writer.add_tensor(f"blk.{block}.ffn_down.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="the number of the last block 1, and its tensors have 2"):
        read_header(tmp_path / "m.gguf")
