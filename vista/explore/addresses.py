"""Artifacts by readable addresses: STAGE:NAME, below a results folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vista.engine.artifacts import MANIFEST
from vista.errors import UserError
from vista.foreign.text import one_line
from vista.report.catalogue import CATALOGUE

_ADDRESS = re.compile(r"([a-z_]+):([A-Za-z0-9][A-Za-z0-9_.+-]*)")


def is_address(text: str) -> bool:
    """Return whether a text is STAGE:NAME, such as latents:dinov2-gemma2-w1-s0, and no path."""
    return _ADDRESS.fullmatch(text) is not None and not Path(text).exists()


def find(results: Path, address: str) -> Path:
    """Return the folder of the finished artifact STAGE:NAME, or STAGE:NAME-ID.

    Of several with one name that of the last report counts.

    Raises:
        UserError: The address is none, no artifact has this name, or several have it of which none
            or more than one is in the catalogue of the last report.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(
            f"{one_line(address)} is no address; write STAGE:NAME, e.g. latents:dinov2-gemma2-w1-s0"
        )
    stage, name = match.groups()
    finished = sorted(path.parent for path in (results / stage).glob(f"*/{MANIFEST}"))
    folders = [
        folder for folder in finished if name in (folder.name, folder.name.rpartition("-")[0])
    ]
    if len(folders) > 1:
        reported = _reported(results)
        folders = [path for path in folders if f"{stage}/{path.name}" in reported] or folders
    if len(folders) == 1:
        return folders[0]
    if folders:
        names = ", ".join(f"{stage}:{folder.name}" for folder in folders)
        raise UserError(f"{results} has several {stage}:{name}; name one of them: {names}")
    there = sorted({folder.name.rpartition("-")[0] for folder in finished})
    known = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
    raise UserError(
        f"{results} has no finished artifact {stage}:{name}; "
        + (f"of {stage} it has {known}" if there else f"it has none of stage {stage}")
        + ". Run snakemake, or give --results"
    )


def _reported(results: Path) -> set[str]:
    """Return the folders STAGE/NAME-ID of the last report's catalogue; none if it cannot be
    read."""
    try:
        content = json.loads((results / CATALOGUE).read_bytes())
        return {str(entry["folder"]) for entry in content["artifacts"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
