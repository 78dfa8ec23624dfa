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
