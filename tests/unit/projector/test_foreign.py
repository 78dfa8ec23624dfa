"""Projectors of other programs: whatever their names, the same function; and nothing unsafe."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vista.errors import UserError
from vista.projector.foreign import read_foreign
from vista.projector.module import load_projector, save_projector

D_VISION, D_MODEL = 6, 8


def one() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(nn.Linear(D_VISION, D_MODEL).state_dict())


def two() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(D_VISION, D_MODEL), nn.GELU(), nn.Linear(D_MODEL, D_MODEL))


@pytest.mark.parametrize(
    "prefix", ["", "module.", "linear.", "module.projector.linear.", "model.mm_projector."]
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_a_linear_layer_is_read_under_any_name(
    tmp_path: Path, prefix: str, wrapper: str | None
) -> None:
    state: Any = {prefix + name: value for name, value in one().items()}
    path = tmp_path / "projector.pth"
    torch.save({wrapper: state, "epoch": 1} if wrapper else state, path)
    module = read_foreign(path, d_vision=D_VISION, d_model=D_MODEL)
    x = torch.randn(2, 3, D_VISION)
    assert module.kind == "linear"
    torch.testing.assert_close(module(x), nn.functional.linear(x, **one()))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("model.mm_projector.0", "model.mm_projector.2"),
        ("multi_modal_projector.linear_1", "multi_modal_projector.linear_2"),
        ("module.2.proj", "module.10.proj"),
    ],
)
def test_two_layers_have_a_gelu_between_them(tmp_path: Path, first: str, second: str) -> None:
    source = two()
    named = {"0": first, "2": second}
    # Written last layer first: the order comes from the names.
    state = {
        f"{named[name.split('.')[0]]}.{name.split('.')[1]}": value
        for name, value in reversed(source.state_dict().items())
    }
    save_file(state, tmp_path / "p.safetensors")
    module = read_foreign(tmp_path / "p.safetensors", d_vision=D_VISION, d_model=D_MODEL)
    x = torch.randn(2, 3, D_VISION)
    assert module.kind == "mlp"
    torch.testing.assert_close(module(x), source(x))
    save_projector(tmp_path, module)
    again = load_projector(tmp_path, d_vision=D_VISION, d_model=D_MODEL)
    assert torch.equal(again(x), module(x))


def test_the_output_scale_is_folded_in_and_half_precision_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.pt"
    torch.save({name: value.bfloat16() for name, value in two().state_dict().items()}, path)
    x = torch.randn(2, 3, D_VISION)
    plain = read_foreign(path, d_vision=D_VISION, d_model=D_MODEL)
    scaled = read_foreign(path, d_vision=D_VISION, d_model=D_MODEL, output_scale=3.0)
    torch.testing.assert_close(scaled(x), 3 * plain(x))
    assert plain.layers[0].weight.dtype == torch.float32


class Evil:
    def __reduce__(self) -> Any:
        return (Path("/nowhere/touched").touch, ())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"weight": torch.zeros(D_MODEL, D_VISION + 1)},
            r": weight is \[8, 7\], expected \[8, 6\]",
        ),
        ({"weight": torch.zeros(D_MODEL, D_VISION), "bias": torch.zeros(3)}, r": bias is \[3\]"),
        ({"a.0.weight": torch.zeros(2, 3)}, r": a\.0\.weight is \[2, 3\]"),
        ({"bias": torch.zeros(3)}, ": bias has no weight beside it"),
        ({"conv.weight": torch.zeros(2, 2, 2)}, "is not the weight or bias of a linear layer"),
        ({"a.bias": torch.zeros(3)}, r"a\.bias has no a\.weight"),
        ({f"{i}.weight": torch.zeros(8, 6) for i in range(3)}, "3 linear layers"),
        ({"weight": torch.full((D_MODEL, D_VISION), float("nan"))}, "NaN"),
        ({"epoch": 3}, "'epoch' is no tensor"),
        ([1], "no state dict"),
        ({"weight": Evil()}, r"not a file of plain tensors \(it holds more than tensors\); save"),
    ],
)
def test_what_is_no_projector_is_refused_by_name(
    tmp_path: Path, content: Any, expected: str
) -> None:
    path = tmp_path / "wrong.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=expected) as caught:
        read_foreign(path, d_vision=D_VISION, d_model=D_MODEL)
    assert "wrong.pth" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:11\nsize 5\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"", "is empty"),
        (b"tensors, it says here", "not a file of plain tensors"),
        (pickle.dumps({"weight": {1, 2}}, protocol=2), "not a file of plain tensors"),
    ],
    ids=["pointer", "page", "empty", "text", "pickle"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_weights_is_named(
    tmp_path: Path, content: bytes, sentence: str, suffix: str
) -> None:
    path = tmp_path / f"projector{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read_foreign(path, d_vision=D_VISION, d_model=D_MODEL)
    assert path.name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_read_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) for name, value in one().items()}
    torch.save(state, tmp_path / "p.pth")
    module = read_foreign(tmp_path / "p.pth", d_vision=D_VISION, d_model=D_MODEL)
    assert torch.equal(module.linears()[0].weight, state["weight"].float())


@pytest.mark.parametrize(
    ("weight", "kind"),
    [
        (torch.zeros(D_MODEL, D_VISION, dtype=torch.int8), "int8"),
        (torch.zeros(D_MODEL, D_VISION, dtype=torch.bool), "bool"),
        (torch.zeros(D_MODEL, D_VISION, dtype=torch.complex64), "complex64"),
        (torch.zeros(D_MODEL, D_VISION, dtype=torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.zeros(D_MODEL, D_VISION).to_sparse(), "float32 in a sparse layout"),
        (torch.zeros(D_MODEL, D_VISION, device="meta"), "float32 without values"),
    ],
    ids=["int8", "bool", "complex64", "float8", "sparse", "meta"],
)
def test_tensors_that_are_no_plain_floats_are_named(
    tmp_path: Path, weight: torch.Tensor, kind: str
) -> None:
    torch.save({"fc.weight": weight}, tmp_path / "p.pth")
    with pytest.raises(UserError, match=f"fc.weight is a tensor of {kind}, expected float32"):
        read_foreign(tmp_path / "p.pth", d_vision=D_VISION, d_model=D_MODEL)


def test_numbers_beyond_float32_are_named(tmp_path: Path) -> None:
    state = {"weight": torch.full((D_MODEL, D_VISION), 1e300, dtype=torch.float64)}
    torch.save(state, tmp_path / "p.pth")
    with pytest.raises(UserError, match="weight holds NaN or infinity, or numbers beyond float32"):
        read_foreign(tmp_path / "p.pth", d_vision=D_VISION, d_model=D_MODEL)
    torch.save(one(), tmp_path / "p.pth")
    with pytest.raises(UserError, match=r"`output_scale` 1e\+39 makes numbers beyond"):
        read_foreign(tmp_path / "p.pth", d_vision=D_VISION, d_model=D_MODEL, output_scale=1e39)


def test_views_of_one_storage_are_read_as_they_stand(tmp_path: Path) -> None:
    whole = torch.randn(D_VISION + 1, 2 * D_MODEL)
    state = {"weight": whole[:D_VISION, ::2].T, "bias": whole[D_VISION, ::2]}
    torch.save(state, tmp_path / "p.pth")
    module = read_foreign(tmp_path / "p.pth", d_vision=D_VISION, d_model=D_MODEL)
    assert torch.equal(module.linears()[0].weight, state["weight"])
    assert torch.equal(module.linears()[0].bias, state["bias"])


def test_a_record_that_the_archive_calls_a_folder_is_not_read_as_stray_memory(
    tmp_path: Path,
) -> None:
    torch.save(one(), tmp_path / "p.pth")
    content = bytearray((tmp_path / "p.pth").read_bytes())
    entry = content.index(b"PK\1\2", content.index(b"PK\1\2") + 4)
    while b"data/0" not in content[entry : entry + 70]:
        entry = content.index(b"PK\1\2", entry + 4)
    content[entry + 38] |= 0x10  # external attributes in the index: a folder
    (tmp_path / "p.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"p\.pth is damaged"):
        read_foreign(tmp_path / "p.pth", d_vision=D_VISION, d_model=D_MODEL)


def square(first: str, second: str, d_vision: int = D_MODEL) -> dict[str, torch.Tensor]:
    """Two layers under these names, the second one written first."""
    torch.manual_seed(2)
    weights = {first: torch.randn(D_MODEL, d_vision), second: torch.randn(D_MODEL, D_MODEL)}
    return {f"{name}.weight": weights[name] for name in (second, first)}


@pytest.mark.parametrize(
    ("first", "second"),
    [("0", "2"), ("fc1", "fc2"), ("mlp.2.proj", "mlp.10.out"), ("linear_1.x", "linear_2.a")],
)
def test_square_layers_are_ordered_by_their_numbers(
    tmp_path: Path, first: str, second: str
) -> None:
    state = square(first, second)
    torch.save(state, tmp_path / "p.pth")
    linears = read_foreign(tmp_path / "p.pth", d_vision=D_MODEL, d_model=D_MODEL).linears()
    assert torch.equal(linears[0].weight, state[f"{first}.weight"])
    assert torch.equal(linears[1].weight, state[f"{second}.weight"])


NOT_TOLD = [("fc_a", "fc_b"), ("proj", "out"), ("a2", "b1"), ("fc", "fc1"), ("01", "1")]


@pytest.mark.parametrize(("first", "second"), NOT_TOLD)
def test_layers_without_an_order_are_refused_and_told_how_to_be_named(
    tmp_path: Path, first: str, second: str
) -> None:
    torch.save(square(first, second), tmp_path / "p.pth")
    with pytest.raises(
        UserError, match=r"comes first is not told; name them `0\.weight`"
    ) as caught:
        read_foreign(tmp_path / "p.pth", d_vision=D_MODEL, d_model=D_MODEL)
    assert f"{first}.weight [8, 8]" in str(caught.value)


@pytest.mark.parametrize(("first", "second"), NOT_TOLD)
def test_layers_of_unlike_shapes_are_ordered_by_them(
    tmp_path: Path, first: str, second: str
) -> None:
    state = square(first, second, D_VISION)
    torch.save(state, tmp_path / "p.pth")
    linears = read_foreign(tmp_path / "p.pth", d_vision=D_VISION, d_model=D_MODEL).linears()
    assert torch.equal(linears[0].weight, state[f"{first}.weight"])


def test_a_normalisation_beside_the_layers_is_named(tmp_path: Path) -> None:
    torch.save({**one(), "norm.weight": torch.ones(D_MODEL)}, tmp_path / "p.pth")
    with pytest.raises(UserError, match=r"norm\.weight \[8\] \(of a normalisation\?\) is not the"):
        read_foreign(tmp_path / "p.pth", d_vision=D_VISION, d_model=D_MODEL)


def test_a_file_that_is_missing_or_cut_off_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_foreign(tmp_path / "none.pth", d_vision=D_VISION, d_model=D_MODEL)
    torch.save(one(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:200])
    with pytest.raises(UserError, match=r"cut\.pth: not a file of plain tensors"):
        read_foreign(tmp_path / "cut.pth", d_vision=D_VISION, d_model=D_MODEL)
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(UserError, match=r"raw\.pkl"):
        read_foreign(tmp_path / "raw.pkl", d_vision=D_VISION, d_model=D_MODEL)
