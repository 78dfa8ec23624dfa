"""Heat maps of latents as a PNG file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vista.errors import UserError, reason_of
from vista.explore.latents import LatentView
from vista.report.escape import mathtext
from vista.report.heat_panels import COLUMNS, DPI, NOTE, Panel, draw_panels
from vista.report.heatmaps import grid_extent


def save_image_maps(
    view: LatentView,
    image_id: str,
    path: Path,
    patch: tuple[int, int] | None = None,
    layer: int | None = None,
    top: int = COLUMNS,
) -> None:
    """Write the strongest latents of an image, or of a patch, on the image: a row a layer.

    Raises:
        UserError: There is no such image, patch or layer; the image or the file cannot be opened.
    """
    place = view.place(image_id)
    token = None if patch is None else view.token(*patch)
    layers = view.layers(layer)
    rows = [
        [
            _panel(view, shown, place, active.latent)
            for active in view.active(shown, place, token)[: min(top, COLUMNS)]
        ]
        for shown in layers
    ]
    at = "" if patch is None else f", patch {patch[0]},{patch[1]}"
    title = f"Strongest latents of image {image_id}{at}"
    note = f"{view.artifact.path.name}. {NOTE}"
    _save(draw_panels(rows, title, note, [f"layer {shown}" for shown in layers]), path)


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
    panels = [_panel(view, layer, place, latent, view.store.image_ids[place]) for place in places]
    rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    name = view.label(layer, latent)
    title = f"Top images of latent {latent}, layer {layer}: {name or 'no label'}"
    _save(draw_panels(rows, title, f"{view.artifact.path.name}. {NOTE}"), path)


def _panel(view: LatentView, layer: int, place: int, latent: int, name: str | None = None) -> Panel:
    source, record = view.images, view.record(place)
    assert record is not None  # without records there is no source either
    label = f"latent {latent}" if name is None else f"image {mathtext(name, 16)}"
    if name is None and (text := view.label(layer, latent)) is not None:
        label = f"“{mathtext(text, 24)}”\n{label}"
    extent = grid_extent(view.geometry(record))
    image = np.asarray(source.open(record))
    return Panel(image, extent, view.heat_map(layer, place, latent), label)


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, format="png", dpi=DPI)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {reason_of(error)}") from error
