"""The random dictionary that an SAE is compared with has its sparsity, whatever the SAE is."""

from __future__ import annotations

import pytest
import torch

from vista.inputs.control_dictionaries import random_directions, random_sae
from vista.sae.architectures import architecture_names
from vista.sae.neutral import SaeConfig, SparseAutoencoder


@pytest.mark.parametrize("architecture", architecture_names())
def test_a_random_dictionary_fires_as_often_as_it_is_told(architecture: str) -> None:
    generator = torch.Generator().manual_seed(0)
    k = 4 if architecture == "topk" else None
    config = SaeConfig(architecture, d_in=8, d_sae=32, layer=0, name="an SAE", k=k)
    sae = SparseAutoencoder(
        config,
        {
            name: torch.randn(shape, generator=generator)
            for name, shape in config.weight_shapes().items()
        },
    )
    random = random_sae(sae, 3, seed=0)
    x_nd = torch.randn(200, 8, generator=generator)
    # Of 32 directions in 8 dimensions, more than three lie on the side of any token.
    assert (random.encode(x_nd) > 0).sum(1).tolist() == [3] * 200
    rows_sd = torch.from_numpy(random_directions(8, 32, 0)).float()
    torch.testing.assert_close(random.W_dec.detach(), rows_sd)
    torch.testing.assert_close(random.b_dec.detach(), sae.b_dec.detach())
