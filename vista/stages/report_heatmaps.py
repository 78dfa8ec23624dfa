"""Choose the examples of the report's heat maps, and read their pixels, masks and activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vista.config.report import ReportSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.inputs.image_files import image_files
from vista.inputs.latents import LatentMaps, class_mask, read_geometry
from vista.judges.kinds.whole_word import WholeWordJudge
from vista.metrics.localization.measure import own_latents
from vista.report.heatmaps import HeatMapRow, heat_map_figure, spread
from vista.report.shown import Drawing
from vista.sae.label_table import FILE, LatentLabels, read_labels
from vista.stages.report_inputs import Inputs, LlmPlace, ReportOrder, aligned
from vista.store.latents import LatentReader


def heat_map_figures(order: ReportOrder, inputs: Inputs) -> list[Drawing]:
    """Return one drawing for each encoder and LLM, at its first seed, with all its weights."""
    available = inputs.latents and inputs.labels and inputs.features
    if order.report.heatmap_examples == 0 or not available or inputs.records is None:
        return []
    records = read_records(inputs.records.file("records.parquet"))
    open_image = _image_opener(inputs.records, inputs.world, inputs.fetched)
    geometries = {
        place.encoder: read_geometry(artifact)
        for place, artifact in aligned(order.features, inputs.features)
    }
    by_model: dict[tuple[str, str], dict[int, dict[float, Artifact]]] = {}
    for place, artifact in aligned(order.latents, inputs.latents):
        seeds = by_model.setdefault((place.encoder, place.llm), {})
        seeds.setdefault(place.seed, {})[place.sae_weight] = artifact
    labels = aligned(order.labels, inputs.labels)
    drawings: list[Drawing] = []
    for (encoder, llm), seeds in sorted(by_model.items()):
        seed = min(seeds)
        drawings.append(
            Drawing(
                f"heatmaps_{encoder}_{llm}",
                f"Where named latents fire: {encoder} read by {llm}",
                _Drawer(
                    title=f"Where named latents fire: {encoder} read by {llm}",
                    seed=seed,
                    stores=seeds[seed],
                    labels=_labels_of(labels, llm),
                    records=records,
                    open_image=open_image,
                    geometry=geometries[encoder],
                    settings=order.report,
                ),
            )
        )
    return drawings


class _Drawer:
    """Draws one figure when it is called."""

    def __init__(
        self,
        *,
        title: str,
        seed: int,
        stores: dict[float, Artifact],
        labels: dict[int, LatentLabels],
        records: RecordTable,
        open_image: Callable[[Record], Any],
        geometry: dict[str, Any],
        settings: ReportSettings,
    ) -> None:
        self._title, self._seed, self._settings = title, seed, settings
        self._stores, self._labels = dict(sorted(stores.items())), labels
        self._records, self._open_image, self._geometry = records, open_image, geometry

    def __call__(self) -> Any | None:
        readers = {
            weight: LatentReader(artifact.store("latents.zarr"))
            for weight, artifact in self._stores.items()
        }
        first = next(iter(readers.values()))
        shown = self._records.select(self._records.rows_by_id(first.image_ids))
        categories = sorted({name for record in shown for name in record.categories})
        layer, latent_of = self._choose_layer(first, categories)
        if layer is None:
            return None
        candidates = [
            (i, name)
            for i, record in enumerate(shown)
            for name in record.categories
            # A crowd is no single object to point at.
            if name in latent_of
            and any(item.category == name and not item.crowd for item in record.objects)
        ]
        maps = {weight: LatentMaps(reader, layer) for weight, reader in readers.items()}
        places = {weight: _places(reader) for weight, reader in readers.items()}
        rows = []
        for i, category in spread(candidates, self._settings.heatmap_examples):
            record, latent = shown[i], latent_of[category]
            rows.append(
                HeatMapRow(
                    image=np.asarray(self._open_image(record)),
                    mask=class_mask(record, category),
                    boxes=[
                        item.box
                        for item in record.objects
                        if item.category == category and not item.crowd
                    ],
                    category=category,
                    label=self._labels[layer].label_s[latent] or "",
                    latent=latent,
                    extent=self._extent(record),
                    maps=[
                        maps[weight](places[weight][record.image_id], latent).reshape(reader.grid)
                        for weight, reader in readers.items()
                    ],
                )
            )
        note = (
            f"Layer {layer}, seed {self._seed}. Activation on each patch of the latent that is "
            "named after the class, from weak (purple) to its maximum (yellow), which stands below "
            f"each map; patches where it is silent stay grey. n = {len(rows)} examples, spread "
            "evenly over the classes and not chosen by result; no error bars."
        )
        return heat_map_figure(rows, list(readers), self._title, note)

    def _choose_layer(
        self, reader: LatentReader, categories: list[str]
    ) -> tuple[int | None, dict[str, int]]:
        """Return the layer of the settings, or the one that names most classes (lowest first)."""
        judge = WholeWordJudge()
        wanted = self._settings.heatmap_layer
        best: tuple[int | None, dict[str, int]] = (None, {})
        for layer in sorted(set(reader.layers) & set(self._labels)):
            labels = self._labels[layer]
            latent_of = own_latents(labels.label_s, labels.share_s, categories, judge.judge)
            if layer == wanted or (wanted is None and len(latent_of) > len(best[1])):
                best = (layer, latent_of)
        return best

    def _extent(self, record: Record) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the patch grid in image px; pixel centres at integers."""
        geometry = ImageGeometry(record.width, record.height, **self._geometry)
        left, top, _, _ = geometry.patch_to_box(0)
        x, y, width, height = geometry.patch_to_box(geometry.n_patches - 1)
        return (left - 0.5, x + width - 0.5, y + height - 0.5, top - 0.5)


def _labels_of(labels: Sequence[tuple[LlmPlace, Artifact]], llm: str) -> dict[int, LatentLabels]:
    tables = [read_labels(artifact.file(FILE)) for place, artifact in labels if place.llm == llm]
    return {table.layer: table for table in tables}


def _places(reader: LatentReader) -> dict[str, int]:
    return {image: place for place, image in enumerate(reader.image_ids)}


def _image_opener(
    records: Artifact, world: Artifact | None, fetched: Artifact | None
) -> Callable[[Record], Any]:
    """Return a function that opens the image of a record; files of a drawn world are verified."""
    source = image_files(records, world, fetched)
    if world is None:
        return source.open

    def open_verified(record: Record) -> Any:
        world.file(f"images/{record.path}")
        return source.open(record)

    return open_verified
