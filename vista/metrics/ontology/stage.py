"""Stage: find the synsets of WordNet that latents name."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from vista.config.vision_sae import LabelVisionSettings
from vista.data.records import read_records
from vista.data.wordnet import load_wordnet
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.control_dictionaries import neurons, random_sae
from vista.inputs.patch_classes import classes_of_patches
from vista.inputs.vision import TOP_FILE, SaeDevice, load_vision_sae, sae_block, split_images
from vista.metrics.ontology import OntologySettings
from vista.metrics.ontology.measure import ontology
from vista.metrics.results import read_result, write_result
from vista.store.features import FeatureReader

_ITEMS = pa.schema(
    [
        ("dictionary", pa.string()),
        ("latent", pa.int32()),
        ("synset", pa.string()),
        ("word", pa.string()),
        ("height", pa.int32()),
        ("share", pa.float32()),
        ("images", pa.int32()),
    ]
)


class OntologyOrder(OntologySettings):
    """The settings, and the SAE's device."""

    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE with its check and labels, and the features that it reads with their records."""

    sae: Artifact
    check: Artifact
    labels: Artifact
    features: Artifact
    records: Artifact


@stage(OntologyOrder, Inputs)
def run(job: StageJob[OntologyOrder, Inputs]) -> None:
    """Read WordNet, records, features, a vision SAE and its labels; write result and names.

    Dictionaries: `sae`, whose top images the labels hold; `neurons`, the features' channels; and
    `random`, as many random directions as the SAE has latents, of which as many fire on a patch as
    of the SAE's latents (its check's L0). Top images of the latter two are found by the same rule.
    Classes that WordNet lacks are left out and listed on standard error.

    Raises UserError where the data has no class that WordNet has, `senses` names what is no class,
    or WordNet cannot be read.
    """
    import torch

    from vista.sae.vision_labels import label_places, top_patches

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    labels = LabelVisionSettings.model_validate(inputs.labels.settings["labels"])
    records_path = inputs.records.file("records.parquet")
    records = read_records(records_path)
    wordnet = load_wordnet(settings.wordnet)
    classes = sorted(records.categories())
    if unused := sorted(set(settings.senses) - set(classes)):
        raise UserError(
            f"probing.ontology.senses names {unused[0]!r}, which is no class of the data; remove "
            "it, or write it as the data does"
        )
    synsets = {name: settings.senses.get(name) or wordnet.synset(name) for name in classes}
    synset_of = {name: synset for name, synset in synsets.items() if synset is not None}
    unknown = [name for name in classes if name not in synset_of]
    if not synset_of:
        raise UserError(
            f"{records_path}: {wordnet.source} has none of its {len(classes)} classes"
            f"{''.join(f' ({name!r}, ...)' for name in unknown[:1])}; set probing.ontology.senses, "
            "or wordnet to a folder of WordNet's files, or probing.ontology to null"
        )
    if unknown:
        print(
            f"ontology: {wordnet.source} lacks {len(unknown)} of {len(classes)} classes, which are "
            f"left out: {', '.join(unknown[:10])}{', ...' * (len(unknown) > 10)}",
            file=sys.stderr,
        )
    top = pq.read_table(inputs.labels.file(TOP_FILE)).to_pydict()
    by_latent: list[list[list[str]]] = [[] for _ in range(max(top["latent"], default=-1) + 1)]
    for latent, image_classes in zip(top["latent"], top["classes"], strict=True):
        by_latent[latent].append(image_classes)
    features = FeatureReader(inputs.features.store("features.zarr"))
    sae = load_vision_sae(inputs.sae, features, settings.sae.device)
    images, rows = split_images(
        records, features, labels.split, f"SAE {sae.config.name}, labels.split"
    )
    random = random_sae(sae, round(read_result(inputs.check)["l0"]), settings.seed)
    classes_at = classes_of_patches(records, images, rows, inputs.features, labels)
    controls = {
        name: label_places(top_patches(control, features, images, labels.top_k), classes_at)
        for name, control in (
            ("neurons", neurons(features.shape[2]).to(sae.b_dec.device)),
            ("random", random),
        )
    }
    bootstrap = settings.bootstrap
    result, columns = ontology(
        wordnet.above(synset_of.values()),
        wordnet.names,
        synset_of,
        unknown,
        {"sae": by_latent, **controls},
        purity=settings.purity,
        min_images=labels.min_images,
        permutations=settings.permutations,
        seed=settings.seed,
        bootstrap_seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
        layer=sae_block(sae, inputs.features),
    )
    write_result(job.work, result, pa.table(columns).cast(_ITEMS))
