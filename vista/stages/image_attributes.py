"""Stage: propose latents of a vision SAE that vary between images as attributes, name and verify
them.

Proposed are latents that fire on some images and not on most, named by a word of their top images'
captions or by a judge that looks at these, and ranked on other images. A proposal is verified if it
separates held-out images that have its word, as captions and annotations tell it (the drawn world's
captions tell all that there is).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vista.config.probing import ImageAttributeSettings
from vista.data.records import Record, read_records
from vista.diffusion.attributes import drawn_attributes, words_of
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.metrics.attributes import Proposal, attribute_discovery
from vista.metrics.image_attributes import (
    ImageAttributesResult,
    Seen,
    discover,
    frequent_words,
    most_varying,
    numbered,
    true_values,
    word_matrix,
)
from vista.stages.judged_names import names_by_images
from vista.stages.judging import stage_namer, write_tally
from vista.stages.results import read_result, write_result
from vista.stages.vision_inputs import load_vision_sae, probing_settings, sae_block, split_images
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


def run(job: Job) -> None:
    """Read vision SAE, its check, features and records (where a judge names, images too); write the
    result and items.parquet: the proposals of each dictionary in the order of their rank, with the
    attribute whose value their name is and the held-out AUROC.

    Raises UserError where a split has no image, or no value of an attribute is said of enough
    images.
    """
    import torch

    from vista.stages.image_level import image_latents, neurons, random_sae

    torch.set_num_threads(job.threads)
    settings, device = probing_settings(job, ImageAttributeSettings)
    records = read_records(job.input("records").file("records.parquet"))
    features = FeatureReader(job.input("features").store("features.zarr"))
    sae = load_vision_sae(job.input("sae"), features, device)
    rng = np.random.default_rng(settings.seed)
    images, rows, said = {}, {}, {}
    for key in ("fit_split", "rank_split", "split"):
        stored, kept = split_images(records, features, getattr(settings, key), f"{_KEY}.{key}")
        drawn = np.sort(rng.permutation(len(stored))[: settings.images])
        images[key], rows[key] = stored[drawn], kept[drawn]
        said[key] = [said_of(record) for record in records.select(rows[key])]
    words = frequent_words(said["fit_split"], settings.min_images)
    truth = true_values(settings.attributes or drawn_attributes(records.categories()), words)
    if not truth:
        raise UserError(
            f"{_KEY}.attributes: captions and classes of {len(said['fit_split'])} images name no "
            f"value of an attribute {settings.min_images} times; give `attributes` their words"
        )
    namer = stage_namer(job, settings.judge) if settings.judge else None
    found: dict[str, tuple[list[Proposal], list[Proposal]]] = {}

    def propose(name: str, dictionary: SparseAutoencoder, shares: tuple[float, float]) -> None:
        score_ns = {key: image_latents(dictionary, features, images[key]) for key in images}
        options: dict[str, Any] = {"top_k": settings.top_k, "min_images": settings.min_images}
        options |= {"words": words, "most": settings.proposals}
        if namer is not None:
            fit_ns = score_ns["fit_split"]
            chosen = most_varying(fit_ns, shares, settings.min_images, settings.judged_latents)
            names = names_by_images(job, namer, records, rows["fit_split"], fit_ns, chosen)
            options["words"], options["name_s"] = numbered(names, chosen, fit_ns.shape[1])
        told = [Seen(score_ns[key], word_matrix(said[key], options["words"])) for key in images]
        permuted = [each.permuted(rng) for each in told]
        best = options | {"shares": shares}
        found[name] = discover(*told, **best), discover(*permuted, **best)
        if name == "sae":
            options |= {"most": len(found[name][0]), "at_random": rng}
            found["random_latents"] = discover(*told, **options), discover(*permuted, **options)

    shares = settings.min_share, settings.max_share
    k = round(read_result(job.input("check"))["l0"])
    propose("sae", sae, shares)
    propose("random", random_sae(sae, k, settings.seed), shares)
    # A channel has no zero of its own, so the share of images that it fires on says nothing.
    propose("neurons", neurons(sae.config.d_in), (0.0, 1.0))
    bootstrap = settings.bootstrap
    result = ImageAttributesResult(
        images={key: len(each) for key, each in images.items()},
        layer=sae_block(sae, job.input("features")),
        dictionaries={
            name: attribute_discovery(
                *each,
                truth,
                min_auroc=settings.min_auroc,
                min_gain=1.0,  # nothing is steered
                seed=bootstrap.seed,
                resamples=bootstrap.resamples,
                level=bootstrap.level,
            )
            for name, each in found.items()
        },
    )
    attribute_of = {value: name for name, values in truth.items() for value in values}
    items = [
        (dictionary, rank, each.latent, each.name, attribute_of.get(str(each.name)), each.auroc)
        for dictionary, (proposals, _) in found.items()
        for rank, each in enumerate(proposals)
    ]
    columns = [list(column) for column in zip(*items, strict=True)] or [[] for _ in _ITEMS]
    write_result(job, result, pa.table(columns, names=_ITEMS.names).cast(_ITEMS))
    if namer is not None:
        write_tally(job, namer)


def said_of(record: Record) -> set[str]:
    """The words of a record's captions, and of its objects' classes."""
    return {word for text in (*record.captions, *record.categories) for word in words_of(text)}
