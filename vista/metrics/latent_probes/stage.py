"""Stage: probe single latents of a vision SAE and of other dictionaries for classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from vista.config.vision_sae import LabelVisionSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.control_dictionaries import random_sae
from vista.inputs.patch_classes import classes_of_patches
from vista.inputs.vision import SaeDevice, load_vision_sae, sae_block, split_images
from vista.metrics.latent_probes import LatentProbesSettings
from vista.metrics.latent_probes.linear import linear_scores
from vista.metrics.latent_probes.measure import (
    ClassProbe,
    LatentProbesResult,
    Measured,
    Patches,
    common_classes,
    measure_dictionary,
    one_latent_probes,
    with_gains,
)
from vista.metrics.latent_probes.probes import Activations
from vista.metrics.latent_probes.semi_nmf import encode_semi_nmf, fit_semi_nmf
from vista.metrics.results import read_result, write_result
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from vista.sae.neutral import SparseAutoencoder

_KEY = "probing.latent_probes"
# A dictionary: from features [n, d] to activations [n, s].
Dictionary = Callable[[NDArray[np.float32]], Activations]


class LatentProbesOrder(LatentProbesSettings):
    """The settings, and the SAE's device."""

    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE with its check, and the features that it reads with their records."""

    sae: Artifact
    check: Artifact
    features: Artifact
    records: Artifact


@dataclass(frozen=True)
class Split:
    """Patches of some images: features [n, d], image [n] from 0, classes of each, and the classes
    on any patch of each image."""

    x_nd: NDArray[np.float32]
    image_n: NDArray[np.int64]
    classes_n: list[frozenset[str]]
    by_image: list[set[str]]

    def patches(self, classes: list[str]) -> Patches:
        """Return which of the classes each patch shows."""
        place = {name: c for c, name in enumerate(classes)}
        shown_nc = np.zeros((len(self.classes_n), len(classes)), dtype=bool)
        for n, shown in enumerate(self.classes_n):
            shown_nc[n, [place[name] for name in shown if name in place]] = True
        return Patches(shown_nc, self.image_n)


@stage(LatentProbesOrder, Inputs)
def run(job: StageJob[LatentProbesOrder, Inputs]) -> None:
    """Read vision SAE, its check, features and records; write the result and items: dictionary,
    class, latent, sign of its weight, threshold and scores.

    Dictionaries: `sae`; `neurons`, the features' channels; `pca`, principal components of the
    fitted patches; `semi_nmf`; `random`, as many directions as the SAE has latents, of which as
    many fire on a patch as of the SAE's; and `linear`, all channels together.

    Patches without an object are patches of no class. Raises UserError where a split has no image,
    or where no class is shown by enough images of both splits.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    features = FeatureReader(inputs.features.store("features.zarr"))
    sae = load_vision_sae(inputs.sae, features, settings.sae.device)
    fit = _read(inputs, features, settings, settings.fit_split, "fit_split", settings.fit_images)
    held = _read(inputs, features, settings, settings.split, "split", settings.images)
    classes = list(common_classes(fit.by_image, held.by_image, settings.min_images))
    if not classes:
        raise UserError(
            f"{_KEY}: no class is on patches of {settings.min_images} images of both "
            f"{settings.fit_split!r} and {settings.split!r}; lower min_images or mask_cover, or "
            "raise fit_images and images"
        )
    fitted, judged = fit.patches(classes), held.patches(classes)
    bootstrap = settings.bootstrap
    measured: dict[str, Measured] = {}
    items: dict[str, list[Any]] = {}
    random = random_sae(sae, round(read_result(inputs.check)["l0"]), settings.seed)
    probes = _probes(settings, sae, random, fit.x_nd, held.x_nd, fitted.shown_nc)
    for name, latents, probe in probes:
        measured[name] = measure_dictionary(
            probe,
            latents,
            fitted,
            judged,
            found=settings.found,
            seed=bootstrap.seed,
            resamples=bootstrap.resamples,
            level=bootstrap.level,
        )
        rows = {"dictionary": [name] * len(classes), "class": classes, **measured[name].items}
        for column, values in rows.items():
            items.setdefault(column, []).extend(values)
    result = LatentProbesResult(
        layer=sae_block(sae, inputs.features),
        classes=len(classes),
        images=len(held.by_image),
        patches=len(held.x_nd),
        fitted_images=len(fit.by_image),
        dictionaries=with_gains(measured, bootstrap.level),
    )
    write_result(job.work, result, {name: np.array(values) for name, values in items.items()})


def _probes(
    settings: LatentProbesSettings,
    sae: SparseAutoencoder,
    random: SparseAutoencoder,
    fit_nd: NDArray[np.float32],
    held_nd: NDArray[np.float32],
    shown_nc: NDArray[np.bool_],
) -> Iterator[tuple[str, int, ClassProbe]]:
    """Yield each dictionary's name, size and probes."""
    dictionaries: dict[str, Callable[[], Dictionary]] = {
        "sae": lambda: partial(_codes, sae),
        "neurons": lambda: lambda x_nd: x_nd,
        "pca": lambda: _components(fit_nd),
        "semi_nmf": lambda: _semi_nmf(settings, sae.config.d_sae, fit_nd),
        "random": lambda: partial(_codes, random),
    }
    for name, make in dictionaries.items():
        dictionary = make()
        fit_ns, held_ns = dictionary(fit_nd), dictionary(held_nd)
        probe = one_latent_probes(fit_ns, held_ns, shown_nc, settings.bins, settings.ridge)
        yield name, int(fit_ns.shape[1]), probe
    scores = linear_scores(fit_nd, shown_nc, held_nd, settings.ridge)
    classes = shown_nc.shape[1]
    yield "linear", fit_nd.shape[1], ClassProbe(np.full(classes, -1), np.ones(classes), *scores)


def _codes(sae: SparseAutoencoder, x_nd: NDArray[np.float32]) -> Activations:
    """Activations of a sparse dictionary [n, s], by latents."""
    import torch

    parts = []
    with torch.no_grad():
        for start in range(0, len(x_nd), sae.dense_rows):
            part_nd = torch.from_numpy(x_nd[start : start + sae.dense_rows])
            z_ns = sae.encode(part_nd.to(sae.b_dec.device)).cpu().numpy()
            parts.append(scipy.sparse.csr_array(z_ns))
    return scipy.sparse.csc_array(scipy.sparse.vstack(parts))


def _components(fit_nd: NDArray[np.float32]) -> Dictionary:
    """Projections on all principal components of some patches, with their signs."""
    mean_d = fit_nd.mean(axis=0, dtype=np.float64)
    _, row_dd = np.linalg.eigh(np.cov(fit_nd, rowvar=False).astype(np.float64))
    return lambda x_nd: np.asarray((x_nd - mean_d) @ row_dd[:, ::-1], dtype=np.float32)


def _semi_nmf(
    settings: LatentProbesSettings, d_sae: int, fit_nd: NDArray[np.float32]
) -> Dictionary:
    """A semi-NMF of random ones of some patches, of the SAE's size or its own bound."""
    chosen = np.random.default_rng(settings.seed).permutation(len(fit_nd))
    sample_nd = fit_nd[np.sort(chosen[: settings.semi_nmf_patches])]
    latents = min(d_sae, settings.semi_nmf_latents)
    row_sd = fit_semi_nmf(sample_nd, latents, settings.semi_nmf_iterations, settings.seed)
    return partial(encode_semi_nmf, row_sd=row_sd, iterations=settings.semi_nmf_iterations)


def _read(
    inputs: Inputs,
    features: FeatureReader,
    settings: LatentProbesSettings,
    split: str,
    key: str,
    limit: int | None,
) -> Split:
    """Read the patches of random images of a split, in the images' order."""
    records = read_records(inputs.records.file("records.parquet"))
    images, rows = split_images(records, features, split, f"{_KEY}.{key}")
    places = np.sort(np.random.default_rng(settings.seed).permutation(len(images))[:limit])
    images, rows = images[places], rows[places]
    labels = LabelVisionSettings(mask_cover=settings.mask_cover)
    classes_at = classes_of_patches(records, images, rows, inputs.features, labels)
    patches = features.shape[1]
    classes_n: list[frozenset[str]] = []
    by_image: list[set[str]] = []
    for image in images.tolist():
        at = classes_at(image)
        of_patches = [frozenset(at(patch)) for patch in range(patches)]
        classes_n += of_patches
        by_image.append(set().union(*of_patches))
    x_nd = np.asarray(features.read(images), dtype=np.float32).reshape(-1, features.shape[2])
    return Split(x_nd, np.repeat(np.arange(len(images)), patches), classes_n, by_image)
