"""Edits of visual tokens against a slow reference that goes token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vista.interventions.edits import (
    Concept,
    Latent,
    RowEdit,
    change,
    edit_features,
    stream_edits,
)
from vista.sae.neutral import SaeConfig, SparseAutoencoder

D, S, P, START = 6, 5, 4, 2


def make_sae(seed: int = 0, **changes: Any) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    config = SaeConfig("standard", D, S, 0, "hand-made", **changes)
    return SparseAutoencoder(
        config,
        {"W_enc": draw(D, S), "W_dec": draw(S, D), "b_dec": draw(D), "b_enc": draw(S)},
    )


def concept(sae: SparseAutoencoder, latent: int) -> Concept:
    row = sae.W_dec[latent].detach()
    return Concept(row / row.norm(), (Latent(sae, latent),))


def stream(b: int = 3) -> torch.Tensor:
    return torch.randn(b, START + P + 3, D, generator=torch.Generator().manual_seed(1))


def patches(*at: int) -> torch.Tensor:
    chosen = torch.zeros(P, dtype=torch.bool)
    chosen[list(at)] = True
    return chosen


def slow(how: str, c: float, x: torch.Tensor, source: Concept, target: Concept) -> torch.Tensor:
    """One token, written out from the definition of each edit."""

    def firing(one: Concept) -> tuple[float, torch.Tensor]:
        latent = one.latents[0]
        x_in = (x - latent.sae.b_dec) @ latent.sae.W_enc[:, latent.number]
        a = max(0.0, float(x_in + latent.sae.b_enc[latent.number]))
        return a, latent.sae.W_dec[latent.number]

    s, t = source.direction_d, target.direction_d
    a, w = firing(source)
    if how == "subtract":
        return x - c * s
    if how == "add":
        return x + c * t
    if how == "remove_add":
        return x - c * s + c * t
    if how == "ablate":
        return x - c * a * w
    if how == "swap":
        return x - c * a * w + c * a * w.norm() * t
    a, w = firing(target)
    return x + (c - a) * w


@pytest.mark.parametrize("how", ["subtract", "add", "remove_add", "ablate", "swap", "clamp"])
def test_edit_equals_the_token_by_token_reference(how: Any) -> None:
    sae = make_sae()
    source, target = concept(sae, 1), concept(sae, 3)
    x_btd = stream()
    rows = [None, RowEdit(how, 1.7, patches(0, 2), source, target, (0, 2)), None]
    edits = stream_edits(rows, START)
    assert set(edits) == {0, 2}
    out = edits[2](x_btd)
    expected = x_btd.clone()
    for p in (0, 2):
        expected[1, START + p] = slow(how, 1.7, x_btd[1, START + p], source, target)
    torch.testing.assert_close(out, expected)
    changed = (out != x_btd).any(-1)
    assert changed.nonzero().tolist() == [[1, START], [1, START + 2]]


def test_ablation_keeps_the_error_of_the_sae() -> None:
    """x - a d exactly; the reconstruction of what is left lacks the latent, its error is kept."""
    sae = SparseAutoencoder(
        SaeConfig("standard", 2, 2, 0, "hand-made"),
        {
            "W_enc": torch.eye(2),
            "W_dec": torch.tensor([[2.0, 0.0], [0.0, 4.0]]),
            "b_dec": torch.zeros(2),
            "b_enc": torch.zeros(2),
        },
    )
    x = torch.tensor([[3.0, 5.0], [-1.0, 5.0]])
    out = x + change(RowEdit("ablate", 1.0, patches(0), concept(sae, 0)), x)
    assert out.tolist() == [[-3.0, 5.0], [-1.0, 5.0]]


def test_ablation_under_normalisation_takes_what_the_decoder_wrote() -> None:
    sae = make_sae(normalisation="constant_norm_rescale")
    x = stream()[0]
    z = sae.encode(x)
    without = z.clone()
    without[:, 2] = 0
    written = sae.decode(z, like=x) - sae.decode(without, like=x)
    out = change(RowEdit("ablate", 1.0, patches(0), concept(sae, 2)), x)
    torch.testing.assert_close(out, -written)
    assert out.any()


def test_rows_of_a_batch_equal_rows_alone() -> None:
    sae = make_sae()
    rows = [
        RowEdit("ablate", 1.0, patches(0, 1), concept(sae, 0), None, (1,)),
        None,
        RowEdit("add", 3.0, patches(2), None, concept(sae, 4), (1,)),
    ]
    x_btd = stream()
    whole = stream_edits(rows, START)[1](x_btd)
    for b, row in enumerate(rows):
        alone = x_btd[b : b + 1]
        if row is not None:
            alone = stream_edits([row], START)[1](alone)
        assert torch.equal(whole[b : b + 1], alone)


def test_stream_keeps_its_dtype_and_other_blocks_are_left_alone() -> None:
    rows = [RowEdit("add", 3.0, patches(2), None, concept(make_sae(), 4), (0,)), None]
    edits = stream_edits(rows, START)
    assert set(edits) == {0}
    x_btd = stream(2).bfloat16()
    out = edits[0](x_btd)
    assert out.dtype == torch.bfloat16
    out[0, START + 2] = x_btd[0, START + 2]
    assert torch.equal(out, x_btd)


def test_an_edit_after_a_block_adds_the_direction_of_that_block() -> None:
    x_btd, first_d, second_d = stream(1), torch.zeros(D), torch.zeros(D)
    first_d[0] = second_d[1] = 1
    edited = Concept(first_d, further={2: second_d})
    edits = stream_edits([RowEdit("add", 3.0, patches(1), None, edited, (0, 1, 2))], START)
    for block, wanted_d in ((0, first_d), (1, first_d), (2, second_d)):
        added_d = (edits[block](x_btd) - x_btd)[0, START + 1]
        torch.testing.assert_close(added_d, 3 * wanted_d)


def test_features_are_edited_at_their_patches_only() -> None:
    x_bpd = stream(2)[:, :P]
    kept = x_bpd.clone()
    chosen = concept(make_sae(), 1)
    out = edit_features(x_bpd, [RowEdit("subtract", 2.0, patches(3), chosen), None])
    assert torch.equal(x_bpd, kept)
    torch.testing.assert_close(out[0, 3], x_bpd[0, 3] - 2 * chosen.direction_d)
    assert np.argwhere((out != x_bpd).any(-1).numpy()).tolist() == [[0, 3]]


def test_an_edit_without_its_concept_is_refused() -> None:
    with pytest.raises(ValueError, match="subtract lacks a concept"):
        change(RowEdit("subtract", 1.0, patches(0)), torch.zeros(1, D))
    bare = Concept(torch.eye(D)[0])
    with pytest.raises(ValueError, match="ablate needs a latent"):
        change(RowEdit("ablate", 1.0, patches(0), bare), torch.zeros(1, D))
    with pytest.raises(ValueError, match="2 rows for a batch of 3"):
        edits = stream_edits([None, RowEdit("add", 1.0, patches(0), None, bare, (0,))], START)
        edits[0](stream())
