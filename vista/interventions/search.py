"""What the search for directions starts from: concepts, images of the selection split, places.

Legend of shape suffixes: b image, p patch token, u place (patch or image), c concept, n firing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vista.config.edits import DirectionSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import RecordTable, reference
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.interventions.selection import BoolArray
from vista.judges import Judge

if TYPE_CHECKING:
    from vista.language.model import LanguageModel
    from vista.sae.label_table import LatentLabels
    from vista.store.latents import LatentReader


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


@dataclass(frozen=True, kw_only=True)
class SearchInputs:
    """The input artifacts of a search: `records`, `features`, and those that the method reads
    (`vista.interventions.method.DirectionMethod.reads`).

    `labels` are a list, one artifact a layer, for latents of the language model's SAEs, and one
    artifact for those of a vision SAE. `check` and `checks` are not read: the search waits until
    they have passed.
    """

    records: Artifact
    features: Artifact
    latents: Artifact | None = None
    labels: Artifact | list[Artifact] | None = None
    saes: list[Artifact] = field(default_factory=list)
    checks: list[Artifact] = field(default_factory=list)
    vision_sae: Artifact | None = None
    check: Artifact | None = None
    llm: Artifact | None = None
    projector: Artifact | None = None
    judge: Artifact | None = None


@dataclass(frozen=True)
class Loaders:
    """How input artifacts are opened: functions that other stages use, too.

    Attributes:
        geometry: Gives the patch grid behind some features, as `ImageGeometry` takes it.
        latents: Opens the store of an artifact of latents.
        layer_labels: Gives the labels of each layer of an artifact of latents and its store.
        llm: Loads the language model of the search.
        llm_width: Gives the width of that model; reads no weights.
    """

    geometry: Callable[[Artifact], dict[str, Any]]
    latents: Callable[[Artifact], LatentReader]
    layer_labels: Callable[[Sequence[Artifact], Artifact, LatentReader], dict[int, LatentLabels]]
    llm: Callable[[], LanguageModel]
    llm_width: Callable[[], int]


@dataclass(frozen=True)
class Search:
    """What a method finds directions with.

    inputs: the input artifacts; records: of all images; judge: says which label (words: and which
    reference caption) names which concept.
    """

    inputs: SearchInputs
    settings: DirectionSettings
    records: RecordTable
    judge: Judge
    loaders: Loaders

    def select(self, extra: Sequence[str] = (), rows: Sequence[int] | None = None) -> Selection:
        """The concepts (and those of `extra` where the config lists none) on the selection split.

        `rows` gives the images where a store has settled their order.

        Raises:
            UserError: The split has no image, or `rows` are of another one.
        """
        settings, records = self.settings, self.records
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
            present = self.judge.judge([reference(record) for record in shown], names)
            return Selection(names, chosen, present, None)
        shape = self.loaders.geometry(self.inputs.features)
        column = {name: c for c, name in enumerate(names)}
        parts = []
        for record in shown:
            geometry = ImageGeometry(record.width, record.height, **shape)
            patches_cp = np.zeros((len(names), geometry.n_patches), dtype=bool)
            for item in record.objects:
                if item.category in column:
                    patches_cp[column[item.category]] |= geometry.box_to_patches(item.box)
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
