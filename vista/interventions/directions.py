"""Directions of concepts as files: what they are in JSON, the unit vectors in safetensors.

Shape legend: c concept, d width of the edited space.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vista.engine.artifacts import Artifact
from vista.errors import UserError

DESCRIPTION = "directions.json"
VECTORS = "directions.safetensors"
# Name of the tensor of directions; those of one block have its number behind a dot.
_DIRECTION = "direction"
Space = Literal["stream", "features"]


@dataclass(frozen=True)
class ConceptDirection:
    """Properties of one concept's direction.

    A concept without one stays in the list with `found` False. `latents` are (layer, latent)
    behind it, the first of them also in `layer`, `latent` and `label` (`layer` alone where a
    direction was fitted after a block; no layer in feature space). `auroc` tells the concept's
    places from the others on the selection split, `n_images` counts its images there, `density` is
    the share of tokens at which the first latent fires, `norm` the length of the vector before it
    was scaled to 1.
    """

    concept: str
    found: bool
    n_images: int
    layer: int | None = None
    latent: int | None = None
    label: str | None = None
    auroc: float | None = None
    density: float | None = None
    norm: float = 0.0
    latents: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Directions:
    """The directions of all concepts: unit rows [c, d], zeros where none was found.

    `space` "stream": added to the residual stream; "features": to the encoder's patch features.
    `further` are directions [c, d] that belong to one block each, for edits after that block.
    """

    method: str
    space: Space
    concepts: tuple[ConceptDirection, ...]
    direction_cd: NDArray[np.float32]
    further: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The concepts, in order."""
        return [concept.concept for concept in self.concepts]


def write_directions(folder: Path, directions: Directions) -> None:
    """Write `directions` into `folder`."""
    from safetensors.numpy import save_file

    described = {
        "method": directions.method,
        "space": directions.space,
        "concepts": [asdict(concept) for concept in directions.concepts],
    }
    text = json.dumps(described, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    tensors = {_DIRECTION: directions.direction_cd} | {
        f"{_DIRECTION}.{layer}": rows_cd for layer, rows_cd in directions.further.items()
    }
    save_file(
        {name: np.ascontiguousarray(rows_cd, np.float32) for name, rows_cd in tensors.items()},
        folder / VECTORS,
    )


def read_directions(artifact: Artifact, width: dict[Space, int]) -> Directions:
    """Read what `write_directions` wrote.

    Args:
        artifact: The directions.
        width: Channels of each space in the models at hand.

    Raises:
        UserError: A file is damaged, or the directions are of another width.
    """
    from safetensors.numpy import load_file

    path = artifact.file(DESCRIPTION)
    described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    tensors = load_file(artifact.file(VECTORS))
    direction_cd = tensors.pop(_DIRECTION)
    space: Space = described["space"]
    if direction_cd.shape[1] != width[space]:
        raise UserError(
            f"{path}: directions have {direction_cd.shape[1]} channels, the models here have "
            f"{width[space]} in the {space}; find directions with these models"
        )
    concepts = [
        ConceptDirection(**{**fields, "latents": tuple((a, b) for a, b in fields["latents"])})
        for fields in described["concepts"]
    ]
    further = {int(name.removeprefix(f"{_DIRECTION}.")): rows for name, rows in tensors.items()}
    return Directions(described["method"], space, tuple(concepts), direction_cd, further)


def summed_rows(rows: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float32], float]:
    """Sum decoder rows [d] after scaling each to 1; the sum scaled to 1, and its length before.

    One row: that row's own length. Zeros and 0 where a row (or the sum) is zero.
    """
    lengths = [float(np.linalg.norm(row.astype(np.float64))) for row in rows]
    total = np.sum(
        [row.astype(np.float64) / (n or 1) for row, n in zip(rows, lengths, strict=True)], axis=0
    )
    length = float(np.linalg.norm(total))
    unit = (total / (length or 1)).astype(np.float32)
    return unit, lengths[0] if len(rows) == 1 else length


def unit_rows(rows_cd: NDArray[Any]) -> NDArray[np.float32]:
    """Scale each row to length 1; rows of zeros stay."""
    length_c1 = np.linalg.norm(rows_cd.astype(np.float64), axis=1, keepdims=True)
    return (rows_cd / np.where(length_c1 > 0, length_c1, 1)).astype(np.float32)
