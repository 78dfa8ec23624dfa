"""Text, values and weights that other programs wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from vista.errors import UserError, reason_of
from vista.foreign.text import decode_text, escaped, one_line, read_json_object, read_text
from vista.foreign.values import flag, identifier, integer, number
from vista.foreign.weights import check_checkpoint, quantisation_packages, refuse_no_weights


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3), (3.0, 3), ("3", 3), (" 3 ", 3), ("3.0", 3), ("1e2", 100), (-1, -1), ("-1", -1),
        (2**70, 2**70), (3.5, None), ("3.5", None), (True, None), (None, None), ([3], None),
        ("", None), ("nan", None), ("inf", None), (math.nan, None), (math.inf, None),
        ("1_000", None),
        ("9" * 5000, None), (1e300, None), ({}, None),
    ],
)  # fmt: skip
def test_integers(value: Any, expected: int | None) -> None:
    found = integer(value)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, 0.5), (2, 2.0), ("0.5", 0.5), (".5", 0.5), ("1e-3", 1e-3), (True, None), ("x", None),
        (math.nan, None), ("NaN", None), (10**400, None), ("1e999", None), (None, None), ([], None),
    ],
)  # fmt: skip
def test_numbers(value: Any, expected: float | None) -> None:
    found = number(value)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True), (False, False), (1, True), (0, False), (0.0, False), ("0", False),
        ("1", True), ("False", False), ("true", True), ("no", False), (2, None), ("maybe", None),
        (None, None), ([], None), (math.nan, None),
    ],
)  # fmt: skip
def test_flags(value: Any, expected: bool | None) -> None:
    assert flag(value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7"), (7.0, "7"), ("7", "7"), ("007", "007"), ("a b", "a b"), ("", None), (True, None),
        (7.5, None), (None, None), ([7], None), (math.nan, None),
    ],
)  # fmt: skip
def test_identifiers(value: Any, expected: str | None) -> None:
    assert identifier(value) == expected


def test_names_in_messages() -> None:
    assert one_line("a\r\nb\u2028c") == "a b c"
    assert one_line("x" * 1000) == "x" * 297 + "..."
    assert escaped("caf\udce9 ä") == r"caf\udce9 ä"


def test_text_without_byte_order_mark_and_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert read_text(path) == "cat\ndog\n"
    with pytest.raises(UserError, match="UTF-16 text: save it as UTF-8"):
        decode_text("cat".encode("utf-16"), "names.txt")
    with pytest.raises(UserError, match="not UTF-8 text"):
        decode_text(b"caf\xe9", "names.txt")
    with pytest.raises(UserError, match=r"gone\.txt cannot be read: No such file"):
        read_text(tmp_path / "gone.txt")


def test_json_objects(tmp_path: Path) -> None:
    path = tmp_path / "cfg.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json_object(path) == {"a": 1}
    for content, reason in (
        ("[1]", "not list"),
        ("{", "is not JSON: Expecting"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=reason):
            read_json_object(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:11\nsize 1\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--11.safetensors\n", "git annex get"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_weights(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        refuse_no_weights(path)
    with pytest.raises(UserError, match=reason):
        check_checkpoint(tmp_path)


def test_quantised_checkpoints_name_the_missing_package(tmp_path: Path) -> None:
    config = {"quantization_config": {"quant_method": "aqlm"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="quantised with aqlm, which needs aqlm: install that, or"):
        check_checkpoint(tmp_path)
    assert quantisation_packages({"quantization_config": {"load_in_4bit": True}}) == (
        "bitsandbytes",
    )
    assert quantisation_packages({"text_config": config}) == ("aqlm",)
    for harmless in (
        {},
        {"quantization_config": None},
        {"quantization_config": {"quant_method": 3}},
    ):
        assert quantisation_packages(harmless) == ()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("\n\nfirst\nsecond"), "first"),
        (
            RuntimeError(
                "Error(s) in loading state_dict for StandardSAE:\n\tsize mismatch for W_dec: "
                "shape [2, 3], the shape in current model is [2, 4]."
            ),
            "size mismatch for W_dec: shape [2, 3], the shape in current model is [2, 4].",
        ),
        (RuntimeError("cannot do it because of the following:\n  no memory"),
         "cannot do it because of the following: no memory"),
        (KeyError("d_in"), "KeyError: 'd_in'"),
        (ValueError(), "ValueError"),
        (FileNotFoundError(2, "No such file or directory", "a.json"),
         "No such file or directory: a.json"),
        (ValueError("x" * 1000), "x" * 297 + "..."),
    ],
)  # fmt: skip
def test_reasons_of_foreign_errors(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size"])
def test_sizes_without_end_are_told(key: str, nested: bool, tmp_path: Path) -> None:
    for value, refused in ((32, False), (2**31, True), (1e12, True), ("9" * 20, True)):
        config = {key: value}
        content = {"text_config": config} if nested else config
        (tmp_path / "config.json").write_text(json.dumps(content))
        if refused:
            with pytest.raises(UserError, match=rf"config\.json: {key} is .* more than any model"):
                check_checkpoint(tmp_path)
        else:
            check_checkpoint(tmp_path)
