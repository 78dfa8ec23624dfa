"""Stored latents for other programs: a Parquet table, and Neuronpedia's files.

Suffixes: b images, t visual tokens, k slots of a token, n active latents, s latents.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vista.errors import UserError, reason_of
from vista.explore.latents import LatentView
from vista.progress import progress
from vista.report.catalogue import named_facts

FORMAT = "vista active latents 1"
# Key of the table's metadata.
METADATA = "vista"
SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("layer", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("column", pa.int32(), nullable=False),
        pa.field("latent", pa.int32(), nullable=False),
        pa.field("activation", pa.float32(), nullable=False),
        # Plain strings: `datasets` refuses Arrow's dictionaries; the file has one all the same.
        pa.field("label", pa.string()),
    ]
)
_IMAGES = 16  # read at a time
_ROWS = 1 << 17  # of a row group: some 4 MB in memory


def write_parquet(view: LatentView, path: Path, layer: int | None = None) -> int:
    """Write one row for each active latent of each visual token.

    Rows are ordered by layer, image, token and slot (strongest first). Memory is that of 16 images
    and a row group, however many images there are.

    Args:
        view: The latents.
        path: The file to write.
        layer: Layer; None: all.

    Returns:
        The number of rows.

    Raises:
        UserError: The file exists or cannot be written; or there is no such layer.
    """
    layers = view.layers(layer)
    _refuse_existing(path)
    about = {"format": FORMAT, **_about(view), "grid": list(view.store.grid)}
    schema = SCHEMA.with_metadata({METADATA: json.dumps(about, sort_keys=True)})

    def write(work: Path) -> int:
        rows, kept, held = 0, list[pa.Table](), 0
        with work.open("xb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for table in _tables(view, layers, schema):
                kept.append(table)
                rows, held = rows + table.num_rows, held + table.num_rows
                if held >= _ROWS:
                    whole, held = pa.concat_tables(kept), held % _ROWS
                    writer.write_table(whole[: len(whole) - held], row_group_size=_ROWS)
                    kept = [whole[len(whole) - held :]]
            if held:
                writer.write_table(pa.concat_tables(kept), row_group_size=_ROWS)
        return rows

    return _written(path, write)


def write_neuronpedia(
    view: LatentView,
    folder: Path,
    layer: int | None = None,
    top: int = 20,
    creator: str | None = None,
) -> int:
    """Write labelled latents as Neuronpedia imports them; see `vista.library.neuronpedia`.

    Args:
        view: The latents.
        folder: The folder to write.
        layer: Layer; None: all.
        top: Images of a latent, 64 at most.
        creator: Id of a user of Neuronpedia; None: the one that it is installed with.

    Returns:
        The number of labelled latents.

    Raises:
        UserError: The folder exists or cannot be written; a layer has no labels; or there is no
            such layer.
    """
    from vista.library.neuronpedia import CREATOR, refuse_top, write_source

    layers = view.layers(layer)
    refuse_top(top)
    _refuse_existing(folder)

    def write(work: Path) -> int:
        work.mkdir()
        return write_source(view, work, layers, top, creator or CREATOR)

    return _written(folder, write)


def _tables(view: LatentView, layers: list[int], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a few images at a layer."""
    ids = pa.array(view.store.image_ids, pa.string())
    parts = [(layer, images) for layer in layers for images in view.store.slices(_IMAGES)]
    for layer, images in progress(parts, desc=f"rows of {view.artifact.path.name}", unit="batch"):
        table = view.labels.get(layer)
        names = pa.nulls(view.store.layers[layer], pa.string())
        if table is not None:
            names = pa.array(table.label_s, pa.string())
        tokens = view.store.tokens(layer, "image", images)
        used_btk = np.arange(tokens.index.shape[-1]) < tokens.nnz[..., None]
        used_btk &= tokens.valid[..., None]
        b_n, t_n, _ = np.nonzero(used_btk)
        latent_n = tokens.index[used_btk].astype(np.int32)
        row_n, column_n = np.divmod(t_n, view.store.grid[1])
        yield pa.table(
            [
                ids.take(pa.array(images.start + b_n)),
                pa.array(np.full(len(b_n), layer, np.int32)),
                pa.array(row_n.astype(np.int32)),
                pa.array(column_n.astype(np.int32)),
                pa.array(latent_n),
                pa.array(tokens.value[used_btk].astype(np.float32)),
                names.take(pa.array(latent_n)),
            ],
            schema=schema,
        )


def _about(view: LatentView) -> dict[str, Any]:
    """Return which artifact the latents are, and of which point."""
    address = f"latents/{view.artifact.path.name}"
    facts = named_facts(address)
    point = {key: facts.get(key) for key in ("encoder", "llm", "sae_weight", "seed", "control")}
    return {"artifact": address, "digest": view.artifact.digest, **point}


def _refuse_existing(path: Path) -> None:
    if path.is_symlink() or path.exists():
        raise UserError(f"{path} exists: remove it, or name another")


def _written(path: Path, write: Callable[[Path], int]) -> int:
    """Have `write` make a file or folder beside `path`, then move it there.

    Raises UserError if that fails; nothing is left then.
    """
    work = path.absolute().with_name(f".{path.name}.unfinished")
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        _removed(work)  # of a run that was killed
        result = write(work)
        work.rename(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {reason_of(error)}") from error
    finally:
        _removed(work)
    return result


def _removed(work: Path) -> None:
    if work.is_dir() and not work.is_symlink():
        shutil.rmtree(work, ignore_errors=True)
    else:
        work.unlink(missing_ok=True)
