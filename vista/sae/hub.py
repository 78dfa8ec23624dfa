"""Lets a library that downloads from the Hugging Face hub read local files instead.

sae_lens' loaders ask `hf_hub_download` for each file, by repository and name. For the time of a
load, the hub's cache is a temporary folder that links to a local copy of the repository, and the
network is off.
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vista.errors import UserError

_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_COMMIT = "0" * 40  # of the linked copy; any name of 40 digits does


def cached_snapshot(cache: Path, repo: str) -> Path:
    """Return the folder of `repo` in a Hugging Face cache, at the commit that `main` stands for.

    Raises UserError where the cache does not have it.
    """
    folder = cache / f"models--{repo.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"{folder}: {repo} was not fetched into this cache; fetch it") from error
    return folder / "snapshots" / commit


def require_files(snapshot: Path, files: Sequence[str], what: str) -> None:
    """Raise UserError that names the first of `files` that a local copy of a repository lacks."""
    for name in files:
        if not (snapshot / name).is_file():
            raise UserError(
                f"{snapshot / name} is missing, which belongs to {what}; `path` must be a copy of "
                f"the release's whole repository, with its folders{_level(snapshot, name)}"
            )


def _level(snapshot: Path, name: str) -> str:
    """Where the repository lies that a folder is a part of, or holds, for the end of a message."""
    parts = Path(name).parts
    for depth in range(1, len(parts)):
        if snapshot.parts[-depth:] == parts[:depth] and snapshot.joinpath(*parts[depth:]).is_file():
            return f": that is {snapshot.parents[depth - 1]}"
    below = sorted(snapshot.glob(f"*/{glob.escape(name)}"))
    return f": that is {snapshot / below[0].relative_to(snapshot).parts[0]}" if below else ""


@contextmanager
def offline_hub(repo: str, snapshot: Path) -> Iterator[None]:
    """While inside, huggingface_hub finds `repo` in `snapshot`, and nothing else, and reaches for
    no network; torch.load runs no pickled code.
    """
    from huggingface_hub import constants

    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vista-hub-")))
        folder = cache / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(_COMMIT, encoding="utf-8")
        (folder / "snapshots").mkdir()
        (folder / "snapshots" / _COMMIT).symlink_to(snapshot.resolve())
        # Both are read at each call, not when the library is imported.
        stack.enter_context(replaced(constants, "HF_HUB_CACHE", str(cache)))
        stack.enter_context(replaced(constants, "HF_HUB_OFFLINE", True))
        before = os.environ.get(_WEIGHTS_ONLY)
        os.environ[_WEIGHTS_ONLY] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_WEIGHTS_ONLY]
            else:
                os.environ[_WEIGHTS_ONLY] = before


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """While inside, `owner.name` is `value`."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def tensor_shapes(repo: str, filename: str) -> dict[str, list[int]]:
    """Shapes of the tensors in a safetensors file of the hub's cache, read from its header.

    Takes the place of sae_lens' `get_safetensors_tensor_shapes`, which asks the hub by HTTP whether
    or not the file is there. Raises OSError where it is not.
    """
    from huggingface_hub import hf_hub_download
    from safetensors import safe_open

    with safe_open(hf_hub_download(repo, filename), framework="pt") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
