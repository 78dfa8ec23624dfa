"""Heat maps: where the latent of a class fires on an image, with and without the SAE term."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.config.report import ReportSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.inputs.image_files import image_files
from vista.inputs.latents import class_mask
from vista.inputs.maps import LatentMaps, MapGrid, read_map_grid
from vista.judges.kinds.whole_word import WholeWordJudge
from vista.metrics.localization.measure import own_latents
from vista.report import style
from vista.report.escape import mathtext
from vista.report.inputs import Inputs, LlmPlace, ReportOrder, aligned
from vista.report.shown import Drawing
from vista.sae.label_table import FILE, LatentLabels, read_labels
from vista.store.latents import LatentReader

# Weak to strong; patches where the latent is silent show the image alone.
_COLOUR_MAP = "plasma"
_FAINTEST, _STRONGEST = 0.45, 0.9
_OUTLINE = "#00E5FF"


@dataclass(frozen=True)
class HeatMapRow:
    """One example: an image, a class in it, and its latent's activation for each weight.

    Attributes:
        image: RGB pixels [h, w, 3].
        mask: Pixels of the class [h, w], or None.
        boxes: Boxes (x, y, width, height) of the class, in image px.
        category: Name of the class.
        label: Label of the latent.
        latent: Number of the latent.
        extent: Left, right, bottom, top of the patch grid in image px.
        maps: One activation map [rows, columns] for each weight.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    boxes: Sequence[tuple[float, float, float, float]]
    category: str
    label: str
    latent: int
    extent: tuple[float, float, float, float]
    maps: Sequence[NDArray[np.float64]]


def heat_maps(order: ReportOrder, inputs: Inputs) -> list[Drawing]:
    """Return one drawing for each encoder and LLM, at its first seed, with all its weights.

    Returns an empty list where the settings ask for no examples, or the run has no latents,
    labels, features or records.
    """
    available = inputs.latents and inputs.labels and inputs.features
    if order.report.heatmap_examples == 0 or not available or inputs.records is None:
        return []
    records = read_records(inputs.records.file("records.parquet"))
    open_image = _image_opener(inputs.records, inputs.world, inputs.fetched)
    grids = {
        place.encoder: read_map_grid(artifact)
        for place, artifact in aligned(order.features, inputs.features)
    }
    by_model: dict[tuple[str, str], dict[int, dict[float, Artifact]]] = {}
    for place, artifact in aligned(order.latents, inputs.latents):
        seeds = by_model.setdefault((place.encoder, place.llm), {})
        seeds.setdefault(place.seed, {})[place.sae_weight] = artifact
    labels = aligned(order.labels, inputs.labels)
    drawings = []
    for (encoder, llm), seeds in sorted(by_model.items()):
        seed = min(seeds)
        maps = _HeatMaps(
            title=f"Where named latents fire: {encoder} read by {llm}",
            seed=seed,
            stores=dict(sorted(seeds[seed].items())),
            labels=_labels_of(labels, llm),
            records=records,
            open_image=open_image,
            grid=grids[encoder],
            settings=order.report,
        )
        drawings.append(Drawing(f"heatmaps_{encoder}_{llm}", maps.title, maps.draw))
    return drawings


@dataclass(frozen=True, kw_only=True)
class _HeatMaps:
    """The heat maps of an encoder and an LLM, read when they are drawn.

    Attributes:
        title: Title of the figure.
        seed: Seed of the projectors.
        stores: Artifacts of latents by the projector's weight of the SAE term, sorted.
        labels: Labels of the LLM's latents by layer.
        records: Records of the data.
        open_image: Opens the image of a record.
        grid: Grid of the encoder's maps.
        settings: Settings of the report.
    """

    title: str
    seed: int
    stores: Mapping[float, Artifact]
    labels: Mapping[int, LatentLabels]
    records: RecordTable
    open_image: Callable[[Record], Any]
    grid: MapGrid
    settings: ReportSettings

    def draw(self) -> Any | None:
        """Return the matplotlib figure; None where no layer names a class."""
        readers = [
            LatentReader(artifact.store("latents.zarr")) for artifact in self.stores.values()
        ]
        records = self.records.select(self.records.rows_by_id(readers[0].image_ids))
        categories = sorted({name for record in records for name in record.categories})
        layer, latent_of = self._choose_layer(readers[0], categories)
        if layer is None:
            return None
        candidates = [
            (i, name)
            for i, record in enumerate(records)
            for name in record.categories
            # A crowd is no single object to point at.
            if name in latent_of and _boxes(record, name)
        ]
        maps = [_maps_of(reader, layer, self.grid.frames) for reader in readers]
        rows = []
        for i, category in spread(candidates, self.settings.heatmap_examples):
            record, latent = records[i], latent_of[category]
            rows.append(
                HeatMapRow(
                    image=np.asarray(self.open_image(record)),
                    mask=class_mask(record, category),
                    boxes=_boxes(record, category),
                    category=category,
                    label=self.labels[layer].label_s[latent] or "",
                    latent=latent,
                    extent=self._extent(record),
                    maps=[map_of(record.image_id, latent) for map_of in maps],
                )
            )
        note = (
            f"Layer {layer}, seed {self.seed}. Activation on each patch of the latent that is "
            "named after the class, from weak (purple) to its maximum (yellow), which stands below "
            f"each map; patches where it is silent stay grey. n = {len(rows)} examples, spread "
            "evenly over the classes and not chosen by result; no error bars."
        )
        return heat_map_figure(rows, list(self.stores), self.title, note)

    def _choose_layer(
        self, reader: LatentReader, categories: list[str]
    ) -> tuple[int | None, dict[str, int]]:
        """Return the layer of the settings, or the one that names most classes (lowest first)."""
        judge = WholeWordJudge()
        wanted = self.settings.heatmap_layer
        best: tuple[int | None, dict[str, int]] = (None, {})
        for layer in sorted(set(reader.layers) & set(self.labels)):
            labels = self.labels[layer]
            latent_of = own_latents(labels.label_s, labels.share_s, categories, judge.judge)
            if layer == wanted or (wanted is None and len(latent_of) > len(best[1])):
                best = (layer, latent_of)
        return best

    def _extent(self, record: Record) -> tuple[float, float, float, float]:
        return grid_extent(ImageGeometry(record.width, record.height, **self.grid.placing))


def grid_extent(geometry: ImageGeometry) -> tuple[float, float, float, float]:
    """Return left, right, bottom, top of the patch grid in px; pixel centres at integers."""
    left, top, _, _ = geometry.patch_to_box(0)
    x, y, width, height = geometry.patch_to_box(geometry.n_patches - 1)
    return (left - 0.5, x + width - 0.5, y + height - 0.5, top - 0.5)


def _boxes(record: Record, category: str) -> list[tuple[float, float, float, float]]:
    """Return the boxes of a class's objects, without crowds."""
    objects = [item for item in record.objects if item.category == category and not item.crowd]
    return [item.box for item in objects]


def _maps_of(
    reader: LatentReader, layer: int, frames: int
) -> Callable[[str, int], NDArray[np.float64]]:
    """Return a function from an image's id and a latent to its map [rows, columns]."""
    maps = LatentMaps(reader, layer, frames)
    places = {image: place for place, image in enumerate(reader.image_ids)}
    return lambda image, latent: maps(places[image], latent).reshape(maps.shape)


def _labels_of(labels: Sequence[tuple[LlmPlace, Artifact]], llm: str) -> dict[int, LatentLabels]:
    tables = [read_labels(artifact.file(FILE)) for place, artifact in labels if place.llm == llm]
    return {table.layer: table for table in tables}


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


def spread(candidates: Sequence[tuple[int, str]], count: int) -> list[tuple[int, str]]:
    """Choose (image, class) examples evenly over the candidates, each class at most once.

    The choice looks at no result: it takes every m-th class in the order of first appearance.
    """
    first: dict[str, tuple[int, str]] = {}
    for image, category in candidates:
        first.setdefault(category, (image, category))
    pool = list(first.values())
    if len(pool) <= count:
        return pool
    return [pool[i * len(pool) // count] for i in range(count)]


def heat_map_figure(
    rows: Sequence[HeatMapRow], weights: Sequence[float], title: str, note: str
) -> Any | None:
    """Draw image, outline and heat maps, one example a row.

    Each map has its own colour scale from 0 to its largest activation, which stands on it.
    """
    if not rows:
        return None
    pyplot = style.setup()
    # Two examples side by side, where there are enough: a page is wider than high.
    blocks = 2 if len(rows) >= 4 else 1
    columns, height = 2 + len(weights), -(-len(rows) // blocks)
    figure, axes = pyplot.subplots(
        height,
        blocks * columns,
        figsize=(1.5 * blocks * columns + 0.3, 1.72 * height + 0.9),
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.02)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for i, row in enumerate(rows):
        block, r = divmod(i, height)
        here = axes[r, block * columns : (block + 1) * columns]
        here[0].imshow(row.image, interpolation="nearest")
        here[0].set_ylabel(mathtext(row.category, 24), fontsize=9, fontweight="bold")
        faint = (row.image.astype(np.float64) * 0.45 + 255 * 0.55).astype(np.uint8)
        here[1].imshow(faint, interpolation="nearest")
        _outline(here[1], row, "#0072B2", 1.6)
        for axis, activation in zip(here[2:], row.maps, strict=True):
            _heat(axis, row, activation)
        if r == 0:
            here[0].set_title("image")
            here[1].set_title("mask" if row.mask is not None else "box")
            for axis, weight in zip(here[2:], weights, strict=True):
                axis.set_title(f"λ = {weight:g}")
    style.heading(figure, title, note)
    return figure


def draw_heat(
    axis: Any,
    image: NDArray[np.uint8],
    extent: tuple[float, float, float, float],
    activation: NDArray[np.float64],
    label: str,
) -> None:
    """Draw a latent's activation on an image, in its own scale from 0 to the maximum, which stands
    below with the label.

    Args:
        axis: The matplotlib panel.
        image: RGB pixels [h, w, 3].
        extent: Left, right, bottom, top of the patch grid in image px.
        activation: Activation on each patch [rows, columns].
        label: Text below the image, which the maximum follows.
    """
    import matplotlib

    grey = image.mean(axis=2) * 0.7 + 30
    peak = float(activation.max())
    share = activation / peak if peak > 0 else np.zeros_like(activation)
    colours = matplotlib.colormaps[_COLOUR_MAP](share)
    colours[..., 3] = np.where(share > 0, _FAINTEST + (_STRONGEST - _FAINTEST) * share, 0.0)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.imshow(colours, extent=extent, interpolation="nearest")
    height, width = image.shape[:2]
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    says = f"max {peak:.2g}" if peak > 0 else "silent"
    axis.set_xlabel(f"{label}, {says}", fontsize=7, labelpad=2)


def _heat(axis: Any, row: HeatMapRow, activation: NDArray[np.float64]) -> None:
    label = f"“{mathtext(row.label, 24)}”\nlatent {row.latent}"
    draw_heat(axis, row.image, row.extent, activation, label)
    _outline(axis, row, _OUTLINE, 1.2)


def _outline(axis: Any, row: HeatMapRow, colour: str, width: float) -> None:
    if row.mask is not None and row.mask.any() and not row.mask.all():
        for xs, ys in _mask_edges(row.mask):
            axis.plot(xs, ys, color=colour, linewidth=width, solid_capstyle="round")
        return
    from matplotlib.patches import Rectangle

    # Pixel centres lie on whole numbers, so pixel 0 begins at -0.5.
    for x, y, w, h in row.boxes:
        axis.add_patch(
            Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor=colour, linewidth=width)
        )


def _mask_edges(mask_hw: NDArray[np.bool_]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the pixel edges of a mask as two poly-lines with gaps: horizontal and vertical."""
    padded = np.pad(mask_hw, 1)
    rows, columns = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    gap = np.full(len(rows), np.nan)
    horizontal = (
        np.stack([columns - 0.5, columns + 0.5, gap], axis=1).reshape(-1),
        np.stack([rows - 0.5, rows - 0.5, gap], axis=1).reshape(-1),
    )
    rows, columns = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    gap = np.full(len(rows), np.nan)
    vertical = (
        np.stack([columns - 0.5, columns - 0.5, gap], axis=1).reshape(-1),
        np.stack([rows - 0.5, rows + 0.5, gap], axis=1).reshape(-1),
    )
    return [horizontal, vertical]
