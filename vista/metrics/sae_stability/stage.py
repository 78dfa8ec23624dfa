"""Stage: compare the dictionaries of one model in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.vision import sae_block
from vista.metrics.results import write_result
from vista.metrics.sae_stability import SaeStabilitySettings
from vista.metrics.sae_stability.measure import Dictionary, sae_stability
from vista.sae.label_table import FILE, read_labels


class NamedDictionary(Settings):
    """A dictionary: its name in the config, and how it is trained, where it is trained here."""

    name: str
    train: dict[str, Any] | None


class SaeStabilityOrder(SaeStabilitySettings):
    """The settings, and which dictionary each input is."""

    dictionaries: tuple[NamedDictionary, ...]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """SAEs with their labels; of vision SAEs the features that they read, for the block alone."""

    saes: list[Artifact]
    labels: list[Artifact]
    features: Artifact | None = None


@stage(SaeStabilityOrder, Inputs)
def run(job: StageJob[SaeStabilityOrder, Inputs]) -> None:
    """Read SAEs and labels; write the result.

    A latent of which the labels' density is 0 never fired on what it was to be labelled from, and
    is left out.

    Raises UserError where no latent of an SAE ever fired, or where SAEs read other layers or
    widths.
    """
    import torch

    from vista.sae.neutral import load_sae

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings, job.inputs
    dictionaries: list[Dictionary] = []
    places: set[tuple[int, int]] = set()
    for named, sae_artifact, labels_artifact in zip(
        settings.dictionaries, inputs.saes, inputs.labels, strict=True
    ):
        sae_artifact.verify()
        sae = load_sae(sae_artifact.path)
        places.add((sae.config.layer, sae.config.d_in))
        block = sae_block(sae, inputs.features) if inputs.features else sae.config.layer
        path = labels_artifact.file(FILE)
        recipe = named.train or {}
        rows_sd, words = _alive(named.name, sae.W_dec.detach().numpy(), path)
        dictionaries.append(
            Dictionary(
                named.name,
                recipe.get("architecture", sae.config.architecture),
                sae.config.d_sae,
                rows_sd,
                words,
                recipe,
            )
        )
    if len(places) > 1:
        raise UserError(
            f"SAEs {', '.join(named.name for named in settings.dictionaries)} read other layers or "
            f"widths (layer, width: {sorted(places)}); leave out those of another model"
        )
    result = sae_stability(
        dictionaries,
        of_text=inputs.features is None,
        layer=block,
        min_cosine=settings.min_cosine,
        seed=settings.seed,
        bootstrap=settings.bootstrap.model_dump(),
    )
    write_result(job.work, result)


def _alive(
    name: str, rows_sd: NDArray[np.float32], labels_path: Path
) -> tuple[NDArray[np.float32], tuple[str | None, ...]]:
    """Return the decoder rows and labels of the latents that fire. Raises UserError where none
    does."""
    labels = read_labels(labels_path)
    if len(labels.label_s) != len(rows_sd):
        raise UserError(
            f"{labels_path} has labels of {len(labels.label_s)} latents, SAE {name} has "
            f"{len(rows_sd)}; label it again"
        )
    alive = np.flatnonzero(labels.density_s > 0)
    if not len(alive):
        raise UserError(f"{labels_path}: no latent of SAE {name} ever fires; train another one")
    return rows_sd[alive], tuple(labels.label_s[latent] for latent in alive.tolist())
