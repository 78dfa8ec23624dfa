"""Stage: score the defined latents of a guided SAE on held-out patches, against rivals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vista.config.guided import GuideSettings
from vista.config.vision_sae import LabelVisionSettings
from vista.data.records import RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.concepts import PRESENT, annotate
from vista.inputs.patch_classes import classes_of_patches
from vista.inputs.vision import SaeDevice, load_vision_sae, sae_block, split_images
from vista.metrics.guided_latents import GuidedLatentsSettings
from vista.metrics.guided_latents.measure import (
    DEFINED,
    GUIDED,
    PLAIN,
    PRE,
    PROBE,
    SHUFFLED,
    SHUFFLED_PRE,
    BoolArray,
    Floats,
    Scored,
    best_latents,
    compare,
    enough,
    score,
)
from vista.metrics.results import write_result
from vista.sae.defined import FILE, Concept, Defined, read_defined
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from vista.sae.neutral import SparseAutoencoder


class GuidedLatentsOrder(GuidedLatentsSettings):
    """The settings, and the SAE's device."""

    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A guided SAE, the same without a guide and with shuffled annotation, and the features that
    all read with their records.

    `check` is not read: the stage waits until it has passed.
    """

    sae: Artifact
    check: Artifact
    plain: Artifact
    features: Artifact
    records: Artifact
    shuffled: Artifact | None = None


@dataclass(frozen=True)
class _Patches:
    """Patches of some images of a split.

    x_nd: their features; present_nm: which concepts they have, those that a concept does not know
    included; known_nm: which entries are annotated; left_nc: left-out classes; images: how many.
    """

    x_nd: NDArray[np.float32]
    present_nm: BoolArray
    known_nm: BoolArray
    left_nc: BoolArray
    images: int


@stage(GuidedLatentsOrder, Inputs)
def run(job: StageJob[GuidedLatentsOrder, Inputs]) -> None:
    """Read the SAEs, features and records; write the result, and items.parquet with a row for each
    concept and classifier.

    Raises UserError where a split has no image, no concept is in enough patches, or the SAEs are
    not of these features or of one set of concepts.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    features = FeatureReader(inputs.features.store("features.zarr"))
    sae, plain = (
        load_vision_sae(artifact, features, settings.sae.device)
        for artifact in (inputs.sae, inputs.plain)
    )
    defined = read_defined(inputs.sae.file(FILE), sae.config.d_sae)
    guide = GuideSettings.model_validate(inputs.sae.settings["guide"])
    fit, choice, test = (
        _patches(records, features, inputs.features, defined, guide, settings, key)
        for key in ("fit_split", "choice_split", "split")
    )
    kept = np.flatnonzero(enough(choice.present_nm, test.present_nm, settings.min_patches))
    if not len(kept):
        raise UserError(
            f"probing.guided_latents: no concept is in {settings.min_patches} patches of the "
            "choice and the measured split; lower min_patches or take more images"
        )
    left = np.flatnonzero(enough(choice.left_nc, test.left_nc, settings.min_patches))
    truth = choice.present_nm[:, kept], test.present_nm[:, kept]
    codes = _codes(sae, choice.x_nd), _codes(sae, test.x_nd)
    codes_plain = _codes(plain, choice.x_nd), _codes(plain, test.x_nd)
    latent_m, best = best_latents(codes_plain, *truth)
    classifiers = {
        DEFINED: Scored(codes[0][:, kept], codes[1][:, kept]),
        PRE: Scored(*(_before_topk(sae, part.x_nd, kept) for part in (choice, test))),
        PROBE: _probe(fit, choice, test, kept, settings),
    }
    if inputs.shuffled is not None:
        other = load_vision_sae(inputs.shuffled, features, settings.sae.device)
        shuffled = read_defined(inputs.shuffled.file(FILE), other.config.d_sae)
        if shuffled.concepts != defined.concepts:
            raise UserError(
                "probing.guided_latents: the SAE with shuffled annotation has other concepts; "
                "train both on the same images"
            )
        pair = [_codes(other, part.x_nd)[:, kept] for part in (choice, test)]
        classifiers[SHUFFLED] = Scored(*pair)
        classifiers[SHUFFLED_PRE] = Scored(
            *(_before_topk(other, part.x_nd, kept) for part in (choice, test))
        )
    scores = {name: score(scored, *truth) for name, scored in classifiers.items()} | {PLAIN: best}
    undefined: dict[str, tuple[Floats, Floats]] = {}
    if len(left):
        classes = choice.left_nc[:, left], test.left_nc[:, left]
        for name, pairs in ((GUIDED, codes), (PLAIN, codes_plain)):
            undefined[name] = best_latents(pairs, *classes)[1]
    bootstrap = settings.bootstrap
    result = compare(
        scores,
        undefined,
        (_errors(sae, test), _errors(plain, test), _distances(test)),
        truth[1],
        layer=sae_block(sae, inputs.features),
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    names = [defined.concepts[c].name for c in kept.tolist()]
    items = _items(names, truth[1], kept, latent_m, scores)
    gone = [defined.left_out[c] for c in left.tolist()]
    for name, of in undefined.items():
        none = np.full(len(left), -1)
        label = f"left_out_{name}"
        items += _items(gone, test.left_nc[:, left], none, none, {label: of})
    write_result(job.work, result, pa.Table.from_pylist(items))


def _patches(
    records: RecordTable,
    features: FeatureReader,
    artifact: Artifact,
    defined: Defined,
    guide: GuideSettings,
    settings: GuidedLatentsSettings,
    key: str,
) -> _Patches:
    """Return the patches of images of a split in random order, `max_patches` at most (one image at
    least)."""
    split = str(getattr(settings, key))
    images, rows = split_images(records, features, split, f"probing.guided_latents.{key}")
    n_patches = features.shape[1]
    count = max(1, settings.max_patches // n_patches)
    order = np.sort(np.random.default_rng(settings.seed).permutation(len(images))[:count])
    images, rows = images[order], rows[order]
    reading = LabelVisionSettings(by=guide.by, mask_cover=guide.mask_cover)
    classes_at = classes_of_patches(records, images, rows, artifact, reading)
    left_out = [Concept(name, None, (name,)) for name in defined.left_out]
    annotation = annotate([*defined.concepts, *left_out], images, n_patches, classes_at)
    value_nm = annotation.concepts_um[annotation.kind_bp.reshape(-1)]
    m = len(defined.concepts)
    x_bpd = np.asarray(features.read(images), dtype=np.float32)
    return _Patches(
        x_nd=x_bpd.reshape(-1, x_bpd.shape[2]),
        # WordNet says that a left-out class has the concepts above it, whoever was not told.
        present_nm=value_nm[:, :m] != 0,
        known_nm=value_nm[:, :m] >= 0,
        left_nc=value_nm[:, m:] == PRESENT,
        images=len(images),
    )


def _codes(sae: SparseAutoencoder, x_nd: NDArray[np.float32]) -> Any:
    """Return the activations of patches in CSC form [n, s]."""
    import torch
    from scipy.sparse import csc_matrix, vstack

    parts = []
    for start in range(0, len(x_nd), sae.dense_rows):
        x = torch.from_numpy(x_nd[start : start + sae.dense_rows]).to(sae.b_dec.device)
        parts.append(csc_matrix(sae.encode(x).cpu().numpy()))
    return vstack(parts, format="csc")


def _before_topk(
    sae: SparseAutoencoder, x_nd: NDArray[np.float32], latents: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return pre-activations of some latents [n, m]: what the predictor orders patches by."""
    import torch

    x = sae.centred(torch.from_numpy(x_nd).to(sae.b_dec.device))
    at = torch.from_numpy(latents).to(x.device)
    pre_nm: NDArray[np.float32] = (x @ sae.W_enc[:, at] + sae.b_enc[at]).cpu().numpy()
    return pre_nm


def _probe(
    fit: _Patches,
    choice: _Patches,
    test: _Patches,
    kept: NDArray[np.int64],
    settings: GuidedLatentsSettings,
) -> Scored:
    """Return the log odds of a logistic regression a concept, on what is annotated of it."""
    from vista.metrics.logistic import fit_logistic

    score_choice, score_test = (np.zeros((len(part.x_nd), len(kept))) for part in (choice, test))
    for c, concept in enumerate(kept.tolist()):
        known_n = fit.known_nm[:, concept]
        present_n = fit.present_nm[known_n, concept]
        if present_n.all() or not present_n.any():
            continue  # all scores are equal: AUROC .5
        probe = fit_logistic(
            fit.x_nd[known_n],
            present_n.astype(np.str_),  # "False" is before "True": positive log odds say yes
            regularisation=settings.regularisation,
            iterations=settings.iterations,
        )
        score_choice[:, c] = probe.decision_function(choice.x_nd)
        score_test[:, c] = probe.decision_function(test.x_nd)
    return Scored(score_choice, score_test)


def _errors(sae: SparseAutoencoder, test: _Patches) -> Floats:
    """Return the squared error of each image [b], summed over its patches."""
    import torch

    parts = []
    for start in range(0, len(test.x_nd), sae.dense_rows):
        x = torch.from_numpy(test.x_nd[start : start + sae.dense_rows]).to(sae.b_dec.device)
        parts.append((sae(x) - x).square().sum(dim=1).double().cpu().numpy())
    return np.asarray(np.concatenate(parts).reshape(test.images, -1).sum(axis=1))


def _distances(test: _Patches) -> Floats:
    """Return the squared distance to the mean patch of each image [b], summed over its patches."""
    x_nd = test.x_nd.astype(np.float64)
    distance_n = np.square(x_nd - x_nd.mean(axis=0)).sum(axis=1)
    return np.asarray(distance_n.reshape(test.images, -1).sum(axis=1))


def _items(
    names: list[str],
    truth_nm: BoolArray,
    kept: NDArray[np.int64],
    latent_m: NDArray[np.int64],
    scores: dict[str, tuple[Floats, Floats]],
) -> list[dict[str, Any]]:
    """Return a row for each concept and classifier."""
    own = {DEFINED: kept, PRE: kept, SHUFFLED: kept, SHUFFLED_PRE: kept, PLAIN: latent_m}
    return [
        {
            "concept": name,
            "patches": int(truth_nm[:, c].sum()),
            "classifier": classifier,
            "latent": int(own[classifier][c]) if classifier in own else -1,
            "auroc": float(auroc_m[c]),
            "f1": float(f1_m[c]),
        }
        for classifier, (auroc_m, f1_m) in scores.items()
        for c, name in enumerate(names)
    ]
