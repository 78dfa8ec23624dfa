"""Cached latents: their bytes, the top latents of each image, the top patches of one latent.

Suffixes: b images, t tokens, k slots of a token, s latents of the dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Case, Limit, Size, seconds
from benchmarks.machine import bandwidth
from benchmarks.profiles import python_shares
from benchmarks.usual import dense_latents
from benchmarks.usual.dense_latents import Found
from vista.config.metrics import MaskBounds
from vista.inputs.latents import rank_layer
from vista.sae.label_table import LatentLabels
from vista.store.by_latent import TOP_IMAGES
from vista.store.latents import LatentReader, LatentWriter

# Images, patches on a side, latents, active ones a token, slots a token. Full: the published sizes
# and sparsity (.22 % of 16k), in as many slots as `latents.max_active` gives.
SIZES = {"full": (64, 16, 16_384, 36, 512), "tiny": (5, 3, 64, 4, 32)}
N_TOP = 3
LAYER = 0


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Yield the three comparisons on one layer of the same latents, kept sparse and dense."""
    n, side, d_sae, active, slots = SIZES[size]
    n_tokens = side**2
    store, files = folder / "latents.zarr", [folder / f"{image}.pt" for image in range(n)]
    frequency_s = np.zeros(d_sae)
    writer = LatentWriter(
        store,
        [path.stem for path in files],
        (side, side),
        {LAYER: d_sae},
        {"image": n_tokens},
        slots,
    )
    for image, latents_ts in enumerate(draw_latents(n, n_tokens, d_sae, active)):
        dense_latents.save(files[image], latents_ts)
        write_sparse(writer, image, latents_ts)
        frequency_s += (latents_ts > 0).mean(0) / n
    writer.finish(LAYER, "image", np.random.default_rng(0).standard_normal(2304))
    writer.close()
    # From the most to the least frequent.
    latents: list[int] = np.argsort(-frequency_s)[:: d_sae // 8].tolist()
    require_same(store, files, latents)

    work = f"one layer, {n_tokens} tokens, {d_sae} latents, {active} active"
    n_active = float(frequency_s.sum())
    yield Case(
        "bytes an image of cached latents, by token and by latent",
        work,
        lambda: sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / n,
        lambda: float(files[0].stat().st_size),
        bar=200,
        unit="bytes",
        limit=Limit(
            n_tokens * (_bits(frequency_s) / 8 + 2 * n_active),
            "entropy of the active set, were each latent an event of its own with the measured "
            "frequency, and 2 B a value",
        ),
    )
    comparisons: tuple[tuple[str, Callable[[], object], Callable[[], object], float], ...] = (
        (
            f"top {N_TOP} latents an image and layer",
            partial(ranked, store),
            lambda: [dense_latents.top_latents(path, N_TOP) for path in files],
            # Index and value of all that fires.
            4 * n_active * n_tokens * n,
        ),
        (
            f"top patches of latent j, for {len(latents)} of them, the store opened once",
            partial(top_patches, store, latents),
            lambda: [dense_latents.top_images(files, latent, TOP_IMAGES) for latent in latents],
            # Image, token and value of each rank.
            8 * TOP_IMAGES * len(latents),
        ),
    )
    for name, ours, usual, n_bytes in comparisons:
        yield Case(
            name,
            f"{n} images, {work}",
            partial(seconds, ours),
            partial(seconds, usual),
            bar=50,
            limit=Limit(n_bytes / bandwidth() / 2, "each byte that is needed read from memory"),
            profile=lambda ours=ours, usual=usual: (python_shares(usual), python_shares(ours)),
            runs=3,
        )


def ranked(store: Path) -> list[list[Found]]:
    """Return (latent, token, activation) of the top latents of each image, as metrics get them."""
    reader = LatentReader(store)
    d_sae = reader.layers[LAYER]
    zeros, nothing = np.zeros(d_sae, np.float32), ((),) * d_sae
    labels = LatentLabels(LAYER, "drawn", 0, ("label",) * d_sae, zeros, zeros, nothing)
    everything = MaskBounds(1, 1)
    found = rank_layer(reader, LAYER, labels, [everything], N_TOP).ranked[everything]
    rows = zip(found.latent_bn, found.token_bn, found.value_bn, strict=True)
    return [_found(*(column[row[0] >= 0] for column in row)) for row in rows]


def top_patches(store: Path, latents: Sequence[int]) -> list[list[Found]]:
    """Return (image, token, activation) of the images at which each of the latents fires most."""
    reader = LatentReader(store)
    return [_found(*reader.top(LAYER, latent)) for latent in latents]


def require_same(store: Path, files: Sequence[Path], latents: Sequence[int]) -> None:
    """Raise ValueError where store and dense files answer differently."""
    if ranked(store) != [dense_latents.top_latents(path, N_TOP) for path in files]:
        raise ValueError("the top latents of the two sides differ")
    dense = [dense_latents.top_images(files, latent, TOP_IMAGES) for latent in latents]
    if top_patches(store, latents) != dense:
        raise ValueError("the top patches of the two sides differ")


def draw_latents(n: int, n_tokens: int, d_sae: int, active: int) -> Iterator[NDArray[np.float32]]:
    """Yield the dense latents of each image [t, s], `active` a token in the mean.

    How often a latent fires falls as a power of its rank, and differs from image to image, but not
    within one. Values have the precision of float16.
    """
    generator = np.random.default_rng(0)
    rate_s = generator.permutation(1 / np.arange(10, d_sae + 10))
    for _ in range(n):
        here_s = rate_s * generator.lognormal(0, 2, d_sae)
        for _ in range(20):  # a rate above 1 counts as 1
            here_s *= active / np.minimum(here_s, 1).sum()
        fires_ts = generator.random((n_tokens, d_sae)) < here_s
        latents_ts = np.zeros((n_tokens, d_sae), np.float32)
        latents_ts[fires_ts] = generator.lognormal(1, 1, fires_ts.sum()).astype(np.float16)
        yield latents_ts


def write_sparse(writer: LatentWriter, image: int, latents_ts: NDArray[np.float32]) -> None:
    """Write the latents of one image as the latents stage does: strongest first."""
    nnz_t = (latents_ts > 0).sum(1)
    index_tk = np.argsort(-latents_ts, axis=1, kind="stable")[:, : nnz_t.max()]
    value_tk = np.take_along_axis(latents_ts, index_tk, axis=1)
    # Error and square norm of the tokens, of no meaning here, but of the size that they have.
    error_t, norm2_t = np.random.default_rng(image).random((2, len(nnz_t)), np.float32)
    writer.set_valid("image", image, np.ones((1, len(nnz_t))))
    columns = (index_tk, value_tk, nnz_t, error_t, norm2_t)
    writer.write("image", image, LAYER, *(column[None] for column in columns))


def _found(*columns: NDArray[np.generic]) -> list[Found]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _bits(frequency_s: NDArray[np.float64]) -> float:
    p = frequency_s[(frequency_s > 0) & (frequency_s < 1)]
    return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum())
