"""The fast ways through a frozen SAE give the reconstruction and the gradient of the plain one."""

from __future__ import annotations

import pytest
import torch

from vista.sae import through
from vista.sae.architectures import architecture_names
from vista.sae.neutral import NORMALISATIONS, SaeConfig, SparseAutoencoder


def make(architecture: str, normalisation: str = "none") -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    k = 3 if architecture == "topk" else None
    config = SaeConfig(architecture, 24, 64, 0, "test", k=k, normalisation=normalisation)
    shapes = config.weight_shapes().items()
    return SparseAutoencoder(
        config, {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes}
    )


def error_and_gradient(function: object) -> tuple[torch.Tensor, torch.Tensor]:
    assert callable(function)
    # Rows of very different length, one of them zero: tokens without an active latent too.
    x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1))
    x = (x * torch.arange(9)[:, None]).requires_grad_(True)
    out = function(x)
    (out - x).square().mean().backward()
    assert x.grad is not None
    return out.detach(), x.grad


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("architecture", architecture_names())
@pytest.mark.parametrize("few", [0.0, 1.0], ids=["dense", "active latents alone"])
def test_equals_the_plain_expression(
    architecture: str, normalisation: str, few: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(through, "_LARGE", 1)
    monkeypatch.setattr(through, "_FEW", few)
    sae = make(architecture, normalisation)
    plain = error_and_gradient(lambda x: sae.decode(sae.encode(x), like=x))
    torch.testing.assert_close(
        error_and_gradient(lambda x: through.reconstruct(sae, x)), plain, rtol=1e-5, atol=2e-6
    )


def test_backward_keeps_no_activations() -> None:
    """Of n x s cells a byte is kept at most; autograd alone keeps five."""
    sae, x = make("jumprelu"), torch.randn(50, 24, requires_grad=True)
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        through.reconstruct(sae, x)
    whole = [tensor for tensor in kept if tensor.numel() == 50 * 64]
    assert [tensor.dtype for tensor in whole] == [torch.bool]


@pytest.mark.parametrize("architecture", architecture_names())
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_decoding_codes_equals_decoding_activations(architecture: str, normalisation: str) -> None:
    sae = make(architecture, normalisation)
    x = torch.randn(9, 24, generator=torch.Generator().manual_seed(2)) * torch.arange(9)[:, None]
    codes = sae.encode_sparse(x, 64)
    torch.testing.assert_close(
        sae.decode_sparse(codes, x), sae.decode(sae.encode(x), like=x), rtol=1e-5, atol=2e-6
    )
