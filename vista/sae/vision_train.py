"""Train an SAE on a vision encoder's cached patch features, with sae_lens' own trainer.

The loop is that of `vista.sae.train`: features are scaled by one constant to a mean norm of
sqrt(d), the scale is folded back, so the saved SAE reads raw features and its decoder rows, of unit
norm, can be added to them. Dead latents are revived by sae_lens' auxiliary loss (topk family); the
other two start from data directions and have no revival there.

In the neutral form `layer` is the encoder's block, counted from 0, whose output the features are.
No hook is recorded: the SAE reads the features as they are stored; their settings say which norm
was applied and which prefix tokens were dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.config.vision_sae import TrainVisionSaeSettings
from vista.device import find_device
from vista.errors import UserError
from vista.sae.patches import Features, shuffled_patches
from vista.sae.train import NewSae, fit_sae, sparsity_options


def train_vision_sae(
    features: Features,
    images: NDArray[np.int64],
    settings: TrainVisionSaeSettings,
    name: str,
    folder: Path,
) -> dict[str, list[float]]:
    """Train an SAE on the patches of `images` (rows of `features`), save it in `folder`.

    At most `settings.buffer_patches` (or one image) are in memory twice over. The same features,
    settings, seed and thread count give the same bytes on a CPU. Returns the curve of
    `vista.sae.train`. Raises UserError where the dictionary is smaller than its `k` or `widths`
    need.
    """
    d_in = features.shape[2]
    d_sae = settings.latents(d_in)
    rng = np.random.default_rng(settings.seed)
    device = find_device(settings.device)
    new = NewSae(
        settings.architecture,
        d_in,
        d_sae,
        name=f"vision SAE {name}",
        options=_options(settings, d_sae),
        metadata={},
    )
    size = settings.batch_patches
    batches = shuffled_patches(features, images, size, settings.buffer_patches, rng, device)
    return fit_sae(new, batches, size, settings, rng, folder, str(device))


def _options(settings: TrainVisionSaeSettings, d_sae: int) -> dict[str, Any]:
    if settings.architecture == "standard":
        warm_up = int(settings.l0_warmup * settings.steps)
        return {"l1_coefficient": settings.l1, "l1_warm_up_steps": warm_up}
    if settings.k > d_sae:
        raise UserError(
            f"vision SAE: k = {settings.k:g} of {d_sae} latents; lower `k` or raise `expansion`"
        )
    options = sparsity_options(settings.architecture, settings)
    if settings.architecture == "topk":
        options["k"] = int(settings.k)
    if settings.architecture == "matryoshka_batchtopk":
        widths = [round(share * d_sae) for share in settings.widths]
        if widths != sorted(set(widths)) or widths[0] < 1:
            raise UserError(
                f"vision SAE: {d_sae} latents are too few for `widths` {list(settings.widths)}; "
                "raise `expansion` or give fewer widths"
            )
        options["matryoshka_widths"] = widths
    return options
