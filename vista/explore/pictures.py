"""Heat maps of latents as a PNG file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vista.errors import UserError, reason_of
from vista.explore.latents import LatentView
from vista.report import style
from vista.report.escape import mathtext
from vista.report.heatmaps import draw_heat, grid_extent

_COLUMNS = 8
_DPI = 150


def save_image_maps(
    view: LatentView,
    image_id: str,
    path: Path,
    patch: tuple[int, int] | None = None,
    layer: int | None = None,
    top: int = _COLUMNS,
) -> None:
    """Write the strongest latents of an image, or of a patch, on the image: a row a layer.

    Raises:
        UserError: There is no such image, patch or layer; the image or the file cannot be opened.
    """
    place = view.place(image_id)
    token = None if patch is None else view.token(*patch)
    layers = view.layers(layer)
    columns = min(top, _COLUMNS)
    figure, axes = _panels(len(layers), columns)
    for r, shown in enumerate(layers):
        active = view.active(shown, place, token)[:columns]
        for axis, latent in zip(axes[r], active, strict=False):
            _draw(axis, view, shown, place, latent.latent)
        axes[r][0].set_ylabel(f"layer {shown}", fontsize=9, fontweight="bold")
    at = "" if patch is None else f", patch {patch[0]},{patch[1]}"
    title = f"Strongest latents of image {image_id}{at}"
    style.heading(figure, title, f"{view.artifact.path.name}. {_NOTE}")
    _save(figure, path)


def save_latent_maps(view: LatentView, latent: int, layer: int, path: Path, top: int = 16) -> None:
    """Write a latent on its top images, strongest first.

    Raises:
        UserError: There is no such layer or latent; it fires nowhere; an image or the file cannot
            be opened.
    """
    view.layers(layer)
    view.known(layer, latent)
    places = view.store.top(layer, latent).image[:top].tolist()
    if not places:
        raise UserError(f"latent {latent} of layer {layer} fires at no image: nothing to draw")
    columns = min(len(places), _COLUMNS)
    figure, axes = _panels(-(-len(places) // columns), columns)
    for axis, place in zip(axes.flat, places, strict=False):
        _draw(axis, view, layer, place, latent, view.store.image_ids[place])
    name = view.label(layer, latent)
    title = f"Top images of latent {latent}, layer {layer}: {name or 'no label'}"
    style.heading(figure, title, f"{view.artifact.path.name}. {_NOTE}")
    _save(figure, path)


_NOTE = (
    "Activation on each patch, from weak (purple) to its maximum (yellow), which stands below; "
    "grey: silent."
)


def _panels(rows: int, columns: int) -> tuple[Any, Any]:
    pyplot = style.setup()
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(max(1.5 * columns + 0.3, 4.5), 1.8 * rows + 0.9),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    return figure, axes


def _draw(
    axis: Any, view: LatentView, layer: int, place: int, latent: int, name: str | None = None
) -> None:
    source, record = view.images, view.record(place)
    assert record is not None  # without records there is no source either
    image = np.asarray(source.open(record))
    label = f"latent {latent}" if name is None else f"image {mathtext(name, 16)}"
    if name is None and (text := view.label(layer, latent)) is not None:
        label = f"“{mathtext(text, 24)}”\n{label}"
    extent = grid_extent(view.geometry(record))
    draw_heat(axis, image, extent, view.heat_map(layer, place, latent), label)


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, format="png", dpi=_DPI)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {reason_of(error)}") from error
