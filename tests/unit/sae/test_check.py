"""The gate on text: figures of planted SAEs, and the sentence that a broken bound gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vista.config.sae import CheckSaeSettings, TextPass
from vista.errors import UserError
from vista.sae import neutral
from vista.sae.activations import text_activations
from vista.sae.check import SaeCheck, enforce_bounds, massive_warning, measure_on, measure_sae
from vista.sae.neutral import SaeConfig, SparseAutoencoder


def lossless(width: int = 32, kept: int = 32) -> SparseAutoencoder:
    """x = relu(x) - relu(-x): no error at all where all `kept` dimensions are kept."""
    eye = torch.eye(width)
    eye[kept:] = 0
    both = torch.cat([eye, -eye], dim=1)
    config = SaeConfig("standard", width, 2 * width, 0, "mirror", subtract_decoder_bias=False)
    weights = {
        "W_enc": both,
        "b_enc": torch.zeros(2 * width),
        "W_dec": both.T,
        "b_dec": torch.zeros(width),
    }
    return SparseAutoencoder(config, weights)


def test_a_lossless_sae(llm: Any, texts: list[str]) -> None:
    check = measure_sae(llm, lossless(), texts, CheckSaeSettings(tokens=300))
    assert check.fvu < 1e-10
    assert check.explained_variance > 1 - 1e-10
    assert check.l0 == pytest.approx(32)  # each dimension is either positive or negative
    assert 300 <= check.tokens < 300 + 64 * 20


def test_figures_equal_a_direct_computation(llm: Any, texts: list[str]) -> None:
    sae = lossless(kept=20)
    check = measure_sae(llm, sae, texts, CheckSaeSettings(tokens=10**9))
    batches = text_activations(llm, texts, 0, TextPass(batch_documents=7))
    x = torch.cat([batch.stream_nd for batch in batches]).double()
    assert check.tokens == len(x)
    variance = (x - x.mean(0)).square().mean() * x.shape[1] / x.shape[1]
    error = x[:, 20:].square().sum() / x.numel()
    assert check.mse == pytest.approx(float(error), rel=1e-5)
    assert check.fvu == pytest.approx(float(error / variance), rel=1e-5)
    assert check.l0 == pytest.approx(20)
    active = sae.encode(x.float()) > 0
    assert check.dead_share == pytest.approx(float((~active.any(0)).float().mean()))


def test_massive_tokens_do_not_hide_the_error_on_others() -> None:
    """A tenth of the tokens has 100 x the norm, and the SAE reconstructs these alone."""
    x = torch.randn(2000, 32, generator=torch.Generator().manual_seed(0)).double()
    massive = torch.arange(2000) % 10 == 0
    x[massive, 0] += 100 * 32**0.5
    sae = lossless(kept=1)
    check = measure_on(sae, [part.float() for part in x.split(300)])
    normal = x[~massive]
    spread = (normal - normal.mean(0)).square().sum()
    assert check.normal_tokens == 1800
    assert check.normal_fvu == pytest.approx(float(normal[:, 1:].square().sum() / spread), rel=1e-5)
    deviation = (x - x.mean(0)).square().sum(1)
    share = deviation[massive].sum() / deviation.sum()
    assert check.massive_variance == pytest.approx(float(share), rel=1e-5)
    assert check.fvu < 0.01 < 0.9 < check.normal_fvu
    warning = massive_warning(check)
    assert warning is not None
    assert "the 200 of 2000 tokens" in warning
    assert "saes.tokens.max_norm_ratio" in warning
    alike = measure_on(sae, [normal.float()])
    assert (alike.normal_tokens, alike.massive_variance) == (1800, pytest.approx(0, abs=1e-9))
    assert massive_warning(alike) is None


@pytest.mark.parametrize(
    ("fvu", "normal", "warns"), [(0.1, 0.21, 1), (0.5, 0.2, 1), (0.1, 0.19, 0)]
)
def test_figures_that_are_far_apart_are_worth_a_warning(
    fvu: float, normal: float, warns: bool
) -> None:
    warning = massive_warning(make_check(fvu=fvu, normal_fvu=normal))
    assert (warning is not None) == warns


def test_normal_tokens_that_do_not_vary_have_no_fvu() -> None:
    x = torch.ones(2000, 32)
    x[::10] *= 100
    check = measure_on(lossless(), [x])
    assert check.normal_fvu is None
    assert check.massive_variance == pytest.approx(0.9)
    assert massive_warning(check) is None


def test_dead_latents_are_counted(llm: Any, texts: list[str]) -> None:
    sae = lossless()
    sae.b_enc.data[:16] = -1e9
    assert measure_sae(llm, sae, texts, CheckSaeSettings()).dead_share == pytest.approx(16 / 64)


def make_check(**figures: float) -> SaeCheck:
    values = {"mse": 0.1, "fvu": 0.1, "explained_variance": 0.9, "l0": 8.0, "dead_share": 0.1}
    values |= {"normal_fvu": 0.1, "massive_variance": 0.7}
    name = {"sae": "llama-l1", "layer": 1, "d_sae": 512, "tokens": 900, "normal_tokens": 870}
    return SaeCheck.model_validate(name | values | figures)


def test_within_bounds_passes() -> None:
    enforce_bounds(make_check(), CheckSaeSettings(), "llama", "check_sae")
    loose = CheckSaeSettings(max_fvu=None, min_l0=None, max_l0=None, max_dead_share=None)
    enforce_bounds(make_check(fvu=9, l0=0, dead_share=1), loose, "llama", "check_sae")


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        ({"fvu": 0.41}, "FVU 0.41 exceeds the bound 0.2 (key check_sae.max_fvu)"),
        ({"fvu": float("nan")}, "FVU nan exceeds the bound 0.2"),
        ({"l0": 0.2}, "L0 0.2 is below the bound 1 (key check_sae.min_l0)"),
        ({"l0": 400.0}, "L0 400 exceeds the bound 64 (key check_sae.max_l0)"),
        ({"dead_share": 0.9}, "dead share 0.9 exceeds the bound 0.5"),
    ],
)
def test_a_broken_bound_names_sae_layer_figure_and_key(
    figures: dict[str, float], sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        enforce_bounds(
            make_check(**figures), CheckSaeSettings(max_dead_share=0.5), "llama", "check_sae"
        )
    message = str(caught.value)
    assert message.startswith("SAE llama-l1 at layer 1 of llama: on 900 held-out text tokens, ")
    assert sentence in message


def test_another_models_sae_fails_the_gate(llm: Any, texts: list[str]) -> None:
    """An SAE of the right width but the wrong model runs without a complaint; the gate sees it."""
    foreign = lossless()
    turned, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))
    foreign.W_enc.data = turned @ foreign.W_enc.data
    check = measure_sae(llm, foreign, texts, CheckSaeSettings())
    with pytest.raises(UserError, match="FVU"):
        enforce_bounds(check, CheckSaeSettings(), "llama", "check_sae")


def test_wide_dictionaries_are_measured_in_parts(
    llm: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_sae(llm, lossless(kept=20), texts, CheckSaeSettings())
    monkeypatch.setattr(neutral, "_DENSE_CELLS", 7 * 64)
    sae = lossless(kept=20)
    seen: list[int] = []
    encode = sae.encode

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return encode(x)

    monkeypatch.setattr(sae, "encode", watched)
    parts = measure_sae(llm, sae, texts, CheckSaeSettings())
    assert max(seen) == sae.dense_rows == 7
    assert parts.model_dump() == pytest.approx(whole.model_dump())


def test_memory_of_dense_activations_is_bounded() -> None:
    for d_sae in (384, 16_384, 131_072, 1_048_576):
        config = SaeConfig("standard", 4, d_sae, 0, "wide")
        empty = {name: torch.zeros(shape) for name, shape in config.weight_shapes().items()}
        rows = SparseAutoencoder(config, empty).dense_rows
        assert 64 <= rows <= 4096
        assert rows * d_sae * 4 <= 2**28
