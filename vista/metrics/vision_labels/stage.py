"""Stage: score the labels of a vision SAE's latents on held-out images."""

from __future__ import annotations

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
from vista.inputs.image_vectors import image_latents
from vista.inputs.vision import (
    STEERING_FILE,
    SaeDevice,
    load_vision_sae,
    sae_block,
    split_images,
)
from vista.metrics.object_names import presence
from vista.metrics.results import write_result
from vista.metrics.vision_labels.measure import (
    EMBEDDING,
    STEERING,
    TOP_IMAGES,
    compare_labellers,
)
from vista.sae.label_table import FILE, read_labels
from vista.store.features import FeatureReader

# Images whose latents are in memory at once.
_IMAGES = 1024


class VisionLabelsOrder(Settings):
    """What labels are scored on, and the SAE's device."""

    split: Split
    min_images: int = Field(ge=1)
    bootstrap: BootstrapSettings = Field(default_factory=BootstrapSettings)
    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE, its labels by top images and by steering, and the features that it reads with
    their records."""

    sae: Artifact
    labels: Artifact
    steering: Artifact
    features: Artifact
    records: Artifact


@stage(VisionLabelsOrder, Inputs)
def run(job: StageJob[VisionLabelsOrder, Inputs]) -> None:
    """Read vision SAE, both tables of labels, features and records; write the result, and
    items.parquet with the label and the AUROC of each latent and labeller.

    Labellers are compared on the latents that were steered.

    Raises UserError where the split has no image, or labels or features are of another SAE.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    features = FeatureReader(inputs.features.store("features.zarr"))
    sae = load_vision_sae(inputs.sae, features, settings.sae.device)
    tables = {
        labeller: read_labels(artifact.file(FILE)).label_s
        for labeller, artifact in ((TOP_IMAGES, inputs.labels), (STEERING, inputs.steering))
    }
    for labeller, label_s in tables.items():
        if len(label_s) != sae.config.d_sae:
            raise UserError(
                f"the labels by {labeller} are of {len(label_s)} latents, SAE {sae.config.name} "
                f"has {sae.config.d_sae}; give the labels of this SAE"
            )
    steered = pq.read_table(inputs.steering.file(STEERING_FILE))
    latent_l = steered.column("latent").to_numpy().astype(np.int64)
    labels: dict[str, list[str | None]] = {
        labeller: [label_s[latent] for latent in latent_l.tolist()]
        for labeller, label_s in tables.items()
    }
    labels[EMBEDDING] = steered.column("nearest").to_pylist()
    images, rows = split_images(records, features, settings.split, "probing.vision_labels.split")
    objects = [record.categories for record in records.select(rows)]
    classes, present_nc = presence(objects)
    score_nl = np.concatenate(
        [
            image_latents(sae, features, images[start : start + _IMAGES])[:, latent_l]
            for start in range(0, len(images), _IMAGES)
        ]
    )
    bootstrap = settings.bootstrap
    result, auroc = compare_labellers(
        score_nl,
        present_nc,
        classes,
        labels,
        settings.min_images,
        bootstrap.seed,
        bootstrap.resamples,
        bootstrap.level,
        sae_block(sae, inputs.features),
    )
    columns = {
        "latent": pa.array(np.tile(latent_l, len(auroc)), pa.int32()),
        "labeller": pa.array(np.repeat(list(auroc), len(latent_l)).tolist(), pa.string()),
        "label": pa.array(
            [label for name in auroc for label in labels.get(name, [None] * len(latent_l))],
            pa.string(),
        ),
        "auroc": pa.array(np.concatenate(list(auroc.values())), from_pandas=True),
    }
    write_result(job.work, result, pa.table(columns))
