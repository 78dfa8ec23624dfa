"""Models by themselves: from a folder, an artifact's folder, or a name on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vista.engine.artifacts import MANIFEST, open_artifact
from vista.errors import UserError, reason_of

if TYPE_CHECKING:
    from vista.encoders.contract import VisionEncoder
    from vista.language.model import LanguageModel
    from vista.projector.module import Projector
    from vista.sae.neutral import SparseAutoencoder


def load_encoder(
    source: str | Path, *, layer: int = -1, revision: str = "main", **options: Any
) -> VisionEncoder:
    """Load a vision encoder.

    Args:
        source: A `save_pretrained` folder, an artifact's folder, or "owner/name" on the hub.
        layer: Block whose output is read, counted from 0; negative: from the last.
        revision: Branch, tag or commit of the repository.
        options: Further arguments of `vista.encoders.contract.load_encoder`.

    Raises:
        UserError: There is no such model, or it cannot be loaded.
    """
    from vista.encoders import contract
    from vista.encoders.registry import family_of

    folder = _model_folder(source, revision)
    family = options.pop("family", None) or family_of(_config(folder, "model_type"))
    return contract.load_encoder(folder, family, layer, **options)


def load_llm(source: str | Path, *, revision: str = "main", **options: Any) -> LanguageModel:
    """Load a language model.

    Args:
        source: A `save_pretrained` folder, an artifact's folder, or "owner/name" on the hub.
        revision: Branch, tag or commit of the repository.
        options: Further arguments of `vista.language.model.LanguageModel.load`.

    Raises:
        UserError: There is no such model, or it cannot be loaded.
    """
    from vista.language.model import LanguageModel

    return LanguageModel.load(_model_folder(source, revision), **options)


def load_sae(
    source: str | Path,
    sae_id: str | None = None,
    *,
    layer: int | None = None,
    revision: str = "main",
) -> SparseAutoencoder:
    """Load an SAE on a residual stream.

    Args:
        source: An artifact's folder, a folder that sae_lens saved, or, with `sae_id`, the name of
            a release in sae_lens' directory.
        sae_id: Id of the SAE within the release.
        layer: Block after which it reads, where its own config does not say.
        revision: Branch, tag or commit of the release's repository.

    Raises:
        UserError: There is no such SAE, it is damaged, or of a kind that is not run here.
    """
    from vista.sae.convert import from_folder, from_release
    from vista.sae.neutral import CONFIG_FILE
    from vista.sae.neutral import load_sae as load_neutral

    folder = Path(source)
    if sae_id is None:
        if (folder / CONFIG_FILE).is_file():
            if (folder / MANIFEST).is_file():
                open_artifact(folder).verify()
            return load_neutral(folder)
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; with a release's name, give `sae_id`, too")
        return from_folder(folder, layer)
    from vista.fetch.cache import snapshot
    from vista.sae.releases import release_entry

    release = str(source)
    entry = release_entry(release, sae_id)
    path = snapshot(entry.repo, revision, lambda listing: [
        *entry.required, *(name for name in entry.optional if name in listing.files)
    ])  # fmt: skip
    return from_release(release, sae_id, layer, path=path)


def load_projector(folder: str | Path) -> Projector:
    """Load a projector out of its artifact's folder.

    Raises:
        UserError: There is none, or it is damaged.
    """
    from vista.projector import module

    path = Path(folder)
    if (path / MANIFEST).is_file():
        open_artifact(path).verify()
    shape = _read_json(path / module.CONFIG)
    return module.load_projector(path, d_vision=shape["d_vision"], d_model=shape["d_model"])


def _model_folder(source: str | Path, revision: str) -> Path:
    """Return the folder of a model's files. Raises UserError if there is none."""
    folder = Path(source)
    if (folder / MANIFEST).is_file():
        return open_artifact(folder).folder("model")
    if folder.is_dir():
        return folder
    from vista.fetch.cache import model_snapshot

    return model_snapshot(str(source), revision)


def _config(folder: Path, key: str) -> str:
    return str(_read_json(folder / "config.json").get(key, ""))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)})") from error
    return content
