"""What the stages of vision SAEs share: their order's part `sae`, a split's images in the feature
store, the encoder's block that the store holds, the SAE, and where its groups end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.config.base import Settings
from vista.config.encoders import EncoderSettings
from vista.data.records import RecordTable
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.model_folder import model_config, model_folder
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from vista.sae.neutral import SparseAutoencoder

TOP_FILE = "top.parquet"
STEERING_FILE = "steering.parquet"
GROUPS_FILE = "groups.json"


class SaeDevice(Settings):
    """Where a stage runs its vision SAE."""

    device: str = Field("cpu", description='"cpu", "cuda", "cuda:1", "mps" or "auto"')


def split_images(
    records: RecordTable, features: FeatureReader, split: str, key: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the feature store that a split's images have, ascending, and a record of each.

    `key` names the setting, for the message. Raises UserError where the split has no image, or the
    store was made from other records.
    """
    image_of = records.feature_rows()[1]
    if len(image_of) and int(image_of.max()) + 1 != features.shape[0]:
        raise UserError(
            f"the features hold {features.shape[0]} images, the records name "
            f"{int(image_of.max()) + 1}; run the workflow again so that both come from one data set"
        )
    rows = records.rows_of(split)
    if not len(rows):
        raise UserError(f"{key}: the data has no image of split {split!r}; name another split")
    images, first = np.unique(image_of[rows], return_index=True)
    return images, rows[first]


def encoder_block(features: Artifact, encoder: Artifact | None) -> int:
    """The block, counted from 0, whose output `features` holds.

    Where the features' settings count it from the last, the number of blocks is read from the
    model's config: in `encoder`, or in the folder that the settings name. Combined features belong
    to no single block: 0.
    """
    encoder_settings = features.settings["encoder"]
    if encoder_settings["source"]["kind"] == "combined":
        return 0
    settings = EncoderSettings.model_validate(encoder_settings)
    if settings.layer >= 0:
        return settings.layer
    folder = model_folder(encoder, settings.source, "encoder", config_only=True)
    config = model_config(folder)
    blocks = int(getattr(config, "vision_config", config).num_hidden_layers)
    return blocks + settings.layer


def sae_block(sae: SparseAutoencoder, features: Artifact) -> int | None:
    """The block, counted from 0, that an SAE of these features reads; None of combined features."""
    combined = features.settings["encoder"]["source"]["kind"] == "combined"
    return None if combined else sae.config.layer


def write_group_ends(folder: Path, ends: Sequence[int]) -> None:
    """Write where the groups of an imported Matryoshka SAE end, beside its weights."""
    (folder / GROUPS_FILE).write_text(json.dumps({"ends": list(ends)}) + "\n", encoding="utf-8")


def group_ends(sae: Artifact, d_sae: int) -> list[int]:
    """The latents before which the groups of a vision SAE end, ascending; the last is `d_sae`.

    An imported SAE has them in a file, one that is trained here in its settings. An SAE without
    groups is one group.
    """
    if GROUPS_FILE in sae.checksums:
        return list(json.loads(sae.file(GROUPS_FILE).read_text(encoding="utf-8"))["ends"])
    train = sae.settings["sae"]
    if train.get("architecture") != "matryoshka_batchtopk":
        return [d_sae]
    return [round(share * d_sae) for share in train["widths"]]


def load_vision_sae(
    artifact: Artifact, features: FeatureReader, device: str = "cpu"
) -> SparseAutoencoder:
    """Load a vision SAE onto a device.

    Raises UserError where it reads features of another width, or the machine lacks the device.
    """
    from vista.device import find_device
    from vista.sae.neutral import load_sae

    artifact.verify()
    sae = load_sae(artifact.path)
    if sae.config.d_in != features.shape[2]:
        raise UserError(
            f"SAE {sae.config.name} has d_in {sae.config.d_in}, but the features have "
            f"{features.shape[2]} channels; choose the SAE that was trained on this encoder"
        )
    return sae.to(find_device(device))
