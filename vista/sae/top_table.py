"""The images at which a vision SAE's latents fire most, as a Parquet table. No torch here.

Image ids and classes may come from anywhere: escape them before showing them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vista.errors import UserError, reason_of

_PAGE_BYTES = 1 << 14
# A page ends only after a batch of values.
_BATCH = 64

_SCHEMA = pa.schema(
    {
        "latent": pa.int32(),
        "rank": pa.int32(),
        "image_id": pa.string(),
        "patch": pa.int32(),
        "activation": pa.float32(),
        "classes": pa.list_(pa.string()),
    }
)


def write_top(path: Path, columns: dict[str, list[Any]]) -> None:
    """Write one row for each latent and top image.

    Columns lie in pages of 16 kB with an index of pages, and `latent` with the least and the
    largest value of each, so that the rows of one latent can be read alone, and over HTTP.

    Args:
        path: The file.
        columns: latent, rank, image_id, patch, activation and classes of each row, by latent, then
            rank.
    """
    pq.write_table(
        pa.table(columns, schema=_SCHEMA),
        path,
        compression="zstd",
        use_dictionary=["rank", "patch", "classes.list.element"],
        write_statistics=["latent"],
        write_page_index=True,
        data_page_size=_PAGE_BYTES,
        write_batch_size=_BATCH,
    )


def read_top(path: Path, latent: int) -> list[dict[str, Any]]:
    """Return the rows of one latent, strongest first.

    Raises:
        UserError: The file is no table that `write_top` wrote.
    """
    try:
        table = pq.read_table(path, filters=[("latent", "=", latent)]).cast(_SCHEMA)
    except (OSError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise UserError(
            f"{path}: not a table of top images ({reason_of(error)}); expected columns "
            f"{', '.join(_SCHEMA.names)} as label_vision_latents writes them"
        ) from error
    rows: list[dict[str, Any]] = table.sort_by("rank").to_pylist()
    return rows
