"""Stage: train an SAE on cached patch features, some of whose latents are told their concept."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from vista.config.base import Settings
from vista.config.guided import GuideSettings
from vista.config.vision_sae import LabelVisionSettings, TrainVisionSaeSettings
from vista.data.records import read_records
from vista.data.wordnet import load_wordnet
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.concepts import annotate, chosen_classes, concepts_of, synsets_of
from vista.inputs.patch_classes import classes_of_patches
from vista.inputs.vision import encoder_block, split_images
from vista.sae.defined import FILE, Defined, write_defined
from vista.stages import train_vision_sae
from vista.store.features import FeatureReader


class TrainGuidedSaeOrder(Settings):
    """How the SAE is trained, what guides it, and its name."""

    sae: TrainVisionSaeSettings
    guide: GuideSettings
    name: str


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Features with their records, and the encoder that they are of, if it is an artifact."""

    features: Artifact
    records: Artifact
    encoder: Artifact | None = None


@stage(TrainGuidedSaeOrder, Inputs)
def run(job: StageJob[TrainGuidedSaeOrder, Inputs]) -> None:
    """Read features and records; write the neutral form, sae/ in sae_lens' format, curve.parquet,
    and defined.json with the concepts of the defined latents, which come first.

    Raises UserError where the split has no image or no class, the guide names what is no class, or
    the dictionary is too small for its settings.
    """
    import pyarrow as pa
    import torch

    from vista.metrics.results import write_parquet
    from vista.sae.convert import from_folder
    from vista.sae.guided import train_guided_sae
    from vista.sae.neutral import save_sae

    torch.set_num_threads(job.threads)
    settings, guide, name, inputs = (
        job.settings.sae,
        job.settings.guide,
        job.settings.name,
        job.inputs,
    )
    key = f"SAE {name}, guide"
    records = read_records(inputs.records.file("records.parquet"))
    features = FeatureReader(inputs.features.store("features.zarr"))
    images, rows = split_images(records, features, settings.split, f"SAE {name}, train.split")
    known = {category for record in records.select(rows) for category in record.categories}
    classes, left_out = chosen_classes(guide, known, settings.seed, key)
    wordnet = load_wordnet(guide.wordnet)
    synset_of = synsets_of([*classes, *left_out], guide.senses, wordnet, key)
    if missing := [each for each in classes if each not in synset_of]:
        print(
            f"{name}: {wordnet.source} lacks {len(missing)} of {len(classes)} classes, which are "
            f"a kind of nothing: {', '.join(missing[:10])}{', ...' * (len(missing) > 10)}",
            file=sys.stderr,
        )
    concepts = concepts_of(classes, left_out, synset_of, wordnet, guide.hypernyms)
    rng = np.random.default_rng(settings.seed)
    annotated = None
    if guide.annotated_images is not None:
        annotated = set(rng.permutation(images)[: guide.annotated_images].tolist())
    reading = LabelVisionSettings(by=guide.by, mask_cover=guide.mask_cover)
    classes_at = classes_of_patches(records, images, rows, inputs.features, reading)
    annotation = annotate(concepts, images, features.shape[1], classes_at, annotated)
    defined = Defined(concepts, tuple(left_out), tuple(annotation.patches().tolist()))
    if guide.shuffle_labels:
        annotation = annotation.shuffled(rng)
    curve = train_guided_sae(
        features,
        images,
        annotation.kind_bp,
        annotation.concepts_um,
        defined.pairs,
        settings,
        guide,
        name,
        job.work / "sae",
    )
    block = encoder_block(inputs.features, inputs.encoder)
    save_sae(job.work, from_folder(job.work / "sae", block, name=name))
    write_parquet(job.work / "curve.parquet", pa.table(curve))
    write_defined(job.work / FILE, defined)


def need(node: Node, shapes: Shapes) -> Need:
    """As the SAE without a guide: the predictor is small beside the dictionary."""
    return train_vision_sae.need(node, shapes)
