"""Where a model of a job lies; no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vista.config.checkpoint import Checkpoint
from vista.engine.artifacts import Job
from vista.errors import UserError
from vista.foreign.pretrained import load_part, loading


def model_folder(job: Job, role: str, source: object, *, config_only: bool = False) -> Path:
    """Return the folder of a model: the job's input `role`, else the path in its settings.

    The input is what a stage trained or fetched. `source` stands in the settings; it has a path
    where no stage provides the model. An input's files are checked, all of them or, with
    `config_only`, the one that tells the model's shape: gigabytes of weights take a while.

    Raises UserError where the folder does not exist or a file differs from its manifest.
    """
    given = job.optional(role)
    if given is not None:
        return given.file("model/config.json").parent if config_only else given.folder("model")
    assert isinstance(source, Checkpoint) and source.path is not None
    folder = Path(source.path)
    # A name that is no folder would be looked up in the hub's cache of this machine.
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
