"""Stage: measure how deep in WordNet the common ancestor of each latent's top images lies."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.parquet as pq

from vista.data.records import read_records
from vista.data.wordnet import load_wordnet
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.vision import TOP_FILE, SaeDevice, group_ends
from vista.metrics.lca_depth import LcaDepthSettings
from vista.metrics.lca_depth.measure import lca_depth
from vista.metrics.results import write_result
from vista.sae.label_table import FILE, read_labels


class LcaDepthOrder(LcaDepthSettings):
    """The settings; the SAE itself is not run."""

    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE with its labels, and the records."""

    sae: Artifact
    labels: Artifact
    records: Artifact


@stage(LcaDepthOrder, Inputs)
def run(job: StageJob[LcaDepthOrder, Inputs]) -> None:
    """Read WordNet, records, and the top images of a vision SAE's labels; write result and depths.

    Raises UserError where WordNet has no class of the data, or cannot be read.
    """
    settings, inputs = job.settings, job.inputs
    wordnet = load_wordnet(settings.wordnet)
    classes = sorted(read_records(inputs.records.file("records.parquet")).categories())
    synsets = {name: settings.senses.get(name) or wordnet.synset(name) for name in classes}
    synset_of = {name: synset for name, synset in synsets.items() if synset is not None}
    if not synset_of:
        raise UserError(
            f"probing.lca_depth: {wordnet.source} has none of the data's {len(classes)} classes; "
            "set probing.lca_depth.senses, or wordnet to a folder of WordNet's files"
        )
    table = read_labels(inputs.labels.file(FILE))
    top = pq.read_table(inputs.labels.file(TOP_FILE)).to_pydict()
    by_latent: list[list[list[str]]] = [[] for _ in table.label_s]
    for latent, image_classes in zip(top["latent"], top["classes"], strict=True):
        by_latent[latent].append(image_classes)
    bootstrap = settings.bootstrap
    result, columns = lca_depth(
        wordnet.above(synset_of.values()),
        synset_of,
        [name for name in classes if name not in synset_of],
        by_latent,
        group_ends(inputs.sae, len(by_latent)),
        min_images=settings.min_images,
        permutations=settings.permutations,
        seed=settings.seed,
        draws=(bootstrap.seed, bootstrap.resamples, bootstrap.level),
        layer=table.layer,
    )
    write_result(job.work, result, columns)
