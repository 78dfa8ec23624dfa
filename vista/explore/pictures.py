"""Heat maps of latents as a PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vista.data.geometry import ImageGeometry
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.errors import UserError, reason_of
from vista.explore.latents import LatentView, images_of, input_there
from vista.foreign.text import one_line
from vista.inputs.latents import read_geometry
from vista.inputs.vision import load_vision_sae
from vista.report.escape import mathtext
from vista.report.heat_panels import COLUMNS, DPI, Panel, draw_panels, note_of
from vista.report.heatmaps import grid_extent
from vista.sae.label_table import LatentLabels
from vista.store.features import FeatureReader


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
    note = _note(view.artifact, view.store.grid)
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
    name = view.label(layer, latent)
    title = f"Top images of latent {latent}, layer {layer}: {name or 'no label'}"
    _save(draw_panels(_in_rows(panels), title, _note(view.artifact, view.store.grid)), path)


def save_vision_maps(
    labels: Artifact, table: LatentLabels, latent: int, image_ids: Sequence[str], path: Path
) -> None:
    """Write a latent of a vision SAE on images, from the SAE's activations on their features.

    Args:
        labels: The labels of the SAE's latents.
        table: Their content.
        latent: The latent.
        image_ids: Ids of the images, as the records of the labels have them.
        path: The PNG file.

    Raises:
        UserError: There is no image; the SAE reads prompts; the results lack the SAE, its features
            or its records; an image or the file cannot be opened.
    """
    import torch

    name = f"latent {latent} of SAE {one_line(table.sae)}"
    if not image_ids:
        raise UserError(f"{name} fires at no image: nothing to draw")
    features, records = (_needed(labels, role) for role in ("features", "records"))
    if features.path.parent.name == "prompt_features":
        raise UserError(f"{name} fires on words of prompts: there is no image to draw")
    reader = FeatureReader(features.store("features.zarr"))
    sae = load_vision_sae(_needed(labels, "sae"), reader)
    content, source, placing = (
        read_records(records.file("records.parquet")),
        images_of(records),
        read_geometry(features),
    )
    rows = content.rows_by_id(image_ids)
    image_of = content.feature_rows()[1]
    panels = []
    for record, image in zip(content.select(rows), image_of[rows], strict=True):
        geometry = ImageGeometry(record.width, record.height, **placing)
        x_pd = torch.from_numpy(np.asarray(reader.read([image])[0], np.float32))
        with torch.no_grad():
            activation_p = sae.encode(x_pd)[:, latent].numpy().astype(np.float64)
        panels.append(
            Panel(
                np.asarray(source.open(record)),
                grid_extent(geometry),
                activation_p.reshape(geometry.grid),
                f"image {mathtext(record.image_id, 16)}",
            )
        )
    title = f"Top images of {name}: {table.label_s[latent] or 'no label'}"
    _save(draw_panels(_in_rows(panels), title, _note(labels, geometry.grid)), path)


def _needed(labels: Artifact, role: str) -> Artifact:
    artifact = input_there(labels, role)
    if artifact is None:
        raise UserError(
            f"{labels.path}: a picture needs its input `{role}`, which these results lack; run the "
            "workflow again"
        )
    return artifact


def _in_rows(panels: list[Panel]) -> list[list[Panel]]:
    return [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]


def _note(artifact: Artifact, grid: tuple[int, int]) -> str:
    return f"{artifact.path.name}. {note_of(grid)}"


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
