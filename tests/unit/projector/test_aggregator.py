"""The Spatial Vision Aggregator: what a query reads, its arithmetic by hand, its file form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vista.config.projector import RecipeChange
from vista.config.sweep import Block
from vista.errors import UserError
from vista.projector.aggregator import (
    AggregatorShape,
    SpatialAggregator,
    Windows,
    draw_weights,
)
from vista.projector.module import CONFIG, Projector, load_projector, make_projector, save_projector
from vista.stages.combine_features import to_windows

D_MODEL, SIDE, GRID = 6, 4, 2


def projector(windows: Windows, seed: int = 3, **changes: Any) -> Projector:
    shape = AggregatorShape(windows, **{"hidden": 8, "heads": 2, "depth": 2, **changes})
    module = make_projector("spatial_aggregator", shape.channels, D_MODEL, seed, aggregator=shape)
    return module.double()


def maps(seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Two images in the maps of two encoders: 4 x 4 patches of width 3, 2 x 2 of width 5."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(2, SIDE**2, 3)), rng.normal(size=(2, GRID**2, 5))]


def features(maps_bpd: list[np.ndarray[Any, Any]]) -> Tensor:
    return torch.from_numpy(np.concatenate([to_windows(x, GRID) for x in maps_bpd], axis=2))


BOTH: Windows = ((4, 3), (1, 5))


def test_a_window_holds_the_patches_that_lie_at_its_place() -> None:
    map_bpd = np.arange(SIDE**2)[None, :, None]
    assert to_windows(map_bpd, GRID)[0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


@pytest.mark.parametrize("context", [True, False])
def test_patches_outside_of_a_window_change_nothing_when_permuted(context: bool) -> None:
    module, own = projector(BOTH, context=context), maps()
    before = module(features(own))
    outside = [2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    own[0][:, outside] = own[0][:, outside[::-1]]
    own[1][:, 1:] = own[1][:, [3, 1, 2]]
    after = module(features(own))
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert (after[:, 1:] - before[:, 1:]).abs().amax(-1).min() > 1e-4
    # The order within the window counts: each of its places has an embedding.
    own[0][:, [0, 1]] = own[0][:, [1, 0]]
    assert (module(features(own))[:, 0] - after[:, 0]).abs().max() > 1e-4


def test_only_the_context_knows_what_is_outside_of_a_window() -> None:
    for context in (True, False):
        module, own = projector(BOTH, context=context), maps()
        before = module(features(own))[:, 0]
        own[0][:, 15] += 1
        own[1][:, 3] += 1
        assert torch.equal(module(features(own))[:, 0], before) is not context


def test_one_encoder_and_a_window_of_one_patch_is_an_mlp_of_that_patch() -> None:
    """With one key the attention is its value, whatever the query."""
    module = projector(((1, 3),), depth=1, context=False)
    x_nd = torch.randn(2, 5, 3, dtype=torch.float64)
    w = {name: value.double() for name, value in module.state_dict().items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (8,), w[f"{name}.weight"], w[f"{name}.bias"])

    block = "sampler.blocks.0"
    token = linear("sampler.inputs.0.2", functional.gelu(linear("sampler.inputs.0.0", x_nd)))
    token = norm("sampler.inputs.0.3", token)
    value = linear(f"{block}.values.0.1", norm(f"{block}.values.0.0", token))
    query = w["sampler.query_h"]
    inner = linear(f"{block}.enter", query) + linear(f"{block}.leave", value)
    hidden = functional.gelu(linear(f"{block}.mlp.0", norm(f"{block}.norm", inner)))
    out = query + linear(f"{block}.mlp.2", hidden)
    out = linear("layers.1", functional.gelu(linear("layers.0", out)))
    torch.testing.assert_close(module(x_nd), out)


def test_a_query_weighs_all_encoders_tokens_by_one_softmax() -> None:
    module = projector(BOTH, depth=1, heads=1)
    assert module.sampler is not None
    (block,) = module.sampler.blocks
    inner_nh = torch.randn(3, 8, dtype=torch.float64)
    tokens = [torch.randn(3, n, 8, dtype=torch.float64) for n, _ in BOTH]
    placed = [tokens[0] + block.places["0"], tokens[1]]
    keys = torch.cat([read(x) for read, x in zip(block.keys, placed, strict=True)], 1)
    values = torch.cat([read(x) for read, x in zip(block.values, placed, strict=True)], 1)
    weight_nk = (keys @ block.query(inner_nh)[..., None])[..., 0].div(8**0.5).softmax(-1)
    expected = block.leave((weight_nk[..., None] * values).sum(1))
    torch.testing.assert_close(block._read(inner_nh, tokens), expected)


def test_at_first_tokens_tell_their_places_apart() -> None:
    """The query is the same at all places: a large one would make all tokens alike."""
    shape = AggregatorShape(windows=((1, 17),), hidden=128, heads=4, depth=2)
    sampler = SpatialAggregator(shape)
    generator = torch.Generator().manual_seed(0)
    draw_weights(sampler, generator)
    out_nh = sampler(torch.randn(1, 500, 17, generator=generator))[0]
    spread = out_nh.var(0).sum() / out_nh.square().mean(0).sum()
    assert spread > 0.4


def test_gradients_reach_all_weights() -> None:
    module = projector(BOTH)
    module(features(maps())).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_saved_aggregator_is_read_back_and_depends_on_its_seed_alone(tmp_path: Path) -> None:
    module = projector(BOTH).float()
    save_projector(tmp_path, module)
    again = load_projector(tmp_path, d_vision=17, d_model=D_MODEL)
    assert again.sampler is not None
    x_bpv = features(maps()).float()
    torch.testing.assert_close(again(x_bpv), module(x_bpv))
    same, other = (dict(projector(BOTH, seed=seed).named_parameters()) for seed in (3, 4))
    for name, weight in again.named_parameters():
        assert torch.equal(weight, same[name].float()), name
    assert not torch.equal(again.linears()[0].weight, other["layers.0.weight"].float())
    assert not torch.equal(again.sampler.query_h, other["sampler.query_h"].float())
    whole = json.loads((tmp_path / CONFIG).read_text())
    for broken in ({"heads": 3}, {"hidden": 1 << 30}, {"windows": [[4, 3]]}, {"windows": 1}):
        content = whole | {"aggregator": whole["aggregator"] | broken}
        (tmp_path / CONFIG).write_text(json.dumps(content))
        with pytest.raises(UserError, match="not the config of a projector"):
            load_projector(tmp_path, d_vision=17, d_model=D_MODEL)


def test_a_block_trains_in_its_own_way_or_not_at_all() -> None:
    change = RecipeChange(kind="spatial_aggregator")
    assert Block(recipe=change).recipe == change
    with pytest.raises(ValueError, match="trains by `projector`"):
        Block(recipe=change, controls={"norm_penalty": {}})
