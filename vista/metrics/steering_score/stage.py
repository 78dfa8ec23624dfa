"""Stage: score what a language model says of a steered blank image by the latents' top images.

Shape legend: n image, l steered latent, c class, v width of the other encoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from vista.config.base import Settings
from vista.config.data import Split
from vista.config.metrics import BootstrapSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.image_vectors import image_means
from vista.inputs.vision import STEERING_FILE, TOP_FILE, split_images
from vista.judges.words import phrase_table
from vista.metrics.results import write_result
from vista.metrics.steering_score.measure import steering_score
from vista.sae.label_table import FILE, read_labels
from vista.store.features import FeatureReader

# The question and the unsteered answer, beside the answers.
_BLANK_FILE = "blank.json"


class SteeringScoreOrder(Settings):
    """What answers are embedded by."""

    split: Split
    min_images: int = Field(ge=1)
    bootstrap: BootstrapSettings = Field(default_factory=BootstrapSettings)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The answers to steered blank images, the SAE's labels by top images, the records, and
    `other`: the features of the encoder that embeds images."""

    steering: Artifact
    labels: Artifact
    features: Artifact
    other: Artifact
    records: Artifact


@stage(SteeringScoreOrder, Inputs)
def run(job: StageJob[SteeringScoreOrder, Inputs]) -> None:
    """Read answers, labels, records and another encoder's features; write the result, and
    items.parquet with answer, label and cosine of each latent.

    Raises UserError where no class is in enough images of the split, or the other encoder's
    features lack a top image.
    """
    from vista.inputs.steered_answers import first_name

    settings, inputs = job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    other = FeatureReader(inputs.other.store("features.zarr"))
    names = sorted(records.categories())
    images, rows = split_images(records, other, settings.split, "probing.steering_score.split")
    image_nv = image_means(other, images).astype(np.float64)
    centre_v = image_nv.mean(axis=0)
    shown = [record.categories for record in records.select(rows)]
    showing = {name: np.array([name in of_image for of_image in shown]) for name in names}
    classes = [name for name in names if showing[name].sum() >= settings.min_images]
    if not classes:
        raise UserError(
            f"probing.steering_score: no class is in {settings.min_images} images of split "
            f"{settings.split!r}; name another split, or a smaller min_images"
        )
    class_cv = np.stack([image_nv[showing[name]].mean(axis=0) - centre_v for name in classes])
    steered = pq.read_table(inputs.steering.file(STEERING_FILE)).to_pydict()
    latents: list[int] = steered["latent"]
    table = read_labels(inputs.labels.file(FILE))
    phrases = phrase_table({name: [name] for name in names})
    answers = [first_name(text, phrases) for text in steered["answer"]]
    labels = [table.label_s[latent] for latent in latents]
    blank = json.loads(inputs.steering.file(_BLANK_FILE).read_text(encoding="utf-8"))["answer"]
    bootstrap = settings.bootstrap
    result, cosine_l = steering_score(
        answers,
        first_name(blank, phrases),
        labels,
        classes,
        class_cv,
        _top_means(inputs.labels, other, latents) - centre_v,
        (bootstrap.seed, bootstrap.resamples, bootstrap.level),
        table.layer,
    )
    columns = {
        "latent": pa.array(latents, pa.int32()),
        "answer": pa.array(steered["answer"], pa.string()),
        "named": pa.array(answers, pa.string()),
        "label": pa.array(labels, pa.string()),
        "cosine": pa.array(cosine_l, pa.float64()),
    }
    write_result(job.work, result, pa.table(columns))


def _top_means(
    labels: Artifact, other: FeatureReader, latents: list[int]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the mean embedding of each latent's top images, [l, v]."""
    top = pq.read_table(labels.file(TOP_FILE), columns=["latent", "image_id"]).to_pydict()
    wanted = set(latents)
    images_of: dict[int, list[str]] = {latent: [] for latent in latents}
    for latent, image_id in zip(top["latent"], top["image_id"], strict=True):
        if latent in wanted:
            images_of[latent].append(image_id)
    row_of = {image_id: row for row, image_id in enumerate(other.image_ids)}
    needed = sorted({image_id for images in images_of.values() for image_id in images})
    if (missing := next((name for name in needed if name not in row_of), None)) is not None:
        raise UserError(
            f"the features of the encoder that judges lack image {missing!r}; run the workflow "
            "again so that both encoders' features are of the same images"
        )
    order = sorted(needed, key=row_of.__getitem__)
    image_nv = image_means(other, np.array([row_of[name] for name in order], dtype=np.int64))
    place = {name: n for n, name in enumerate(order)}
    return np.stack(
        [
            image_nv[[place[name] for name in images_of[latent]]].mean(axis=0, dtype=np.float64)
            for latent in latents
        ]
    )
