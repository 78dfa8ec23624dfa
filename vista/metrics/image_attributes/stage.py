"""Stage: propose latents of a vision SAE as attributes of images, name and verify them.

A latent is proposed if it fires on some images and not on most. It is named by a word of its top
images' captions, or by a judge that sees these images, and ranked on other images. A proposal
is verified if it separates the held-out images that have its word in captions or annotations (the
captions of the drawn world are complete).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vista.data.records import Record, read_records
from vista.diffusion.attributes import drawn_attributes, words_of
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.control_dictionaries import neurons, random_sae
from vista.inputs.image_files import image_files
from vista.inputs.image_vectors import image_latents
from vista.inputs.judge import stage_namer, write_tally
from vista.inputs.latent_names import names_by_images
from vista.inputs.vision import SaeDevice, load_vision_sae, sae_block, split_images
from vista.metrics.discovery import Proposal, attribute_discovery
from vista.metrics.image_attributes import ImageAttributeSettings
from vista.metrics.image_attributes.measure import (
    Captioned,
    ImageAttributesResult,
    discover,
    frequent_words,
    numbered,
    true_values,
)
from vista.metrics.results import read_result, write_result
from vista.metrics.selectivity import most_varying, word_matrix
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from vista.sae.neutral import SparseAutoencoder

_KEY = "probing.image_attributes"
_ITEMS = pa.schema(
    [
        ("dictionary", pa.string()),
        ("rank", pa.int32()),
        ("latent", pa.int32()),
        ("name", pa.string()),
        ("attribute", pa.string()),
        ("auroc", pa.float64()),
    ]
)


class ImageAttributesOrder(ImageAttributeSettings):
    """The settings, and the SAE's device."""

    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE with its check, and the features that it reads with their records; where a judge
    names latents, the images and its model."""

    sae: Artifact
    check: Artifact
    features: Artifact
    records: Artifact
    world: Artifact | None = None
    fetched: Artifact | None = None
    judge: Artifact | None = None


@stage(ImageAttributesOrder, Inputs)
def run(job: StageJob[ImageAttributesOrder, Inputs]) -> None:
    """Read vision SAE, its check, features and records (and images, if a judge names latents);
    write the result and items.parquet: the proposals of each dictionary in the order of their rank,
    with the attribute of which their name is a value, and the held-out AUROC.

    Raises UserError where a split has no image, or too few images have a value of an attribute.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    features = FeatureReader(inputs.features.store("features.zarr"))
    sae = load_vision_sae(inputs.sae, features, settings.sae.device)
    rng = np.random.default_rng(settings.seed)
    images, rows, words_in = {}, {}, {}
    for key in ("fit_split", "rank_split", "split"):
        stored, kept = split_images(records, features, getattr(settings, key), f"{_KEY}.{key}")
        drawn = np.sort(rng.permutation(len(stored))[: settings.images])
        images[key], rows[key] = stored[drawn], kept[drawn]
        words_in[key] = [words_of_record(record) for record in records.select(rows[key])]
    words = frequent_words(words_in["fit_split"], settings.min_images)
    truth = true_values(settings.attributes or drawn_attributes(records.categories()), words)
    if not truth:
        raise UserError(
            f"{_KEY}.attributes: captions and classes of {len(images['fit_split'])} images name no "
            f"value of an attribute {settings.min_images} times; give `attributes` their words"
        )
    namer = stage_namer(settings.judge, inputs.judge, job.work) if settings.judge else None
    proposed: dict[str, tuple[list[Proposal], list[Proposal]]] = {}

    def propose(name: str, dictionary: SparseAutoencoder, shares: tuple[float, float]) -> None:
        score_ns = {key: image_latents(dictionary, features, images[key]) for key in images}
        options: dict[str, Any] = {"top_k": settings.top_k, "min_images": settings.min_images}
        options |= {"words": words, "most": settings.proposals}
        if namer is not None:
            fit_ns = score_ns["fit_split"]
            chosen = most_varying(fit_ns, shares, settings.min_images, settings.judged_latents)
            source = image_files(inputs.records, inputs.world, inputs.fetched)
            names = names_by_images(source, namer, records, rows["fit_split"], fit_ns, chosen)
            options["words"], options["name_s"] = numbered(names, chosen, fit_ns.shape[1])
        splits = [
            Captioned(score_ns[key], word_matrix(words_in[key], options["words"])) for key in images
        ]
        permuted = [split.permuted(rng) for split in splits]
        best = options | {"shares": shares}
        proposed[name] = discover(*splits, **best), discover(*permuted, **best)
        if name == "sae":
            options |= {"most": len(proposed[name][0]), "at_random": rng}
            proposed["random_latents"] = (
                discover(*splits, **options),
                discover(*permuted, **options),
            )

    shares = settings.min_share, settings.max_share
    k = round(read_result(inputs.check)["l0"])
    propose("sae", sae, shares)
    propose("random", random_sae(sae, k, settings.seed), shares)
    # Zero has no meaning for a channel, nor has the share of images that it is positive on.
    propose("neurons", neurons(sae.config.d_in), (0.0, 1.0))
    result = ImageAttributesResult(
        images={key: len(rows_n) for key, rows_n in images.items()},
        layer=sae_block(sae, inputs.features),
        dictionaries={
            name: attribute_discovery(
                *proposals,
                truth,
                min_auroc=settings.min_auroc,
                min_gain=1.0,  # nothing is steered
                level=settings.bootstrap.level,
            )
            for name, proposals in proposed.items()
        },
    )
    attribute_of = {value: name for name, values in truth.items() for value in values}
    items = [
        (dictionary, rank, item.latent, item.name, attribute_of.get(str(item.name)), item.auroc)
        for dictionary, (unpermuted, _) in proposed.items()
        for rank, item in enumerate(unpermuted)
    ]
    columns = [list(column) for column in zip(*items, strict=True)] or [[] for _ in _ITEMS]
    write_result(job.work, result, pa.table(columns, names=_ITEMS.names).cast(_ITEMS))
    if namer is not None:
        write_tally(job.work, namer)


def words_of_record(record: Record) -> set[str]:
    """Return the words of a record's captions and of its objects' classes."""
    return {word for text in (*record.captions, *record.categories) for word in words_of(text)}
