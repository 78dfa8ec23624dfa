"""The normalised SAE term: its value, its gradient, and that parts of a batch add up."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from vista.projector.loss import Moments, batch_moments, sae_term
from vista.sae.neutral import SaeConfig, SparseAutoencoder

D, LATENTS = 8, 32
VISUAL = slice(1, 5)


def an_sae() -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(3)
    config = SaeConfig("standard", D, LATENTS, 0, "test")
    shapes = config.weight_shapes()
    return SparseAutoencoder(
        config, {n: 0.4 * torch.randn(s, generator=generator) for n, s in shapes.items()}
    )


def stream(seed: int = 0) -> Tensor:
    x = 2 + torch.randn(6, 7, D, generator=torch.Generator().manual_seed(seed))
    return x.requires_grad_(True)


def fvu(x_nd: Tensor, sae: SparseAutoencoder) -> Tensor:
    return (sae(x_nd) - x_nd).square().sum() / (x_nd - x_nd.mean(0)).square().sum()


def test_over_the_variance_the_term_is_the_fvu_and_so_is_its_gradient() -> None:
    sae, x, y = an_sae(), stream(), stream()
    term = sae_term({0: x}, {0: sae}, VISUAL, "variance")
    expected = fvu(y[:, VISUAL].flatten(0, 1), sae)
    torch.testing.assert_close(term, expected)
    gradients = [torch.autograd.grad(value, of)[0] for value, of in ((term, x), (expected, y))]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_tokens_that_move_to_their_mean_lower_the_raw_error_and_not_the_normalised_one() -> None:
    """A dictionary of no use: it gives the tokens' mean, so the FVU is 1 at any distance."""
    sae = an_sae()
    spread = torch.tensor(1.0, requires_grad=True)
    x = stream().detach()
    mean = x[:, VISUAL].flatten(0, 1).mean(0)
    with torch.no_grad():
        sae.W_dec.zero_()
        sae.b_dec.copy_(mean)
    moved = {0: mean + spread * (x - mean)}
    slopes = {}
    kinds: tuple[Literal["none", "variance", "norm"], ...] = ("none", "variance", "norm")
    for kind in kinds:
        term = sae_term(moved, {0: sae}, VISUAL, kind)
        slopes[kind] = float(torch.autograd.grad(term, spread, retain_graph=True)[0])
    assert slopes["none"] > 1
    assert slopes["norm"] > 0.1
    assert abs(slopes["variance"]) < 1e-5


def test_over_the_norm_the_gradient_is_that_of_the_error_in_another_unit() -> None:
    sae, x = an_sae(), stream()
    raw, normed = (sae_term({0: x}, {0: sae}, VISUAL, kind) for kind in ("none", "norm"))
    unit = x.detach()[:, VISUAL].square().mean()
    torch.testing.assert_close(normed, raw / unit)
    gradients = [torch.autograd.grad(value, x)[0] for value in (normed, raw / unit)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", ["variance", "norm"])
def test_terms_of_parts_add_up_to_that_of_the_batch(kind: Literal["variance", "norm"]) -> None:
    sae, x = an_sae(), stream()
    whole = sae_term({0: x}, {0: sae}, VISUAL, kind)
    parts = [x[:2], x[2:]]
    sums: list[Moments] = [next(batch_moments({0: p}, {0: sae}, VISUAL))[1] for p in parts]
    batch = {0: sums[0] + sums[1]}
    terms = [
        len(part) / len(x) * sae_term({0: part}, {0: sae}, VISUAL, kind, batch) for part in parts
    ]
    torch.testing.assert_close(terms[0] + terms[1], whole)
    found, expected = (torch.autograd.grad(v, x)[0] for v in (terms[0] + terms[1], whole))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_moments_are_those_of_the_visual_tokens() -> None:
    sae, x = an_sae(), stream()
    ((layer, moments),) = batch_moments({0: x}, {0: sae}, VISUAL)
    flat_nd = x.detach()[:, VISUAL].flatten(0, 1)
    assert layer == 0
    assert moments.fvu == pytest.approx(float(fvu(flat_nd, sae)), rel=1e-5)
    assert moments.l0 == pytest.approx(float((sae.encode(flat_nd) > 0).sum(-1).float().mean()))
    assert moments.variance == pytest.approx(
        float((flat_nd - flat_nd.mean(0)).square().sum(-1).mean()), rel=1e-5
    )


def test_equal_tokens_have_no_fvu() -> None:
    x = torch.ones(2, 7, D)
    ((_, moments),) = batch_moments({0: x}, {0: an_sae()}, VISUAL)
    assert moments.fvu != moments.fvu


def test_a_penalty_on_the_stream_is_the_term_of_a_dictionary_that_gives_nothing() -> None:
    nothing, x, y = an_sae(), stream(), stream()
    with torch.no_grad():
        nothing.W_dec.zero_()
        nothing.b_dec.zero_()
    penalty = sae_term({0: x}, {0: an_sae()}, VISUAL, penalises="stream")
    expected = sae_term({0: y}, {0: nothing}, VISUAL)
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(penalty, x[:, VISUAL].square().mean())
    gradients = [torch.autograd.grad(value, of)[0] for value, of in ((penalty, x), (expected, y))]
    torch.testing.assert_close(*gradients)
