"""A latent of a vision SAE in a terminal: its labels, its neighbours and its top images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from vista.data.geometry import ImageGeometry
from vista.engine.artifacts import MANIFEST, Artifact, open_artifact
from vista.engine.lineage import parents_of, read_manifest
from vista.errors import UserError
from vista.explore.decoders import WEIGHTS, Decoder
from vista.explore.latents import input_there
from vista.explore.terminal import neighbour_lines
from vista.inputs.latents import read_geometry
from vista.inputs.vision import STEERING_FILE, TOP_FILE
from vista.report.escape import clean
from vista.report.grid import Grid, Name, number
from vista.sae.label_table import FILE, read_labels
from vista.sae.top_table import read_top

STAGES = ("label_vision_latents", "label_guided_latents")
_STEERING = "label_by_steering"
_FEATURES = ("features", "combine_features")
_LONGEST = 40


def is_vision_labels(folder: Path) -> bool:
    """Return whether a folder is an artifact of labels of a vision SAE's latents."""
    return (read_manifest(folder) or {}).get("stage") in STAGES


def show_vision_latent(folder: Path, latent: int, top: int = 16, save: Path | None = None) -> str:
    """Return what is known of one latent of a vision SAE: its labels, neighbours and top images.

    Args:
        folder: An artifact of one of `STAGES`.
        latent: Number of the latent.
        top: Images that are shown.
        save: PNG file of the latent on them; None: they are not drawn.

    Raises:
        UserError: There is no such latent, `top` is not positive, an artifact is damaged, or the
            picture cannot be drawn.
    """
    if top < 1:
        raise UserError("--top must be 1 or more")
    artifact = open_artifact(folder)
    table = read_labels(artifact.file(FILE))
    if not 0 <= latent < (size := len(table.label_s)):
        raise UserError(f"SAE {clean(table.sae)} has no latent {latent}: it has 0..{size - 1}")
    label, share = table.label_s[latent], number(float(table.share_s[latent]), 2)
    tokens = _tokens_in_row(artifact)
    what = "class tokens" if tokens == 1 else "patches"
    lines = [
        f"latent {latent} of SAE {clean(table.sae)}",
        f"label: none (the most frequent class is in {share} of its top images)"
        if label is None
        else f"label: {clean(label, 200)} (in {share} of its top images)",
        *_steered(artifact, latent),
        f"fires on {number(float(table.density_s[latent]), 4)} of {table.tokens} {what}",
        *neighbour_lines(_neighbours(artifact, latent), table.label_s.__getitem__),
        "",
    ]
    shown = read_top(artifact.file(TOP_FILE), latent)[:top]
    rows = [
        [
            Name(clean(row["image_id"], _LONGEST)),
            number(row["activation"]),
            _place(row["patch"], tokens),
            Name(clean(", ".join(row["classes"]), _LONGEST) or "-"),
        ]
        for row in shown
    ]
    head = ("image", "activation", "patch", "classes")
    lines += [Grid(head, rows).text() if rows else "It fires at no image.", ""]
    if save is not None:
        from vista.explore.pictures import save_vision_maps

        save_vision_maps(artifact, table, latent, [row["image_id"] for row in shown], save)
        lines.append(f"Written: {save}")
    return "\n".join(lines)


def _neighbours(labels: Artifact, latent: int) -> list[tuple[int, float]]:
    """Return the nearest latents by decoder row; none where the results lack the SAE."""
    sae = input_there(labels, "sae")
    return [] if sae is None else Decoder(sae.file(WEIGHTS)).nearest(latent, latent + 1).of(0)


def _tokens_in_row(labels: Artifact) -> int | None:
    """Return how many tokens a row of the patch grid has, 1 where an image has one token; None
    where the results lack the features."""
    for path in parents_of(labels.manifest).get("features", []):
        folder, stage = labels.path.absolute().parents[1] / path, path.partition("/")[0]
        # Features of prompts have no grid.
        if stage in _FEATURES and (folder / MANIFEST).is_file():
            placing = read_geometry(open_artifact(folder, stage))
            return ImageGeometry(1, 1, **placing).grid[1]
    return None


def _place(patch: int, tokens: int | None) -> str:
    if tokens == 1:
        return "image"
    return str(patch) if tokens is None else ",".join(map(str, divmod(patch, tokens)))


def _steered(labels: Artifact, latent: int) -> Iterator[str]:
    """Yield a line for each artifact of labels by steering of the same SAE."""
    sae = labels.inputs.get("sae")
    for manifest in sorted((labels.path.absolute().parents[1] / _STEERING).glob(f"*/{MANIFEST}")):
        content = read_manifest(manifest.parent) or {}
        inputs = content.get("inputs")
        if not isinstance(inputs, dict) or sae is None or inputs.get("sae") != sae:
            continue
        name = manifest.parent.name.rpartition("-")[0]
        path = open_artifact(manifest.parent, _STEERING).file(STEERING_FILE)
        for row in pq.read_table(path, filters=[("latent", "=", latent)]).to_pylist():
            label = "none" if row["label"] is None else clean(row["label"], 200)
            yield (
                f"label by steering, {clean(name)}: {label} (gain {number(row['gain'], 2)} nats a "
                f"token at coefficient {row['coefficient']:g}: {json.dumps(clean(row['answer']))})"
            )
