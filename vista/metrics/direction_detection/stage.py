"""Stage: measure how well projections on fitted directions detect a class.

Legend of shape suffixes: b image, p visual token, d LLM width, c class, n sampled token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.latents import read_geometry
from vista.inputs.visual_tokens import VisualTokens, read_visual_tokens, visual_streams
from vista.interventions.selection import BoolArray, image_rng
from vista.metrics.direction_detection import DirectionDetectionSettings
from vista.metrics.direction_detection.measure import Tokens, detect
from vista.metrics.results import write_result
from vista.progress import progress

if TYPE_CHECKING:
    from vista.language.model import LanguageModel


class DirectionDetectionOrder(Settings):
    """The language model, how directions are fitted and scored, and at which blocks."""

    llm: LanguageSettings
    direction_detection: DirectionDetectionSettings
    layers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, and the models."""

    projector: Artifact
    features: Artifact
    records: Artifact
    llm: Artifact | None = None


@stage(DirectionDetectionOrder, Inputs)
def run(job: StageJob[DirectionDetectionOrder, Inputs]) -> None:
    """Read projector, features, records and LLM; write the result, and items.parquet with the AUROC
    of each class by method and block (-1: all blocks).

    Raises UserError where a split has no image, or no class is in enough images.
    """
    import torch

    from vista.inputs.models import load_llm

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.direction_detection, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    llm = load_llm(job.settings.llm, inputs.llm)
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    placing = read_geometry(inputs.features)
    names = sorted(records.categories())
    fit, test = (
        _sampled(
            llm,
            visual,
            records,
            _rows(records, settings, key),
            names,
            placing,
            job.settings.layers,
            settings,
        )
        for key in ("fit_split", "split")
    )
    bootstrap = settings.bootstrap
    try:
        result, columns = detect(
            names,
            fit,
            test,
            settings.methods,
            stacked=settings.stacked,
            min_images=settings.min_images,
            regularisation=settings.regularisation,
            seed=settings.seed,
            bootstrap_seed=bootstrap.seed,
            resamples=bootstrap.resamples,
            level=bootstrap.level,
        )
    except ValueError as error:
        raise UserError(
            f"metrics.direction_detection: {error}; choose larger splits, or a smaller min_images"
        ) from error
    write_result(job.work, result, columns)


def _rows(
    records: RecordTable, settings: DirectionDetectionSettings, key: str
) -> NDArray[np.int64]:
    """Return the images of a split, ascending; at most as many as the settings allow."""
    rows = records.rows_of(getattr(settings, key))
    if not len(rows):
        raise UserError(
            f"metrics.direction_detection.{key}: the data has no image of split "
            f"{getattr(settings, key)!r}; name another split"
        )
    return np.sort(np.random.default_rng(settings.seed).permutation(rows)[: settings.max_images])


def _sampled(
    llm: LanguageModel,
    visual: VisualTokens,
    records: RecordTable,
    rows: NDArray[np.int64],
    names: Sequence[str],
    placing: dict[str, Any],
    layers: Sequence[int],
    settings: DirectionDetectionSettings,
) -> Tokens:
    """Return sampled tokens of images: patches of objects, and as many others at most."""
    import torch

    parts: dict[int, list[NDArray[Any]]] = {layer: [] for layer in layers}
    positives, image_n = [], []
    size = settings.batch_size
    for first in progress(range(0, len(rows), size), desc="stream", unit="batch"):
        batch = rows[first : first + size]
        with torch.no_grad():
            streams = visual_streams(llm, visual.of(batch), layers)
        x_bpd = {layer: stream.float().cpu().numpy() for layer, stream in streams.items()}
        for b, record in enumerate(records.select(batch)):
            patches_cp = class_boxes_of(
                record, names, ImageGeometry(record.width, record.height, **placing)
            )
            rng = image_rng(settings.seed, record.image_id)
            inside_p = patches_cp.any(axis=0)
            taken = np.sort(
                np.concatenate(
                    [
                        rng.permutation(np.flatnonzero(side_p))[: settings.patches_per_image]
                        for side_p in (inside_p, ~inside_p)
                    ]
                )
            )
            for layer in layers:
                parts[layer].append(x_bpd[layer][b, taken])
            positives.append(patches_cp[:, taken])
            image_n += [first + b] * len(taken)
    x_nd = {layer: np.concatenate(part) for layer, part in parts.items()}
    return Tokens(x_nd, np.concatenate(positives, axis=1), np.array(image_n, dtype=np.int64))


def class_boxes_of(record: Record, names: Sequence[str], geometry: ImageGeometry) -> BoolArray:
    """Return which patches the boxes of each class touch, [c, p]."""
    place = {name: c for c, name in enumerate(names)}
    patches_cp = np.zeros((len(names), geometry.n_patches), dtype=bool)
    for item in record.objects:
        patches_cp[place[item.category]] |= geometry.box_to_patches(item.box)
    return patches_cp
