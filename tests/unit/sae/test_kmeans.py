"""k-means as a dictionary: planted clusters are found, and sae_lens opens what is saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from vista.config.sae import CheckSaeSettings, SaeRecipe, TrainSaeSettings, architecture_modules
from vista.config.vision_sae import TrainVisionSaeSettings
from vista.sae.check import measure_sae
from vista.sae.convert import from_folder
from vista.sae.train import CURVE, NewSae, fit_sae, train_sae
from vista.sae.vision_train import train_vision_sae

CLUSTERS, WIDTH = 24, 32
HOOK = {"hook_name": "blocks.0.hook_resid_post"}


def planted() -> tuple[torch.Tensor, torch.Tensor]:
    """Unit directions whose sum is 0, and tokens [n, d]: a mean, a gain times one, some noise."""
    rng = np.random.default_rng(0)
    half = rng.standard_normal((CLUSTERS // 2, WIDTH))
    rows = np.concatenate([half, -half])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    gains = rng.uniform(1, 3, size=(4096, 1))
    noise = 0.02 * rng.standard_normal((4096, WIDTH))
    tokens = 5 + gains * rows[rng.integers(CLUSTERS, size=4096)] + noise
    return torch.tensor(rows, dtype=torch.float32), torch.tensor(tokens, dtype=torch.float32)


class Patches:
    """Features in memory."""

    def __init__(self, values: Any) -> None:
        self.values, self.shape = values, values.shape

    def read(self, indices: Any) -> Any:
        return self.values[indices]


def batches(tokens: torch.Tensor) -> Iterator[torch.Tensor]:
    rng = np.random.default_rng(1)
    while True:
        yield tokens[torch.from_numpy(rng.integers(len(tokens), size=512))]


def fitted(folder: Path, tokens: torch.Tensor, seed: int = 0) -> dict[str, list[float]]:
    recipe = SaeRecipe(steps=60, dead_window=5, seed=seed)
    new = NewSae("kmeans", WIDTH, CLUSTERS, "clusters", {}, HOOK)
    return fit_sae(new, batches(tokens), 512, recipe, np.random.default_rng(seed), folder)


def test_planted_directions_are_found(tmp_path: Path) -> None:
    rows, tokens = planted()
    curve = fitted(tmp_path, tokens)
    assert set(curve) == set(CURVE) and {len(column) for column in curve.values()} == {60}
    sae = from_folder(tmp_path, 0)
    assert (sae.config.architecture, sae.config.k, sae.config.layer) == ("topk", 1, 0)
    cosine = rows @ sae.W_dec.T
    assert float(cosine.max(dim=1).values.min()) > 0.99
    assert sorted(cosine.argmax(dim=1).tolist()) == list(range(CLUSTERS))
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(CLUSTERS))
    torch.testing.assert_close(sae.W_enc, sae.W_dec.T)
    torch.testing.assert_close(sae.b_dec, tokens.mean(dim=0), atol=0.05, rtol=0)
    latents = sae.encode(tokens)
    assert (latents > 0).sum(dim=1).tolist() == [1] * len(tokens)
    # By hand: the mean, and the projection on the row that the token projects most on.
    centred = tokens - sae.b_dec
    nearest = (centred @ sae.W_dec.T).argmax(dim=1)
    gain = (centred * sae.W_dec[nearest]).sum(dim=1, keepdim=True)
    torch.testing.assert_close(sae(tokens), sae.b_dec + gain * sae.W_dec[nearest])
    # No other gain is nearer to the token.
    error = float((tokens - sae(tokens)).square().sum(dim=1).mean())
    assert error == pytest.approx(curve["mse"][-1], rel=0.1)
    for factor in (0.9, 1.1):
        other = sae.b_dec + factor * gain * sae.W_dec[nearest]
        assert float((tokens - other).square().sum(dim=1).mean()) > error


def test_sae_lens_gives_the_same_latents(tmp_path: Path) -> None:
    import sae_lens

    tokens = planted()[1][:300]
    fitted(tmp_path, planted()[1])
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    assert theirs.cfg.architecture() == "topk"
    ours = from_folder(tmp_path, 0)
    torch.testing.assert_close(ours.encode(tokens), theirs.encode(tokens))
    torch.testing.assert_close(ours(tokens), theirs(tokens))


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    tokens = planted()[1]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name) + seed * 7)
        fitted(tmp_path / name, tokens, seed)
    for file in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    weights = "sae_weights.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() != (tmp_path / "c" / weights).read_bytes()


def test_more_directions_than_different_tokens(tmp_path: Path) -> None:
    """Directions that are left over start again at tokens; nothing is NaN."""
    tokens = planted()[1][:5].repeat(100, 1)
    fitted(tmp_path, tokens)
    sae = from_folder(tmp_path, 0)
    assert torch.isfinite(sae.W_dec).all()
    assert float((tokens - sae(tokens)).square().mean()) < 1e-3


def test_on_text_and_on_patches(llm: Any, texts: list[str], tmp_path: Path) -> None:
    settings = TrainSaeSettings(
        architecture="kmeans", d_sae=48, steps=60, batch_tokens=256, tokens=1200, dead_window=10
    )
    train_sae(llm, texts, 1, settings, tmp_path / "text")
    check = measure_sae(llm, from_folder(tmp_path / "text"), texts, CheckSaeSettings())
    assert check.l0 == 1
    assert check.fvu < 0.7
    features = Patches(planted()[1].numpy().reshape(256, 16, WIDTH))
    vision = TrainVisionSaeSettings(
        architecture="kmeans", d_sae=CLUSTERS, steps=60, batch_patches=256, buffer_patches=4096
    )
    train_vision_sae(features, np.arange(256), vision, "km", tmp_path / "vision")
    sae = from_folder(tmp_path / "vision", 2)
    assert float((planted()[0] @ sae.W_dec.T).max(dim=1).values.min()) > 0.99


@pytest.mark.parametrize("settings", [TrainSaeSettings, TrainVisionSaeSettings])
def test_it_has_one_active_latent(settings: type[SaeRecipe]) -> None:
    values = {"architecture": "kmeans"}
    assert settings.model_validate(values).k == 1
    assert settings.model_validate(values | {"k": 1}).k == 1
    with pytest.raises(ValidationError, match="kmeans has one active latent a token"):
        settings.model_validate(values | {"k": 5})
    assert settings().k != 1


def test_its_code_is_that_of_its_own_nodes() -> None:
    assert architecture_modules("kmeans") == (
        "vista.sae.architectures.topk",
        "vista.sae.trainers.kmeans",
    )
    assert all("trainers" not in module for module in architecture_modules())
    assert architecture_modules("topk") == ("vista.sae.architectures.topk",)
