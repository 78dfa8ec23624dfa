"""The neutral SAE form: what it computes, what it refuses, what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vista.errors import UserError
from vista.sae.architectures import architecture_names
from vista.sae.neutral import (
    CONFIG_FILE,
    NORMALISATIONS,
    WEIGHTS_FILE,
    SaeConfig,
    SparseAutoencoder,
    load_sae,
    save_sae,
)


def planted(**changes: object) -> SparseAutoencoder:
    """A jumprelu SAE of 3 latents on width 2 whose every number can be worked out by hand."""
    config = SaeConfig("jumprelu", d_in=2, d_sae=3, layer=1, name="planted", **changes)  # type: ignore[arg-type]
    return SparseAutoencoder(
        config,
        {
            "W_enc": torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),
            "b_enc": torch.zeros(3),
            "threshold": torch.tensor([0.5, 0.5, 3.0]),
            "W_dec": torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0]]),
            "b_dec": torch.tensor([1.0, 0.0]),
        },
    )


def random_sae(architecture: str, normalisation: str = "none") -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    config = SaeConfig(
        architecture,
        d_in=8,
        d_sae=20,
        layer=2,
        name="random",
        k=4 if architecture == "topk" else None,
        normalisation=normalisation,
    )
    weights = {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) == 1 else 1.0)
        for name, shape in config.weight_shapes().items()
    }
    return SparseAutoencoder(config, weights)


def test_jumprelu_by_hand() -> None:
    sae = planted()
    z = sae.encode(torch.tensor([[2.0, 1.0], [1.4, 0.4], [1.0, 3.5]]))
    # x - b_dec = (1, 1), (.4, .4), (0, 3.5); the third latent needs a sum above 3.
    assert z.tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 3.5, 3.5]]
    assert sae.decode(z).tolist() == [[2.0, 1.0], [1.0, 0.0], [1.0, 21.0]]


def test_decoder_bias_is_subtracted_only_where_the_config_says_so() -> None:
    x = torch.tensor([[2.0, 1.0]])
    assert planted().encode(x)[0, 0] == 1.0
    assert planted(subtract_decoder_bias=False).encode(x)[0, 0] == 2.0


@pytest.mark.parametrize("architecture", architecture_names())
def test_a_token_does_not_depend_on_its_neighbours(architecture: str) -> None:
    """A batch-wide top-k at inference would read the company, not the token."""
    sae = random_sae(architecture)
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    x[8:] *= 100  # loud neighbours
    torch.testing.assert_close(sae.encode(x)[:8], sae.encode(x[:8]))


@pytest.mark.parametrize("architecture", architecture_names())
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_gradient_reaches_the_input_and_nothing_else(architecture: str, normalisation: str) -> None:
    sae = random_sae(architecture, normalisation)
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (sae(x) - x).square().mean().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in sae.parameters())


def test_gradient_equals_finite_differences() -> None:
    """The regulariser's gradient is that of the whole expression: the target is not detached."""
    sae = random_sae("jumprelu").double()
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: (sae(v) - v).square().mean(), (x,), eps=1e-7)


def test_a_normalising_sae_is_scale_free_and_needs_the_stream_back() -> None:
    sae = random_sae("standard", "constant_norm_rescale")
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sae.encode(7 * x), sae.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sae(7 * x), 7 * sae(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="like"):
        sae.decode(sae.encode(x))


def test_centring_takes_the_mean_out_and_puts_it_back() -> None:
    sae = random_sae("jumprelu", "centre")
    plain = random_sae("jumprelu")
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
    x -= x.mean(dim=-1, keepdim=True)
    torch.testing.assert_close(sae.encode(x + 3.0), plain.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(x + 3.0), plain(x) + 3.0, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="centre needs the encoded stream"):
        sae.decode(sae.encode(x))


def test_encode_sparse_holds_every_active_latent_strongest_first() -> None:
    sae = random_sae("jumprelu")
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    dense = sae.encode(x)
    index, value, nnz = sae.encode_sparse(x, k=20)
    assert torch.equal(nnz, (dense > 0).sum(-1))
    assert (value.diff(dim=-1) <= 0).all()
    rebuilt = torch.zeros_like(dense).scatter_add(-1, index, value)
    torch.testing.assert_close(rebuilt, dense)
    empty = torch.arange(20) >= nnz[:, None]
    assert (index[empty] == 0).all()
    assert (value[empty] == 0).all()


def test_encode_sparse_with_more_slots_than_latents() -> None:
    index, value, nnz = planted().encode_sparse(torch.tensor([[2.0, 1.0]]), k=5)
    assert (index.shape, value.shape, nnz.tolist()) == ((1, 5), (1, 5), [2])


def test_encode_sparse_refuses_to_drop_a_latent() -> None:
    x = torch.tensor([[2.0, 1.0]])
    assert planted().encode_sparse(x, k=2).nnz_n.tolist() == [2]
    with pytest.raises(UserError, match=r"2 active latents.*`latents.max_active` keeps only 1"):
        planted().encode_sparse(x, k=1, setting="latents.max_active")


def test_decoder_row() -> None:
    assert planted().decoder_row(2).tolist() == [0.0, 5.0]
    for outside in (-1, 3):
        with pytest.raises(IndexError):
            planted().decoder_row(outside)


@pytest.mark.parametrize("architecture", architecture_names())
def test_round_trip_and_equal_bytes(architecture: str, tmp_path: Path) -> None:
    sae = random_sae(architecture)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_sae(tmp_path / name, sae)
    for file in (WEIGHTS_FILE, CONFIG_FILE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    again = load_sae(tmp_path / "a", expect_d_in=8)
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    assert again.config == sae.config
    assert torch.equal(again(x), sae(x))


def test_another_width_is_refused_with_both_widths(tmp_path: Path) -> None:
    save_sae(tmp_path, planted())
    with pytest.raises(UserError, match=r"planted has d_in 2.*width 96.*choose"):
        load_sae(tmp_path, expect_d_in=96)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "transcoder"}, "transcoder"),
        ({"normalisation": "covariance_whitening"}, "covariance_whitening"),
        ({"format": 99}, "format"),
        ({"depth": 3}, "depth"),
        ({"d_sae": 4}, "needs"),
        ({"k": 2}, "topk"),
        ({"layer": None}, "sae.json"),
    ],
)
def test_a_broken_config_is_a_clear_error(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    save_sae(tmp_path, planted())
    raw = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**raw, **change}))
    with pytest.raises(UserError, match=message):
        load_sae(tmp_path)


def test_missing_and_truncated_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sae\.json"):
        load_sae(tmp_path)
    save_sae(tmp_path, planted())
    (tmp_path / WEIGHTS_FILE).write_bytes((tmp_path / WEIGHTS_FILE).read_bytes()[:40])
    with pytest.raises(UserError, match=WEIGHTS_FILE):
        load_sae(tmp_path)


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    sae = planted()
    sae.b_dec.data[0] = float("nan")
    save_sae(tmp_path, sae)
    with pytest.raises(UserError, match="b_dec holds NaN"):
        load_sae(tmp_path)
