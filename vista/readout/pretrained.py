"""A readout as a folder: safetensors, JSON and a model card, to keep, move or publish.

The folder holds its parts as the workflow's artifacts, whole, with their checksums:

    readout.json                  format, settings, and the digest of each part
    projector/  sae_LAYER/  labels_LAYER/  directions/
    encoder/  llm/                models that the workflow trained, or that are copied
    README.md                     the model card

A model that is published elsewhere is named by its repository and commit. Format "vista readout 1".
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from vista.config.base import Settings
from vista.config.checkpoint import Checkpoint
from vista.config.encoders import EncoderSettings
from vista.config.language import LanguageSettings
from vista.engine.artifacts import CHECKSUMS, MANIFEST, MEMO, Artifact, open_artifact
from vista.errors import UserError, reason_of
from vista.foreign.text import one_line
from vista.progress import progress
from vista.readout.card import model_card
from vista.readout.figures import point_figures
from vista.readout.parts import Parts

FORMAT = "vista readout 1"
DESCRIPTION = "readout.json"
CARD = "README.md"
_TEMPLATE = "prompt.jinja"
_MODEL = "model"  # folder of a model's files in its artifact
_SOURCE = "source.json"
_FETCHED = "fetch_model"
_LARGEST = 10_000_000  # bytes of the description
# All that a saved readout consists of; nothing else of a repository is fetched.
_SUFFIXES = (".json", ".safetensors", ".parquet", ".jinja", ".txt", ".model", ".md")


Role = Literal["encoder", "llm"]


class Published(Settings):
    """A model on the Hugging Face hub."""

    repo: str
    commit: str = Field(pattern="^[0-9a-f]{40}$")


class Description(Settings):
    """What readout.json holds.

    Attributes:
        digests: Digest of each part's artifact, by its folder.
        published: Models that are not in the folder, by role.
    """

    format: Literal["vista readout 1"]
    name: str = Field(max_length=300)
    encoder: EncoderSettings
    llm: LanguageSettings
    max_active: int = Field(ge=1)
    question: str
    layers: tuple[int, ...]
    digests: dict[str, str]
    published: dict[Role, Published] = Field({})
    figures: tuple[dict[str, str | float | int | None], ...] = ()


def save_parts(parts: Parts, folder: Path, copy_models: bool | None = None) -> None:
    """Write a readout into a folder, which appears whole or not at all.

    Raises:
        UserError: The folder holds files, an artifact is damaged, or a model is a folder of this
            machine and is not copied.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds files already: name a new folder")
    if parts.latents is not None:
        parts = replace(parts, figures=point_figures(parts.latents))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        made = Path(work) / "readout"
        made.mkdir()
        _write(parts, made, copy_models)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)


def push_parts(parts: Parts, repo: str, private: bool, copy_models: bool | None) -> str:
    """Upload a readout to a repository of the hub; return the address of the commit.

    Raises:
        UserError: As `save_parts`; or the hub refuses it.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from vista.fetch.hub import hub_token

    api = HfApi(endpoint=constants.ENDPOINT, token=hub_token() or False)
    with tempfile.TemporaryDirectory(prefix="vista-") as work:
        folder = Path(work) / "readout"
        save_parts(parts, folder, copy_models)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            info = api.upload_folder(repo_id=repo, folder_path=folder)
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise UserError(
                f"{one_line(repo)} could not be written ({reason_of(error)}): set HF_TOKEN to a "
                "token that may write it"
            ) from error
    return str(info.commit_url)


def open_parts(source: str | Path, revision: str | None = None) -> Parts:
    """Return the parts of a saved readout.

    Args:
        source: Its folder, or a repository "owner/name", which is fetched.
        revision: Branch, tag or commit of the repository.

    Raises:
        UserError: There is none, a file is damaged, or its parts were not saved together.
    """
    folder = Path(source)
    if not folder.is_dir():
        from vista.fetch.cache import snapshot

        folder = snapshot(str(source), revision or "main", _files_of)
    described = _description(folder / DESCRIPTION)
    artifacts = {name: _part(folder, name, digest) for name, digest in described.digests.items()}
    for name in ("projector", *(f"sae_{layer}" for layer in described.layers)):
        if name not in artifacts:
            raise UserError(f"{folder} lacks its part {name}: save the readout again")
    encoder, llm = described.encoder, described.llm
    for role, model in described.published.items():
        if role == "encoder":
            encoder = encoder.model_copy(update={"source": _fetched(encoder.source, model)})
        else:
            llm = llm.model_copy(update={"source": _fetched(llm.source, model)})
    if llm.template_files:
        llm = llm.model_copy(update={"template": str(folder / _TEMPLATE)})
    return Parts(
        name=described.name,
        encoder=_placed(encoder, folder / "encoder"),
        encoder_model=artifacts.get("encoder"),
        llm=_placed(llm, folder / "llm"),
        llm_model=artifacts.get("llm"),
        projector=artifacts["projector"],
        saes=tuple(artifacts[f"sae_{layer}"] for layer in described.layers),
        labels=tuple(a for name, a in artifacts.items() if name.startswith("labels_")),
        directions=artifacts.get("directions"),
        max_active=described.max_active,
        question=described.question,
        figures=described.figures,
    )


def _write(parts: Parts, folder: Path, copy_models: bool | None) -> None:
    encoder, llm = parts.encoder, parts.llm
    artifacts = dict(_artifacts(parts))
    published: dict[Role, Published] = {}
    models: list[tuple[Role, Artifact | None, object]] = [
        ("encoder", parts.encoder_model, encoder.source),
        ("llm", parts.llm_model, llm.source),
    ]
    for role, model, source in models:
        if model is None:
            _copy_user_model(source, folder / role, copy_models)
        elif model.stage == _FETCHED and not copy_models:
            published[role] = _published(model)
        elif copy_models is False:
            raise UserError(f"{model.path} is published nowhere: save with copy_models=None")
        else:
            artifacts[role] = model
    if llm.template_files:
        shutil.copyfile(llm.template, folder / _TEMPLATE)
        llm = llm.model_copy(update={"template": _TEMPLATE})
    for name, artifact in progress(list(artifacts.items()), desc="parts", unit="part"):
        _copy(artifact, folder / name)
    described = Description(
        format=FORMAT,
        name=parts.name,
        encoder=_without_place(encoder),
        llm=_without_place(llm),
        max_active=parts.max_active,
        question=parts.question,
        layers=tuple(int(_layer(sae)) for sae in parts.saes),
        digests={name: artifact.digest for name, artifact in artifacts.items()},
        published=published,
        figures=tuple(dict(figure) for figure in parts.figures),
    )
    text = json.dumps(described.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    card = model_card(parts, {role: (m.repo, m.commit) for role, m in published.items()})
    (folder / CARD).write_text(card, encoding="utf-8")


def _artifacts(parts: Parts) -> Iterator[tuple[str, Artifact]]:
    """Yield the name of each part's folder, and its artifact; models apart."""
    yield "projector", parts.projector
    layer_of = {}
    for sae in parts.saes:
        layer_of[sae.digest] = _layer(sae)
        yield f"sae_{layer_of[sae.digest]}", sae
    for labels in parts.labels:
        yield f"labels_{layer_of[labels.inputs['sae']]}", labels
    if parts.directions is not None:
        yield "directions", parts.directions


def _layer(sae: Artifact) -> str:
    config = json.loads(sae.file("sae.json").read_text(encoding="utf-8"))
    return str(int(config["layer"]))


def _copy(artifact: Artifact, target: Path) -> None:
    """Copy an artifact whole, each file checked."""
    target.mkdir()
    for name in artifact.checksums:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.file(name), place)
    for name in (CHECKSUMS, MEMO, MANIFEST):
        shutil.copyfile(artifact.path / name, target / name)


def _published(model: Artifact) -> Published:
    source = json.loads(model.file(_SOURCE).read_text(encoding="utf-8"))
    return Published(repo=source["repo"], commit=source["commit"])


def _copy_user_model(source: object, target: Path, copy_models: bool | None) -> None:
    """Copy a model of a user's folder: what transformers reads, no links."""
    assert isinstance(source, Checkpoint) and source.path is not None
    if not copy_models:
        raise UserError(
            f"{source.path} is a folder of this machine: save with copy_models=True, or name the "
            "model by `repo` in the config"
        )
    (target / _MODEL).mkdir(parents=True)
    for file in sorted(Path(source.path).iterdir()):
        if file.is_file() and file.name.endswith(_SUFFIXES):
            shutil.copyfile(file, target / _MODEL / file.name)


def _without_place(settings: Any) -> Any:
    """Return settings of a model without a path of this machine."""
    source = settings.source
    if isinstance(source, Checkpoint) and source.path is not None:
        source = source.model_copy(update={"path": _MODEL})
        return settings.model_copy(update={"source": source})
    return settings


def _placed(settings: Any, folder: Path) -> Any:
    """Return settings whose model lies in a folder of the saved readout, if it does."""
    source = settings.source
    if isinstance(source, Checkpoint) and source.path == _MODEL:
        source = source.model_copy(update={"path": str(folder / _MODEL)})
        return settings.model_copy(update={"source": source})
    return settings


def _fetched(source: Any, model: Published) -> Any:
    """Return the source of a published model in a folder of this machine, fetched if need be."""
    from vista.fetch.cache import model_snapshot

    folder = model_snapshot(model.repo, model.commit)
    update = {"path": str(folder), "repo": None, "revision": None}
    return source.model_copy(update=update)


def _description(path: Path) -> Description:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        described = Description.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UserError(
            f"{path} describes no readout of format {FORMAT!r} ({where}: {problem['msg']})"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path.parent} is no saved readout: {path.name} cannot be read ({reason_of(error)})"
        ) from error
    return described


def _part(folder: Path, name: str, digest: str) -> Artifact:
    if not name.replace("_", "").isalnum():
        raise UserError(f"{folder / DESCRIPTION} names a part {one_line(name)!r}, which is none")
    artifact = open_artifact(folder / name)
    if artifact.digest != digest:
        raise UserError(
            f"{artifact.path} is not the part that was saved with this readout: save it again"
        )
    return artifact


def _files_of(listing: Any) -> list[str]:
    files: Mapping[str, Any] = listing.files
    return sorted(name for name in files if name.endswith(_SUFFIXES))
