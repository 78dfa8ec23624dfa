"""Name a vision SAE's latents by the classes of the images that they fire on.

One streaming pass gathers, for each latent, on what share of patches it fires and its top images,
each by the patch where it fires most. The label is the class that most of these patches lie in.

Shape legend: b image, p patch, d channel, s dictionary latent, k top image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vista.config.vision_sae import LabelVisionSettings
from vista.progress import progress
from vista.sae.label_table import LatentLabels, plain_text
from vista.sae.neutral import SparseAutoencoder
from vista.sae.patches import Features

_LONGEST_ID = 80


@dataclass(frozen=True)
class TopPatches:
    """Where each latent fires most: at most one patch an image, strongest first.

    image_sk: row of the feature store, -1 where the latent fires in fewer images; patch_sk: patch
    in the grid; value_sk: activation, 0 where there is none; patches: how many were read;
    fired_s: on how many of them the latent fires; images_s: in how many images.
    """

    image_sk: NDArray[np.int64]
    patch_sk: NDArray[np.int64]
    value_sk: NDArray[np.float32]
    patches: int
    fired_s: NDArray[np.int64]
    images_s: NDArray[np.int64]


def top_patches(
    sae: SparseAutoencoder, features: Features, images: NDArray[np.int64], top_k: int
) -> TopPatches:
    """Read the features of `images` once; of equal activations the earlier image and patch stay."""
    _, n_patches, d_in = features.shape
    d_sae, device = sae.config.d_sae, sae.b_dec.device
    value_ks = torch.zeros(top_k, d_sae, device=device)
    place_ks2 = torch.full((top_k, d_sae, 2), -1, dtype=torch.int64, device=device)
    fired_s = torch.zeros(d_sae, dtype=torch.int64, device=device)
    images_s = torch.zeros(d_sae, dtype=torch.int64, device=device)
    step = max(1, sae.dense_rows // n_patches)
    for start in progress(range(0, len(images), step), desc="labels", unit="batch"):
        rows = images[start : start + step]
        x_nd = torch.from_numpy(np.asarray(features.read(rows), np.float32).reshape(-1, d_in))
        with torch.no_grad():
            z_bps = sae.encode(x_nd.to(device)).reshape(len(rows), n_patches, d_sae)
        fired_s += (z_bps > 0).sum(dim=(0, 1))
        best_bs, patch_bs = z_bps.max(dim=1)
        images_s += (best_bs > 0).sum(dim=0)
        image_bs = torch.from_numpy(rows).to(device)[:, None].expand_as(patch_bs)
        values = torch.cat([value_ks, best_bs])
        places = torch.cat([place_ks2, torch.stack([image_bs, patch_bs], dim=-1)])
        # Stable: of equal activations the earlier image stays, in every run.
        values, order = values.sort(dim=0, descending=True, stable=True)
        value_ks = values[:top_k]
        place_ks2 = places.gather(0, order[:top_k, :, None].expand(-1, -1, 2))
    silent_ks = value_ks <= 0
    place_ks2[silent_ks] = -1
    return TopPatches(
        image_sk=place_ks2[..., 0].T.cpu().numpy(),
        patch_sk=place_ks2[..., 1].T.cpu().numpy(),
        value_sk=value_ks.T.cpu().numpy(),
        patches=len(images) * n_patches,
        fired_s=fired_s.cpu().numpy(),
        images_s=images_s.cpu().numpy(),
    )


def label_places(
    top: TopPatches,
    classes_at: Callable[[int], Callable[[int], Collection[str]]],
) -> list[list[tuple[str, ...]]]:
    """The classes, sorted, that each latent's top places lie in: by latent, strongest first.

    `classes_at(image)` gives, for a row of the feature store, the classes of each patch; it is
    called once an image.
    """
    classes: list[list[tuple[str, ...]]] = [[()] * int((row >= 0).sum()) for row in top.image_sk]
    latents, ranks = np.nonzero(top.image_sk >= 0)
    order = np.argsort(top.image_sk[latents, ranks], kind="stable")
    last, at = -1, None
    for latent, rank in zip(latents[order].tolist(), ranks[order].tolist(), strict=True):
        image = int(top.image_sk[latent, rank])
        if at is None or image != last:
            last, at = image, classes_at(image)
        classes[latent][rank] = tuple(sorted(at(int(top.patch_sk[latent, rank]))))
    return classes


def vision_labels(
    sae: SparseAutoencoder,
    top: TopPatches,
    classes: list[list[tuple[str, ...]]],
    image_name: Callable[[int], str],
    settings: LabelVisionSettings,
) -> LatentLabels:
    """The labels of all latents in the form that text labels have.

    `classes` is what `label_places` gave. share_s is the share of the latent's top images that the
    most frequent class has (of equal ones that with more activation, then the first by name);
    tokens counts patches, density is a share of patches, a context is a top image.
    """
    labels: list[str | None] = []
    shares = np.zeros(len(classes), dtype=np.float32)
    contexts: list[tuple[str, ...]] = []
    for latent, places in enumerate(classes):
        values = top.value_sk[latent, : len(places)].tolist()
        label, share = heaviest(places, values)
        shares[latent] = share
        named = share >= settings.min_share and top.images_s[latent] >= settings.min_images
        labels.append(label if named else None)
        contexts.append(
            tuple(
                f"{value:.3g}: {plain_text(image_name(int(image)), _LONGEST_ID)}, "
                f"patch {patch}, {plain_text(', '.join(names), _LONGEST_ID) or 'no object'}"
                for value, image, patch, names in zip(
                    values,
                    top.image_sk[latent].tolist(),
                    top.patch_sk[latent].tolist(),
                    places,
                    strict=False,
                )
            )
        )
    return LatentLabels(
        layer=sae.config.layer,
        sae=sae.config.name,
        tokens=top.patches,
        label_s=tuple(labels),
        share_s=shares,
        density_s=(top.fired_s / max(top.patches, 1)).astype(np.float32),
        contexts_s=tuple(contexts),
    )


def heaviest(places: list[tuple[str, ...]], values: list[float]) -> tuple[str | None, float]:
    """The class that most places lie in, and its share of all places; (None, 0) without one."""
    count: dict[str, int] = {}
    weight: dict[str, float] = {}
    for names, value in zip(places, values, strict=True):
        for name in names:
            count[name] = count.get(name, 0) + 1
            weight[name] = weight.get(name, 0.0) + value
    if not count:
        return None, 0.0
    best = min(count, key=lambda name: (-count[name], -weight[name], name))
    return best, count[best] / len(places)


def top_columns(
    top: TopPatches, classes: list[list[tuple[str, ...]]], image_name: Callable[[int], str]
) -> dict[str, list[Any]]:
    """One row a latent and top image, by latent, strongest first: columns by name."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("latent", "rank", "image_id", "patch", "activation", "classes")
    }
    for latent, places in enumerate(classes):
        for rank, names in enumerate(places):
            row = (
                latent,
                rank,
                image_name(int(top.image_sk[latent, rank])),
                int(top.patch_sk[latent, rank]),
                float(top.value_sk[latent, rank]),
                list(names),
            )
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return columns
