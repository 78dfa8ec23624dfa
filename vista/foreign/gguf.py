"""Headers of GGUF files, read with every size checked against the file; no tensor is read.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Libraries build a model of the sizes
that a header names, so that one damaged number of it can fill the memory of a machine.
"""

from __future__ import annotations

import importlib.util
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from vista.errors import UserError, reason_of
from vista.foreign.text import one_line
from vista.foreign.weights import refuse_no_weights

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
# Type of a metadata value -> its code in `struct`; besides them a string and an array.
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
# More than any file has; reading ends there, where zeros go on for gigabytes.
_MOST_KEYS, _MOST_TENSORS, _MOST_ITEMS, _MOST_DIMS = 100_000, 1_000_000, 10_000_000, 4
_LONGEST_NAME = 1024  # bytes
_KEPT = 1024  # items of an array of numbers that is kept; of longer ones only the length is
# How numbers are stored: id -> name, numbers of a block, bytes of a block (ggml's `ggml_type`).
TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
}  # fmt: skip
_ALIGNMENT, _LARGEST_ALIGNMENT = "general.alignment", 1 << 20
_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Tensor:
    """One tensor: its shape with the fastest dimension first, its type, its place in the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    start: int
    n_bytes: int

    @property
    def size(self) -> int:
        """The number of its elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        metadata: values by key; of an array of strings or a long one, its length is in `lengths`.
        lengths: the number of items of each array.
        tensors: by name, in the order of the file.
    """

    metadata: Mapping[str, Any]
    lengths: Mapping[str, int]
    tensors: Mapping[str, Tensor]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model's class."""
        return str(self.metadata["general.architecture"])

    def size(self, key: str) -> int | None:
        """A whole number above 0 that the metadata give below the architecture's name, if any."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return value if value > 0 else None

    @property
    def elements(self) -> int:
        """Numbers in all tensors."""
        return sum(tensor.size for tensor in self.tensors.values())


def read_header(path: Path) -> Header:
    """Read the header of the GGUF file at `path`.

    Raises UserError where it is none or is truncated, a number of it does not fit the file, two
    tensors overlap, or sizes in its metadata differ from its tensors'.
    """
    refuse_no_weights(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
            if start != _MAGIC:
                raise UserError(f"{path} is no GGUF file: it does not begin with 'GGUF'")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                header = _Reader(content, path).header()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    _check_sizes(header, path)
    return header


def refuse_without_package(path: Path) -> None:
    """Raise UserError where the package gguf, with which transformers reads files, is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError(
            f"{path} is a GGUF file, and the package gguf is not installed: "
            "`pip install 'vista-saes[gguf]'`"
        )


class _Reader:
    """Reads values one after the other, none of them beyond the end of the file."""

    def __init__(self, content: mmap.mmap, path: Path) -> None:
        self.content = content
        self.path = path
        self.place = len(_MAGIC)

    def header(self) -> Header:
        version = self._number("I")
        if version not in _VERSIONS:
            raise UserError(
                f"{self.path} is a GGUF file of version {version}, and versions 2 and 3 are read: "
                "convert it with a current llama.cpp"
            )
        tensors, keys = self._number("Q"), self._number("Q")
        self._count(tensors, _MOST_TENSORS, "tensors")
        self._count(keys, _MOST_KEYS, "keys of metadata")
        metadata: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        for _ in range(keys):
            key = self._text(_LONGEST_NAME, "a key")
            if key in metadata:
                raise self._damaged(f"the key {one_line(key)!r} is there twice")
            metadata[key] = value = self._value(self._number("I"), key)
            if isinstance(value, _Items):
                metadata[key], lengths[key] = value.kept, value.count
        if not isinstance(metadata.get("general.architecture"), str):
            raise UserError(f"{self.path} names no general.architecture: it is no model")
        table = [self._tensor() for _ in range(tensors)]
        return Header(metadata, lengths, self._placed(table, self._alignment(metadata)))

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text(_LONGEST_NAME, "the name of a tensor")
        dims = self._number("I")
        if not 1 <= dims <= _MOST_DIMS:
            raise self._damaged(f"tensor {one_line(name)!r} has {dims} dimensions")
        shape = tuple(self._number("Q") for _ in range(dims))
        return name, shape, self._number("I"), self._number("Q")

    def _placed(
        self, table: list[tuple[str, tuple[int, ...], int, int]], alignment: int
    ) -> dict[str, Tensor]:
        start = -(-self.place // alignment) * alignment
        tensors: dict[str, Tensor] = {}
        for name, shape, type_id, offset in table:
            shown = one_line(name)
            if name in tensors:
                raise self._damaged(f"tensor {shown!r} is there twice")
            if type_id not in TYPES:
                raise UserError(
                    f"{self.path}: tensor {shown!r} has the quantisation type {type_id}, which is "
                    "not read; take a file in another one, for instance Q8_0 or Q4_K_M"
                )
            kind, block, size = TYPES[type_id]
            if min(shape) < 1 or shape[0] % block:
                raise self._damaged(f"tensor {shown!r} has the shape {list(shape)} in {kind}")
            n_bytes = prod(shape) // block * size
            if offset % alignment or start + offset + n_bytes > len(self.content):
                raise self._damaged(
                    f"tensor {shown!r} lies at bytes {start + offset} to "
                    f"{start + offset + n_bytes}, and the file has {len(self.content)}"
                )
            tensors[name] = Tensor(name, shape, kind, start + offset, n_bytes)
        end = 0
        for tensor in sorted(tensors.values(), key=lambda tensor: tensor.start):
            if tensor.start < end:
                raise self._damaged(f"tensor {one_line(tensor.name)!r} overlaps another")
            end = tensor.start + tensor.n_bytes
        return tensors

    def _alignment(self, metadata: Mapping[str, Any]) -> int:
        value = metadata.get(_ALIGNMENT, 32)
        plain = isinstance(value, int) and not isinstance(value, bool)
        if not plain or not 1 <= value <= _LARGEST_ALIGNMENT or value & (value - 1):
            raise self._damaged(f"{_ALIGNMENT} is {one_line(value)}, expected a power of two")
        return int(value)

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._text(len(self.content), f"the value of {one_line(key)!r}")
        if kind == _ARRAY:
            return self._items(self._number("I"), key)
        if kind not in _SCALARS:
            raise self._damaged(f"the key {one_line(key)!r} has a value of type {kind}")
        return self._number(_SCALARS[kind])

    def _items(self, kind: int, key: str) -> _Items:
        count = self._number("Q")
        self._count(count, _MOST_ITEMS, f"items of {one_line(key)!r}")
        if kind == _STRING:
            for _ in range(count):
                self._take(self._number("Q"), f"an item of {one_line(key)!r}")
            return _Items(None, count)
        if kind not in _SCALARS:
            raise self._damaged(f"the key {one_line(key)!r} has items of type {kind}")
        code = f"<{count}{_SCALARS[kind]}"
        place = self._take(struct.calcsize(code), f"the items of {one_line(key)!r}")
        kept = struct.unpack_from(code, self.content, place) if count <= _KEPT else None
        return _Items(kept, count)

    def _text(self, longest: int, what: str) -> str:
        length = self._number("Q")
        if length > longest:
            raise self._damaged(f"{what} has {length} bytes")
        place = self._take(length, what)
        try:
            return self.content[place : place + length].decode()
        except UnicodeDecodeError as error:
            raise self._damaged(f"{what} is no UTF-8 text") from error

    def _number(self, code: str) -> Any:
        size = struct.calcsize(f"<{code}")
        return struct.unpack_from(f"<{code}", self.content, self._take(size, "a number"))[0]

    def _take(self, size: int, what: str) -> int:
        """Pass over the next `size` bytes and return where they begin."""
        place = self.place
        if size > len(self.content) - place:
            raise self._damaged(f"{what} ends beyond the end of the file")
        self.place += size
        return place

    def _count(self, count: int, most: int, what: str) -> None:
        if count > most:
            raise self._damaged(f"it counts {count} {what}")

    def _damaged(self, fault: str) -> UserError:
        return UserError(f"{self.path} is damaged or truncated ({fault}): fetch it again")


@dataclass(frozen=True)
class _Items:
    """An array: its items where they are few numbers, and how many there are."""

    kept: tuple[Any, ...] | None
    count: int


def _check_sizes(header: Header, path: Path) -> None:
    """Refuse sizes in the metadata that differ from the shapes of the tensors."""
    for what, said, held in _sizes(header):
        if said is not None and held is not None and said != held:
            raise UserError(
                f"{path}: its header says {what} {said}, and its tensors have {held}; fetch it "
                "again"
            )


def _sizes(header: Header) -> Iterator[tuple[str, int | None, int | None]]:
    """Sizes that a header gives twice: their name, by the metadata and by the tensors."""
    blocks = {int(match[1]) for name in header.tensors if (match := _BLOCK.match(name))}
    yield f"{header.architecture}.block_count", header.size("block_count"), len(blocks)
    yield "the number of the last block", len(blocks) - 1, max(blocks, default=-1)
    embedding = header.tensors.get("token_embd.weight")
    width, rows = embedding.shape if embedding and len(embedding.shape) == 2 else (None, None)
    yield f"{header.architecture}.embedding_length", header.size("embedding_length"), width
    yield "tokenizer.ggml.tokens", header.lengths.get("tokenizer.ggml.tokens"), rows
    yield f"{header.architecture}.vocab_size", header.size("vocab_size"), rows
    down = header.tensors.get("blk.0.ffn_down.weight")
    hidden = down.shape[0] if down else None
    yield f"{header.architecture}.feed_forward_length", header.size("feed_forward_length"), hidden
