"""k-means as a dictionary: the baseline that any SAE should beat.

Spherical k-means on centred tokens, as a gain-shape quantiser (Coates and Ng, Learning Feature
Representations with K-means, 2012, section 2): a token is written as its mean, plus its projection
on the one unit direction that it projects most on. This is a topk SAE with k = 1 whose encoder rows
are its decoder rows, and it is saved as one. scikit-learn's KMeans has another objective, in which
centroids are means and have no gain; it only draws the first directions here (k-means++).

Each batch is read once, as an SAE reads it. A direction becomes the sum of its tokens, each times
its gain (a power step towards the direction of largest variance); of batch i that sum keeps a part
in proportion to about i^2, so that tokens of early, poor directions are forgotten. A direction that
was silent for `dead_window` batches starts again at a token, drawn in proportion to the squared
error that it is left with.

Shape legend: n token, d width, s latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from vista.config.sae import SaeRecipe
from vista.progress import progress
from vista.sae.train import CURVE, NewSae, mean_token, new_curve, save_sorted

# Tokens for each direction, from which k-means++ draws the first ones.
_DRAWN_FROM = 4


def fit(
    new: NewSae,
    batches: Iterator[torch.Tensor],
    batch_size: int,
    recipe: SaeRecipe,
    rng: np.random.Generator,
    folder: Path,
    device: str = "cpu",
) -> dict[str, list[float]]:
    """Cluster `recipe.steps` batches [batch_size, d] into `new.d_sae` directions, save them.

    Of the recipe `steps`, `dead_window` and the seed behind `rng` count. Returns the curve of
    `vista.sae.train`: loss and mse are the squared error of a token, summed over dimensions.
    """
    mean_d = mean_token(batches)
    row_sd = _first_rows(batches, mean_d, new.d_sae, rng)
    sum_sd = torch.zeros_like(row_sd)
    silent_s = torch.zeros(new.d_sae, dtype=torch.int64, device=row_sd.device)
    curve = new_curve()
    for step in progress(range(recipe.steps), desc=new.name, unit="step"):
        x_nd = next(batches) - mean_d
        gain_n, nearest_n = (x_nd @ row_sd.T).max(dim=1)
        gain_n = gain_n.relu()
        error_n = (x_nd.square().sum(dim=1) - gain_n.square()).clamp_min(0)
        sum_sd *= step / (step + 2)
        sum_sd.index_add_(0, nearest_n, gain_n[:, None] * x_nd)
        norm_s1 = sum_sd.norm(dim=1, keepdim=True)
        row_sd = torch.where(norm_s1 > 0, sum_sd / norm_s1.clamp_min(1e-12), row_sd)
        fired_s = torch.bincount(nearest_n[gain_n > 0], minlength=new.d_sae) > 0
        silent_s = torch.where(fired_s, 0, silent_s + 1)
        dead_s = silent_s >= recipe.dead_window
        error = float(error_n.mean())
        l0, dead_share = float((gain_n > 0).float().mean()), float(dead_s.float().mean())
        for name, value in zip(CURVE, (step, error, error, l0, dead_share), strict=True):
            curve[name].append(value)
        latents = dead_s.nonzero()[:, 0]
        tokens = _drawn(error_n, len(latents), rng)
        moved = latents[: len(tokens)]
        row_sd[moved] = _unit(x_nd[tokens])
        sum_sd[moved], silent_s[moved] = 0.0, 0
    _save(new, row_sd, mean_d, folder)
    return curve


def _first_rows(
    batches: Iterator[torch.Tensor], mean_d: torch.Tensor, d_sae: int, rng: np.random.Generator
) -> torch.Tensor:
    """Return directions of tokens [s, d] that lie apart from each other."""
    from sklearn.cluster import kmeans_plusplus

    parts: list[torch.Tensor] = []
    while sum(map(len, parts)) < _DRAWN_FROM * d_sae:
        parts.append(_unit(next(batches) - mean_d))
    unit_nd = torch.cat(parts)
    drawn_sd, _ = kmeans_plusplus(
        unit_nd.cpu().numpy(), d_sae, random_state=int(rng.integers(2**32)), n_local_trials=1
    )
    return torch.as_tensor(drawn_sd, dtype=unit_nd.dtype, device=unit_nd.device)


def _drawn(error_n: torch.Tensor, wanted: int, rng: np.random.Generator) -> torch.Tensor:
    """Return the places of different tokens, at most `wanted`, drawn in proportion to errors."""
    weight_n = error_n.double().cpu().numpy()
    size = min(wanted, int(np.count_nonzero(weight_n)))
    if not size:
        return torch.empty(0, dtype=torch.int64, device=error_n.device)
    places = rng.choice(len(weight_n), size, replace=False, p=weight_n / weight_n.sum())
    return torch.from_numpy(places).to(error_n.device)


def _unit(x_nd: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x_nd, dim=1)


def _save(new: NewSae, row_sd: torch.Tensor, mean_d: torch.Tensor, folder: Path) -> None:
    """Save the directions as sae_lens saves a topk SAE with k = 1."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = get_sae_class("topk")
    options = {"d_in": new.d_in, "d_sae": new.d_sae, "k": 1, "device": "cpu"}
    sae = sae_class(config_class(**options, metadata=SAEMetadata(**new.metadata)))
    with torch.no_grad():
        sae.W_dec.copy_(row_sd)
        sae.W_enc.copy_(row_sd.T)
        sae.b_enc.zero_()
        sae.b_dec.copy_(mean_d)
    save_sorted(sae.save_model, folder)
