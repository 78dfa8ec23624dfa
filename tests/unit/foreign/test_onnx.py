"""The reader of ONNX files: tensors and nodes as they were written, and bytes that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_onnx import field, model, operation, tensor, varint

from vista.errors import UserError
from vista.foreign.onnx import Operation, read_graph

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "m.onnx"


def test_tensors_and_nodes_are_read_as_written(file: Path) -> None:
    constants = [
        tensor("a", NUMBERS),
        tensor("b", NUMBERS, floats=True),
        tensor("c", NUMBERS.astype(np.float16)),
        tensor("d", NUMBERS.astype(np.float64)),
        tensor("e", np.arange(3)),
    ]
    file.write_bytes(model([operation("MatMul", ["x", "a"], "y")], constants))
    graph = read_graph(file)
    assert [*graph.tensors] == ["a", "b", "c", "d", "e"]
    for name in "abcd":
        array = graph.array(name)
        assert array.dtype == np.float32 and np.array_equal(array, NUMBERS)
    assert graph.operations == (Operation("MatMul", ("x", "a"), ("y",)),)


def test_sizes_may_be_packed_and_unknown_fields_are_passed_over(file: Path) -> None:
    content = field(1, varint(2) + varint(3)) + field(2, 1) + field(8, "a")
    content += field(9, NUMBERS.tobytes()) + varint(20 << 3 | 5) + b"1234"
    content += varint(21 << 3 | 1) + b"12345678"
    file.write_bytes(model([], [content]))
    assert np.array_equal(read_graph(file).array("a"), NUMBERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"GGUF\x03\0\0\0", "no ONNX file"),
        (b"\x80" * 20, "more than 64 bits"),
        (b"\x0f\x0b", "begins no field"),
        (field(1, 8), "1 format versions and 0 graphs"),
        (field(7, b""), "0 format versions and 1 graphs"),
        (field(1, 8) + field(7, b"") * 2, "1 format versions and 2 graphs"),
        (field(1, 8) + b"\x3a" + varint(1 << 40), "a part of 1099511627776 bytes"),
        (model([], [tensor("a", NUMBERS)] * 2), "tensor 'a' is there twice"),
        (model([], [field(9, b"1") * 2]), "numbers in two parts"),
        (model([], [field(1, 1) * 17]), "more than 16 dimensions"),
        (model([], [field(1, varint(1) * 17)]), "more than 16 dimensions"),
        (model([], [field(8, "x" * 5000)]), "a name has 5000 bytes"),
        (model([], [field(8, b"\xff")]), "no UTF-8 text"),
        (model([operation("Add", ["a"], "b")], [])[:-9], "no ONNX file"),
    ],
)
def test_other_bytes_are_refused(content: bytes, message: str, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as told:
        read_graph(file)
    assert str(file) in str(told.value)


def test_numbers_that_do_not_fit_the_shape_are_refused(file: Path) -> None:
    huge = field(1, 1 << 40) + field(2, 1) + field(8, "a") + field(9, b"1234")
    file.write_bytes(model([], [huge]))
    with pytest.raises(UserError, match=r"tensor 'a' has 4 bytes, expected 4398046511104 for its"):
        read_graph(file).array("a")


def test_a_missing_file_is_told(file: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_graph(file)
