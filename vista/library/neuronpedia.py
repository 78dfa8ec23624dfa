"""Labelled latents with the images that they fire at, in the files that Neuronpedia imports.

A folder MODEL/SOURCE a layer, as in Neuronpedia's bucket of exports: model.jsonl, release.jsonl,
sourceset.jsonl and source.jsonl, and gzipped JSON lines in explanations/, features/ and
activations/. A file's keys are columns of a table of Neuronpedia's database (Model, Explanation,
Neuron, Activation); what is left out has a default there. `vista.sae.neuronpedia` reads the labels.

An activation is of an image: its tokens are the patches, named r0c0, r0c1, ... by row and column.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vista.errors import UserError
from vista.explore.latents import LatentView
from vista.progress import progress
from vista.report.catalogue import named_facts
from vista.sae.label_table import LatentLabels
from vista.sae.neuronpedia import EXPLANATIONS, FEATURES

ACTIVATIONS = "activations"
# The user that Neuronpedia's own import names as the creator; its database is seeded with it.
CREATOR = "clkht01d40000jv08hvalcvly"
_BATCH = 512  # latents of a file, which Neuronpedia reads whole
_MOST = 64  # images that the store keeps of a latent

Row = Mapping[str, Any]


def write_source(
    view: LatentView, folder: Path, layers: Iterable[int], top: int, creator: str
) -> int:
    """Write the sources of some layers into an empty folder.

    Returns:
        The number of labelled latents.

    Raises:
        UserError: A layer has no labels.
    """
    labelled = 0
    for layer in layers:
        table = view.labels.get(layer)
        if table is None or not any(table.label_s):
            raise UserError(
                f"{view.artifact.path}: layer {layer} has no labels in these results; run the "
                "labelling stage, or name another layer"
            )
        labelled += _Source(view, layer, table, creator).write(folder, top)
    return labelled


class _Source:
    """One layer's latents: a source in Neuronpedia's terms."""

    def __init__(self, view: LatentView, layer: int, table: LatentLabels, creator: str) -> None:
        self.view, self.layer, self.table, self.creator = view, layer, table, creator
        folder = view.artifact.path.name
        self.set = folder.rpartition("-")[0]
        facts = named_facts(f"latents/{folder}")
        self.model = str(facts.get("llm", self.set))
        self.id = f"{layer}-{self.set}"
        rows, columns = view.store.grid
        self.tokens = [f"r{row}c{column}" for row in range(rows) for column in range(columns)]

    def write(self, folder: Path, top: int) -> int:
        """Write all files; return the number of labelled latents."""
        place = folder / self.model / self.id
        place.mkdir(parents=True)
        for name, row in self._heads():
            (place / f"{name}.jsonl").write_text(_line(row), encoding="utf-8")
        labels = self.table.label_s
        latents = progress(range(len(labels)), desc=f"latents of {self.id}", unit="latent")
        for number in range(-(-len(labels) // _BATCH)):
            with ExitStack() as stack:
                files = {}
                for kind in (EXPLANATIONS, FEATURES, ACTIVATIONS):
                    (place / kind).mkdir(exist_ok=True)
                    path = place / kind / f"batch-{number}.jsonl.gz"
                    raw = stack.enter_context(path.open("xb"))
                    # Without a name and a time: the same latents give the same bytes.
                    file = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
                    files[kind] = stack.enter_context(file)
                for latent in islice(latents, _BATCH):
                    for kind, row in self._rows(latent, top):
                        files[kind].write(_line(row).encode())
        next(latents, None)  # the last line of the progress
        return sum(label is not None for label in labels)

    def _heads(self) -> Iterator[tuple[str, Row]]:
        own = {"creatorId": self.creator}
        named = {**own, "creatorName": "VISTA", "visibility": "PUBLIC"}
        about = f"SAE latents at visual tokens: {self.set}"
        release = f"vista-{self.set}"
        yield "release", {"name": release, "description": about, "urls": [], **named}
        yield (
            "model",
            {
                "id": self.model,
                "displayName": self.model,
                "displayNameShort": self.model,
                "layers": max(self.view.store.layers) + 1,
                "neuronsPerLayer": 0,
                "owner": "",
                "visibility": "PUBLIC",
                **own,
            },
        )
        of_model = {"modelId": self.model}
        head = {**of_model, "name": self.set, "description": about, "urls": []}
        yield "sourceset", {**head, "releaseName": release, **named}
        notes = f"{self.view.artifact.path.name}, digest {self.view.artifact.digest}"
        source = {**of_model, "id": self.id, "setName": self.set, "notes": notes}
        yield "source", {**source, "visibility": "PUBLIC", **own}

    def _rows(self, latent: int, top: int) -> Iterator[tuple[str, Row]]:
        """Yield the rows of a latent, each with the folder that it belongs to."""
        key = {"modelId": self.model, "layer": self.id, "index": str(latent)}
        label = self.table.label_s[latent]
        strongest = self.view.store.top(self.layer, latent)
        yield (
            FEATURES,
            {
                **key,
                "sourceSetName": self.set,
                "creatorId": self.creator,
                "maxActApprox": max(map(float, strongest.value), default=0.0),
                "frac_nonzero": float(self.table.density_s[latent]),
            },
        )
        if label is None:
            return
        yield (
            EXPLANATIONS,
            {
                "id": self._id("explanation", latent),
                **key,
                "description": label,
                "authorId": self.creator,
                "typeName": None,
                "explanationModelName": None,
            },
        )
        images = strongest.image[:top].tolist()
        if not images:
            return
        entries = self.view.store.by_latent(self.layer, latent)
        for image in images:
            here = entries.image == image
            value_t = np.zeros(len(self.tokens))
            value_t[entries.token[here]] = entries.value[here]
            yield (
                ACTIVATIONS,
                {
                    "id": self._id("activation", latent, image),
                    **key,
                    "tokens": self.tokens,
                    "values": value_t.tolist(),
                    "maxValue": float(value_t.max()),
                    "maxValueTokenIndex": int(value_t.argmax()),
                    "minValue": float(value_t.min()),
                    "dataSource": f"latents/{self.view.artifact.path.name}",
                    "dataIndex": self.view.store.image_ids[image],
                    "creatorId": self.creator,
                },
            )

    def _id(self, kind: str, *numbers: int) -> str:
        """Return a key of a row that no other artifact's rows have."""
        text = json.dumps([kind, self.view.artifact.digest, self.id, *numbers])
        return f"v{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def refuse_top(top: int) -> None:
    """Refuse a number of images that the store does not keep. Raises UserError."""
    if not 1 <= top <= _MOST:
        raise UserError(f"`top` is {top}: give 1 to {_MOST} images of a latent")


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
