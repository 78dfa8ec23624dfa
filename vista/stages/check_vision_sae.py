"""Stage: measure how well a vision SAE explains held-out images; fail where a bound is broken."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from vista.config.base import Settings
from vista.config.vision_sae import CheckVisionSaeSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import encoding_need, vision_sae
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.vision import SaeDevice, load_vision_sae, sae_block, split_images
from vista.metrics.figure import Figure
from vista.metrics.sae_check import VISION_FIGURES, check_figures
from vista.store.features import FeatureReader


class CheckVisionSaeOrder(Settings):
    """The bounds, and the SAE's device."""

    check: CheckVisionSaeSettings
    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE, and the features that it reads with their records."""

    sae: Artifact
    features: Artifact
    records: Artifact


@stage(CheckVisionSaeOrder, Inputs)
def run(job: StageJob[CheckVisionSaeOrder, Inputs]) -> None:
    """Read vision SAE, features and records; write result.json (see vista.sae.check.SaeCheck) and
    its rows.

    Raises UserError naming SAE and figure where a bound is broken, where the split has no image,
    and where the SAE reads features of another width.
    """
    import torch

    from vista.metrics.results import figures_table, write_parquet
    from vista.sae.check import enforce_bounds, measure_on
    from vista.sae.patches import read_patches

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.check, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    features = FeatureReader(inputs.features.store("features.zarr"))
    sae = load_vision_sae(inputs.sae, features, job.settings.sae.device)
    images, _ = split_images(
        records, features, settings.split, f"SAE {sae.config.name}, check.split"
    )
    chosen = np.random.default_rng(settings.seed).permutation(images)
    chosen = np.sort(chosen[: -(-settings.patches // features.shape[1])])
    check = measure_on(sae, read_patches(features, chosen, sae.dense_rows))
    source = inputs.features.settings["encoder"]["source"]
    encoder = source.get("family", source["kind"])
    enforce_bounds(check, settings, encoder, key="check", tokens="patches")
    layer = sae_block(sae, inputs.features)
    expansion = check.d_sae / sae.config.d_in
    rows = [
        *check_figures(check.model_dump(), VISION_FIGURES, layer),
        Figure("vision_sae_expansion", layer=layer, value=expansion, n=check.d_sae),
    ]
    write_parquet(job.work / "rows.parquet", figures_table(rows))
    text = json.dumps(check.model_dump(), sort_keys=True, indent=1, allow_nan=False)
    (job.work / "result.json").write_text(text + "\n", encoding="utf-8")


def need(node: Node, shapes: Shapes) -> Need:
    """Held-out patches encoded and decoded."""
    size = vision_sae(node, shapes)
    if size is None:
        return UNKNOWN
    flops = 4.0 * size.d * size.s * node.settings["check"]["patches"]
    return encoding_need(node, shapes, SMALL, flops)
