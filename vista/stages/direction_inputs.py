"""What the search for directions starts from: concepts, images of the selection split, places.

Legend of shape suffixes: b image, p patch token, u place (patch or image), c concept, n firing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.artifacts import Job
from vista.config.interventions import DirectionSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import RecordTable, reference
from vista.errors import UserError
from vista.interventions.selection import BoolArray
from vista.judges import Judge
from vista.stages.latent_inputs import read_geometry


@dataclass(frozen=True)
class Selection:
    """The concepts, and the images of the selection split that directions are chosen on.

    `present_bc` says which concepts are in which image; `patches_cbp` where their boxes lie, None
    for words, which have no place in an image.
    """

    names: list[str]
    rows: list[int]
    present_bc: BoolArray
    patches_cbp: BoolArray | None

    @property
    def positive_cu(self) -> BoolArray:
        """At which places (patches, or images) each concept is."""
        if self.patches_cbp is None:
            return self.present_bc.T
        return self.patches_cbp.reshape(len(self.names), -1)


def select(
    job: Job,
    settings: DirectionSettings,
    records: RecordTable,
    judge: Judge,
    extra: Sequence[str] = (),
    rows: Sequence[int] | None = None,
) -> Selection:
    """The concepts (and those of `extra` where the config lists none) on the selection split.

    `judge` says which captions name a concept that is a word. `rows` gives the images where a
    store has settled their order.
    """
    concepts = settings.concepts
    chosen = records.rows_of(settings.split).tolist() if rows is None else list(rows)
    if not chosen:
        raise UserError(f"directions.split: the data has no image of split {settings.split!r}")
    shown = records.select(chosen)
    wrong = sorted({record.split for record in shown} - {settings.split})
    if wrong:
        raise UserError(
            f"directions.split is {settings.split!r}, but the latents are of {wrong[0]!r}; "
            "encode the latents of the selection split"
        )
    names = list(concepts.words) or sorted({*records.categories(), *extra})
    if concepts.kind == "words":
        present = judge.judge([reference(each) for each in shown], names)
        return Selection(names, chosen, present, None)
    shape = read_geometry(job.input("features"))
    column = {name: c for c, name in enumerate(names)}
    parts = []
    for record in shown:
        geometry = ImageGeometry(record.width, record.height, **shape)
        patches_cp = np.zeros((len(names), geometry.n_patches), dtype=bool)
        for each in record.objects:
            if each.category in column:
                patches_cp[column[each.category]] |= geometry.box_to_patches(each.box)
        parts.append(patches_cp)
    patches_cbp = np.stack(parts, axis=1)
    present_bc: BoolArray = np.any(patches_cbp, axis=2).T
    return Selection(names, chosen, present_bc, patches_cbp)


def firings_at(
    place_n: NDArray[np.int64], value_n: NDArray[Any], n_patches: int, selection: Selection
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Firings at patches; for concepts without a place, the strongest one of each image."""
    value_n = value_n.astype(np.float64)
    if selection.patches_cbp is not None:
        return place_n, value_n
    image_n, inverse = np.unique(place_n // n_patches, return_inverse=True)
    strongest = np.zeros(len(image_n))
    np.maximum.at(strongest, inverse, value_n)
    return image_n, strongest
