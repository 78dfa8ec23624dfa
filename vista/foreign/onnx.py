"""ONNX files, read without the package onnx: the tensors of a graph and the nodes that use them.

An ONNX file is one protobuf message (github.com/onnx/onnx/blob/main/onnx/onnx.proto). Protobuf says
the length of each part before the part, so that tensors are passed over until they are asked for;
no length is believed that does not fit the part around it. Nothing in the file is executed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from vista.errors import UserError, reason_of
from vista.foreign.text import one_line
from vista.foreign.weights import refuse_no_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Numbers of the fields that are read, by message.
_IR_VERSION, _GRAPH = 1, 7  # ModelProto
_NODE, _INITIALIZER = 1, 5  # GraphProto
_INPUT, _OUTPUT, _OPERATOR = 1, 2, 4  # NodeProto
_DIMS, _TYPE, _FLOATS, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 4, 8, 9, 13, 14  # TensorProto
# Ways that protobuf writes a value.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Types of tensors that are read: number -> numpy's name.
_FLOAT32 = 1
_DTYPES = {_FLOAT32: "<f4", 10: "<f2", 11: "<f8"}
_MOST_DIMS, _LONGEST_NAME = 16, 4096


@dataclass(frozen=True)
class Tensor:
    """A constant of the graph: its shape, and where its numbers lie in the file.

    `numbers` is None where they lie in another file, or as integers.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    numbers: tuple[int, int] | None
    external: bool


@dataclass(frozen=True)
class Operation:
    """A node of the graph: its operator, and the names of what it reads and writes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The graph of an ONNX file."""

    path: Path
    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]

    def array(self, name: str) -> NDArray[np.float32]:
        """Return the numbers of a tensor, as float32.

        Raises UserError where they lie in another file, are no floats, or are fewer or more than
        its shape says.
        """
        import numpy as np

        tensor, shown = self.tensors[name], one_line(name)
        if tensor.external:
            raise UserError(
                f"{self.path}: tensor {shown!r} lies in another file (external data), which is not "
                "read; save the model as one file"
            )
        if tensor.type not in _DTYPES or tensor.numbers is None:
            raise UserError(
                f"{self.path}: tensor {shown!r} has the type {tensor.type} of ONNX, expected "
                "float32, float16 or float64; export the model without quantisation"
            )
        start, end = tensor.numbers
        dtype = np.dtype(_DTYPES[tensor.type])
        if end - start != prod(tensor.shape) * dtype.itemsize:
            raise UserError(
                f"{self.path}: tensor {shown!r} has {end - start} bytes, expected "
                f"{prod(tensor.shape) * dtype.itemsize} for its shape {list(tensor.shape)}; fetch "
                "the file again"
            )
        with self.path.open("rb") as file:
            file.seek(start)
            numbers = np.frombuffer(file.read(end - start), dtype)
        return numbers.astype(np.float32).reshape(tensor.shape)


def read_graph(path: Path) -> Graph:
    """Read the graph of the ONNX file at `path`, without the numbers of its tensors.

    Raises UserError where the file is none, or is damaged or truncated.
    """
    refuse_no_weights(path)
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _graph(_Message(content, 0, len(content)), path)
    except _NoProtobuf as error:
        raise UserError(
            f"{path} is no ONNX file, or is damaged or truncated ({error}): fetch it again"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error


class _NoProtobuf(Exception):
    """What is read is no protobuf message, or ends too early."""


@dataclass(frozen=True)
class _Message:
    """A part of the file that holds one message."""

    content: mmap.mmap
    start: int
    end: int

    def fields(self) -> Iterator[tuple[int, int | _Message]]:
        """Yield the number and the value of each field: a whole number, or bytes as a message."""
        place = self.start
        while place < self.end:
            tag, place = self._varint(place)
            field, kind = tag >> 3, tag & 7
            if field == 0:
                raise _NoProtobuf(f"byte {place} begins no field")
            if kind == _VARINT:
                value, place = self._varint(place)
                yield field, value
                continue
            if kind == _BYTES:
                size, place = self._varint(place)
            elif kind in (_FIXED32, _FIXED64):
                size = 4 if kind == _FIXED32 else 8
            else:
                raise _NoProtobuf(f"byte {place} begins no field")
            if size > self.end - place:
                raise _NoProtobuf(f"a part of {size} bytes at byte {place} ends beyond its end")
            yield field, _Message(self.content, place, place + size)
            place += size

    def text(self) -> str:
        """The message as text."""
        if self.end - self.start > _LONGEST_NAME:
            raise _NoProtobuf(f"a name has {self.end - self.start} bytes")
        try:
            return self.content[self.start : self.end].decode()
        except UnicodeDecodeError as error:
            raise _NoProtobuf(f"the name at byte {self.start} is no UTF-8 text") from error

    def varints(self) -> Iterator[int]:
        """Yield the whole numbers of a packed field."""
        place = self.start
        while place < self.end:
            value, place = self._varint(place)
            yield value

    def _varint(self, place: int) -> tuple[int, int]:
        """Return the whole number at a place, and the place after it; at most 64 bits."""
        value = 0
        for shift in range(0, 64, 7):
            if place >= self.end:
                raise _NoProtobuf("it ends inside a number")
            byte = self.content[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, place
        raise _NoProtobuf(f"byte {place} ends a number of more than 64 bits")


def _graph(model: _Message, path: Path) -> Graph:
    versions, graphs = 0, []
    for field, value in model.fields():
        if field == _IR_VERSION and isinstance(value, int):
            versions += 1
        elif field == _GRAPH and isinstance(value, _Message):
            graphs.append(value)
    if not versions or len(graphs) != 1:
        raise _NoProtobuf(f"it has {versions} format versions and {len(graphs)} graphs, not one")
    tensors: dict[str, Tensor] = {}
    operations: list[Operation] = []
    for field, value in graphs[0].fields():
        if field == _NODE and isinstance(value, _Message):
            operations.append(_operation(value))
        elif field == _INITIALIZER and isinstance(value, _Message):
            tensor = _tensor(value)
            if tensor.name in tensors:
                raise _NoProtobuf(f"tensor {one_line(tensor.name)!r} is there twice")
            tensors[tensor.name] = tensor
    return Graph(path, tensors, tuple(operations))


def _operation(message: _Message) -> Operation:
    texts: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _OPERATOR: []}
    for field, value in message.fields():
        if field in texts and isinstance(value, _Message):
            texts[field].append(value.text())
    operator = texts[_OPERATOR][-1] if texts[_OPERATOR] else ""
    return Operation(operator, tuple(texts[_INPUT]), tuple(texts[_OUTPUT]))


def _tensor(message: _Message) -> Tensor:
    name, shape, kind, numbers, external = "", [], 0, None, False
    for field, value in message.fields():
        if isinstance(value, int):
            if field == _DIMS:
                shape.append(value)
            elif field == _TYPE:
                kind = value
            elif field == _LOCATION:
                external |= value != 0
        elif field == _DIMS:
            shape += value.varints()
        elif field == _NAME:
            name = value.text()
        elif field in (_RAW, _FLOATS):
            if numbers is not None:
                raise _NoProtobuf("a tensor has its numbers in two parts")
            numbers = (value.start, value.end)
        elif field == _EXTERNAL:
            external = True
        if len(shape) > _MOST_DIMS:
            raise _NoProtobuf(f"a tensor has more than {_MOST_DIMS} dimensions")
    return Tensor(name, tuple(shape), kind, numbers, external)
