"""Stand-in encoders: they learn, load as real checkpoints do, and train to the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vista.config.encoders import StandinEncoder
from vista.encoders.contract import load_encoder
from vista.errors import UserError
from vista.standins.contrastive import PAD, _keep_share, _thin
from vista.standins.encoder import train_standin_encoder
from vista.standins.masked import k_means, visual_words

CAPTIONS = ["a red cat on sand", "a blue cat on sand", "a red cup on grass", "a blue key on sand"]


def settings(family: str, **others: object) -> StandinEncoder:
    small = {"d_vision": 32, "n_blocks": 1, "steps": 12, "batch_size": 8, "visual_words": 8}
    return StandinEncoder.model_validate({"family": family, **small, **others})


def scenes(n: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = np.full((n, 48, 48, 3), 40, dtype=np.uint8)
    for i in range(n):
        row, column = rng.integers(6, size=2) * 8
        images[i, row : row + 8, column : column + 4 + 4 * (i % 2)] = 250
    return images


@pytest.mark.parametrize("family", ["dinov2", "clip", "siglip"])
def test_a_stand_in_learns_loads_and_is_the_same_twice(family: str, tmp_path: Path) -> None:
    captions = [CAPTIONS[i % 4] for i in range(40)]
    curves = [
        train_standin_encoder(settings(family, lr=3e-3), scenes(), captions, tmp_path / name)
        for name in ("a", "b")
    ]
    assert curves[0] == curves[1]
    assert curves[0]["loss"][-1] < curves[0]["loss"][0]
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    encoder = load_encoder(tmp_path / "a", family)
    assert encoder.encode(scenes(2)).shape == (2, 36, 32)


def test_another_seed_gives_another_encoder(tmp_path: Path) -> None:
    for seed in (0, 1):
        train_standin_encoder(settings("dinov2", seed=seed), scenes(), [], tmp_path / str(seed))
    first, second = (tmp_path / str(seed) / "model.safetensors" for seed in (0, 1))
    assert first.read_bytes() != second.read_bytes()


def test_visual_words_tell_patches_apart_and_leave_bare_ground_out() -> None:
    pixels = torch.from_numpy(scenes()).permute(0, 3, 1, 2).float() / 255
    words = visual_words((pixels - 0.5) / 0.25, settings("dinov2", visual_words=2))
    assert words.shape == (40, 36)
    shown = words.gt(0).sum(1)
    assert shown.tolist() == [1] * 40
    wide = words[1::2].max(1).values.unique()
    narrow = words[::2].max(1).values.unique()
    assert len(wide) == len(narrow) == 1
    assert wide != narrow


def test_k_means_finds_planted_centres() -> None:
    generator = torch.Generator().manual_seed(0)
    planted = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = planted.repeat(50, 1) + 0.1 * torch.randn(150, 2, generator=generator)
    found = k_means(points, 12, 20, generator)
    nearest = torch.cdist(planted, found).min(1).values
    assert (nearest < 0.3).all()


def test_frequent_words_are_thinned_and_rare_ones_stay() -> None:
    # Words 2..4: in every caption, in half of them, in one of four.
    ids = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 5, 0], [1, 2, 5, 0, 0], [1, 2, 5, 0, 0]])
    keep = _keep_share(ids, eos=5, balance=1.0)
    assert keep[4] == 1.0
    assert keep[2] < keep[3] or keep[3] == 1.0
    assert keep[1] == keep[5] == keep[PAD] == 1.0
    thinned = _thin(ids, torch.tensor([1.0, 1, 0, 1, 1, 1]), torch.Generator().manual_seed(0))
    assert thinned.tolist() == [[1, 3, 4, 5], [1, 3, 5, 0], [1, 5, 0, 0], [1, 5, 0, 0]]


def test_mistakes_are_told_clearly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 training images are fewer than batch_size 8"):
        train_standin_encoder(settings("dinov2"), scenes(4), [], tmp_path)
    with pytest.raises(UserError, match="no captions to learn from"):
        train_standin_encoder(settings("clip"), scenes(), [""] * 40, tmp_path)
    with pytest.raises(ValueError, match="no multiple of n_heads"):
        settings("clip", d_vision=30)
