"""Latents of an SAE whose decoder rows point the same way, from the file of its weights.

The file is memory-mapped and read in blocks of rows, without torch.

Shape legend: s dictionary latent, d width of what the SAE reads, n latent that is asked for,
k neighbour, c candidate.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vista.errors import UserError
from vista.explore.finished import Finished, NotServed
from vista.explore.published import SAES

# As vista.sae.neutral writes it, which imports torch.
WEIGHTS = "sae.safetensors"
MOST = 8  # neighbours of a latent
_DECIMALS = 4
_BLOCK_CELLS = 2**22  # of decoder rows held at once: 16 MB
_COSINE_CELLS = 2**24  # cosines held at once: 64 MB
_NONE = -2.0  # less than any cosine
_KEPT = 8
_AT_ONCE = 2
# Pages of a table: what is read for one latent.
_PAGE_BYTES, _BATCH = 1 << 13, 64


class Neighbours(NamedTuple):
    """The nearest latents of n latents, nearest first.

    index_nk: int32 latents, -1 where there are fewer than k; cosine_nk: float32 cosines, 0 there.
    """

    index_nk: NDArray[np.int32]
    cosine_nk: NDArray[np.float32]

    def of(self, row: int) -> list[tuple[int, float]]:
        """Return the neighbours of one of the latents with their cosines."""
        pairs = zip(self.index_nk[row].tolist(), self.cosine_nk[row].tolist(), strict=True)
        return [(latent, round(cosine, _DECIMALS)) for latent, cosine in pairs if latent >= 0]


class Decoder:
    """The decoder rows of an SAE in the neutral form.

    Attributes:
        latents: How many.
        width: Of the residual stream, or of an encoder's features.

    Raises UserError where the file is missing or holds no decoder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        shape: list[int] = []
        try:
            with safe_open(path, framework="numpy") as file:
                rows = file.get_slice("W_dec")
                if rows.get_dtype() == "F32":
                    shape = rows.get_shape()
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} holds no decoder of an SAE; import the SAE again") from error
        if len(shape) != 2 or min(shape) < 1:
            raise UserError(f"{path} has no decoder of float32 rows; import the SAE again")
        self.latents, self.width = shape
        self._scale_s = np.concatenate([_inverse_norms(rows_sd) for _, rows_sd in self._blocks()])

    def _blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield blocks of rows, and which rows they are."""
        step = max(1, _BLOCK_CELLS // self.width)
        with safe_open(self._path, framework="numpy") as file:
            rows = file.get_slice("W_dec")
            for start in range(0, self.latents, step):
                stop = min(start + step, self.latents)
                yield slice(start, stop), rows[start:stop]

    @property
    def step(self) -> int:
        """Latents to ask for at once."""
        return max(1, _COSINE_CELLS // self.latents)

    def nearest(self, start: int, stop: int) -> Neighbours:
        """Return the latents whose decoder rows have the largest cosines with those of `start` to
        `stop` - 1, at most `step` of them; of equal cosines the smaller number comes first.

        A row that is zero or not finite has no neighbours and is none.
        """
        with safe_open(self._path, framework="numpy") as file:
            own_nd = file.get_slice("W_dec")[start:stop]
        cosine_ns = np.empty((stop - start, self.latents), np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite
            own_nd = own_nd * self._scale_s[start:stop, None]
            for block, rows_sd in self._blocks():
                cosine_ns[:, block] = (own_nd @ rows_sd.T) * self._scale_s[block]
        none_s = self._scale_s == 0
        cosine_ns[:, none_s] = cosine_ns[none_s[start:stop]] = _NONE
        cosine_ns[np.arange(stop - start), np.arange(start, stop)] = _NONE
        return _largest(cosine_ns)


def _inverse_norms(rows_sd: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / norm of each row, 0 for a row that is zero or not finite."""
    norm_s = np.sqrt(np.einsum("sd,sd->s", rows_sd, rows_sd, dtype=np.float64))
    good_s = np.isfinite(norm_s) & (norm_s > np.finfo(np.float32).tiny)
    return np.where(good_s, 1 / np.where(good_s, norm_s, 1), 0).astype(np.float32)


def _largest(cosine_ns: NDArray[np.float32]) -> Neighbours:
    n, s = cosine_ns.shape
    k = min(MOST, s)
    least_n1 = np.partition(cosine_ns, s - k, axis=1)[:, s - k, None]
    # All that equal the last one when rounded, so that every machine chooses the same.
    row_c, latent_c = np.nonzero(cosine_ns >= np.maximum(least_n1 - 10.0**-_DECIMALS, -1.5))
    order_c = np.lexsort((latent_c, -cosine_ns[row_c, latent_c].round(_DECIMALS), row_c))
    row_c, latent_c = row_c[order_c], latent_c[order_c]
    rank_c = np.arange(len(row_c)) - np.searchsorted(row_c, row_c)
    row_c, latent_c, rank_c = (x_c[rank_c < k] for x_c in (row_c, latent_c, rank_c))
    found = Neighbours(np.full((n, k), -1, np.int32), np.zeros((n, k), np.float32))
    found.index_nk[row_c, rank_c] = latent_c
    found.cosine_nk[row_c, rank_c] = np.clip(cosine_ns[row_c, latent_c], -1, 1)
    return found


class Decoders:
    """The decoders of a results folder. Its methods may be called from several threads."""

    def __init__(self, finished: Finished) -> None:
        self._finished = finished
        self._lock = threading.Lock()
        # Each holds a block of rows and reads the whole file.
        self._reading = threading.BoundedSemaphore(_AT_ONCE)
        self._kept: OrderedDict[tuple[str, str], Decoder] = OrderedDict()

    def open(self, folder: str) -> Decoder:
        """Return the decoder of the finished SAE STAGE/NAME-ID; its norms are kept.

        Raises:
            NotServed: There is no such SAE, or it is damaged.
        """
        if folder.partition("/")[0] not in SAES:
            raise NotServed("no such SAE")
        self._finished.open(folder, WEIGHTS).file.close()  # a finished artifact's, and no link
        key = folder, str(self._finished.manifest(folder)["digest"])
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            with self._reading:
                decoder = Decoder(self._finished.results / folder / WEIGHTS)
        except UserError:
            raise NotServed(f"{folder} is damaged: it has no decoder") from None
        with self._lock:
            self._kept[key] = decoder
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return decoder

    def answer(self, folder: str, latent: int) -> bytes:
        """Return the neighbours of a latent as JSON: {"neighbours": [[latent, cosine], ...]}.

        Raises:
            NotServed: There is no such SAE or latent, or the SAE is damaged.
        """
        decoder = self.open(folder)
        if latent >= decoder.latents:
            raise NotServed(f"{folder} has no latent {latent}: it has 0..{decoder.latents - 1}")
        try:
            with self._reading:
                found = decoder.nearest(latent, latent + 1).of(0)
        except (OSError, SafetensorError):
            raise NotServed(f"{folder} is damaged: its decoder cannot be read") from None
        content: dict[str, Any] = {"neighbours": found}
        return json.dumps(content, separators=(",", ":")).encode()


def neighbour_blocks(decoder: Decoder) -> Iterator[Neighbours]:
    """Yield the neighbours of all latents in order, some latents at a time."""
    for start in range(0, decoder.latents, decoder.step):
        yield decoder.nearest(start, min(start + decoder.step, decoder.latents))


def write_neighbours(path: Path, parts: list[Neighbours]) -> None:
    """Write the neighbours of all latents: a row a latent, lists `latents` and `cosines`."""
    rows = [pairs for part in parts for pairs in map(part.of, range(len(part.index_nk)))]
    table = pa.table(
        {
            "latents": pa.array([[n for n, _ in pairs] for pairs in rows], pa.list_(pa.int32())),
            "cosines": pa.array([[x for _, x in pairs] for pairs in rows], pa.list_(pa.float32())),
        }
    )
    pq.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        write_page_index=True,
        data_page_size=_PAGE_BYTES,
        write_batch_size=_BATCH,
    )
