"""The folder of a model that a stage runs; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vista.config.checkpoint import Checkpoint
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.foreign.pretrained import load_part, loading


def model_folder(
    model: Artifact | None, source: object, role: str, *, config_only: bool = False
) -> Path:
    """Return the folder of a model.

    Args:
        model: The artifact of a stage that trained or fetched the model. All of its files are
            checked, or, with `config_only`, its config alone: to read gigabytes of weights takes
            long.
        source: The model's source in the settings. It has a path where `model` is None.
        role: Name of the model, for messages.

    Raises UserError where the folder does not exist or a file differs from its manifest.
    """
    if model is not None:
        return model.file("model/config.json").parent if config_only else model.folder("model")
    assert isinstance(source, Checkpoint) and source.path is not None
    folder = Path(source.path)
    # transformers would look up a name that is no folder in the hub's cache of this machine.
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; correct `path` of the {role}'s source")
    return folder


def model_config(folder: Path) -> Any:
    """Return the transformers config of the model in `folder`.

    Raises UserError where there is none, or one that only code of its own can read.
    """
    from transformers import AutoConfig

    with loading(
        f"{folder}: its config.json could not be read",
        "a save_pretrained folder of a model that transformers has",
    ):
        return load_part(AutoConfig, folder)
