"""The arrays of a latent store: names, shapes, types, units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vista.errors import UserError
from vista.store.arrays import Array, ArraySpec
from vista.store.files import read_json
from vista.store.slots import SlotSpec
from vista.store.tree import META, grid_coordinates, image_spec

FORMAT = "vista latents 2"
# Stores without blocks of slots and without histograms, which are still read.
_FORMER = "vista latents 1"
IMAGE_TOKENS = "image"
BY_LATENT = "by_latent"
# Arrays of a layer and token kind, in the order in which they are written.
COLUMNS = ("index", "value", "nnz", "error", "norm2")
# Those with a slot axis, of which the first `nnz` are in use.
SLOT_COLUMNS = ("index", "value")
# With totals only; stores of earlier versions have none.
TOTAL2 = "total2"


def layer_group(layer: int, kind: str) -> str:
    """Return the path of the group of a layer and token kind."""
    return f"layer_{layer:02d}/{kind}"


def kind_group(kind: str) -> str:
    """Return the path of the group of what all layers of a token kind share."""
    return f"tokens/{kind}"


def format_of(path: Path) -> str:
    """Return the format of the store at `path` if it is the former one, else the present one."""
    try:
        return _FORMER if read_json(path / META)["attributes"]["format"] == _FORMER else FORMAT
    except (UserError, KeyError, TypeError):
        return FORMAT


def unsigned_for(largest: int) -> np.dtype[Any]:
    """Return uint16 where it holds `largest`, else uint32."""
    return np.dtype("uint16" if largest < 1 << 16 else "uint32")


def root_attributes(
    grid: tuple[int, int],
    layers: Mapping[int, int],
    kinds: Mapping[str, int],
    k: Mapping[int, int],
) -> dict[str, Any]:
    """Return the attributes of the store's root group, from which a reader knows its sizes."""
    return {
        "format": FORMAT,
        "grid": list(grid),
        "layers": {str(layer): d_sae for layer, d_sae in layers.items()},
        "kinds": dict(kinds),
        "k": {str(layer): slots for layer, slots in k.items()},
    }


def coordinates(
    image_ids: Sequence[str],
    grid: tuple[int, int],
    layers: Mapping[int, int],
    kinds: Mapping[str, int],
) -> dict[str, tuple[ArraySpec, Array]]:
    """Return the coordinates by path: image ids in every group, row and column for image tokens.

    They are not stored once at the root: xarray refuses a group `image` below a group with a
    coordinate `image`, and a group that has its own labels can be opened alone.
    """
    images = image_spec(len(image_ids)), np.array(image_ids, dtype=object)
    by_path: dict[str, tuple[ArraySpec, Array]] = {}
    for kind in kinds:
        of_kind = {"image": images, **(grid_coordinates(grid) if kind == IMAGE_TOKENS else {})}
        for group in [kind_group(kind), *(layer_group(layer, kind) for layer in layers)]:
            by_path.update({f"{group}/{name}": coordinate for name, coordinate in of_kind.items()})
    return by_path


def valid_spec(shape_bt: tuple[int, int], chunk: int, shard: int) -> ArraySpec:
    """Return the spec of `valid` [image, token]: whether a token is there."""
    attributes = {"units": "1", "long_name": "the image has this token"}
    return ArraySpec(
        shape_bt, np.dtype("bool"), ("image", "token"), chunk, shard, attributes=attributes
    )


def column_specs(
    shape_btk: tuple[int, int, int],
    d_sae: int,
    d_model: int | None,
    kind: str,
    chunk: int,
    shard: int,
    block: int,
) -> dict[str, ArraySpec]:
    """Return the specs of one layer and token kind; `total` and `total2` where d_model is given.

    Where there are more than `block` slots, they are split into blocks.
    """

    def spec(dtype: Any, axes: int, units: str, long_name: str) -> ArraySpec:
        attributes = {"units": units, "long_name": long_name}
        if kind == IMAGE_TOKENS:
            attributes["coordinates"] = "row column"
        dims, shape = ("image", "token", "slot")[:axes], shape_btk[:axes]
        shared = (shape, np.dtype(dtype), dims, chunk, shard)
        if axes == 3 and block < shape_btk[2]:
            return SlotSpec(*shared, attributes=attributes, block=block)
        return ArraySpec(*shared, attributes=attributes)

    specs = {
        "index": spec(unsigned_for(d_sae - 1), 3, "latent", "latent in the slot"),
        "value": spec("float16", 3, "activation", "activation of the latent in the slot"),
        "nnz": spec(unsigned_for(shape_btk[2]), 2, "latent", "slots in use"),
        "error": spec(
            "float32",
            2,
            "activation^2",
            "mean over channels of (SAE(x) - x)^2, x = residual stream",
        ),
        "norm2": spec("float32", 2, "activation^2", "mean over channels of x^2"),
    }
    if d_model is not None:
        specs["total"] = ArraySpec(
            (specs["index"].shards, d_model),
            np.dtype("float64"),
            ("shard", "channel"),
            chunk=1,
            shard=1,
            attributes={
                "units": "activation",
                "long_name": "sum of x over the valid tokens of the shard's images",
            },
        )
        images = shape_btk[:1]
        specs[TOTAL2] = ArraySpec(
            images,
            np.dtype("float64"),
            ("image",),
            chunk=shard,
            shard=shard,
            attributes={
                "units": "activation^2",
                "long_name": "mean over channels of (sum of x over the image's valid tokens)^2",
            },
        )
    return specs


def mean_spec(d_model: int) -> ArraySpec:
    """Return the spec of the mean of the residual stream over the valid tokens [channel]."""
    attributes = {"units": "activation", "long_name": "mean of x over the valid tokens"}
    return ArraySpec(
        (d_model,), np.dtype("float64"), ("channel",), d_model, d_model, attributes=attributes
    )
