"""The artifacts behind a readout, and the check that they belong together. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vista.config.encoders import EncoderSettings
from vista.config.language import LanguageSettings
from vista.data.records import read_records
from vista.engine.artifacts import MANIFEST, Artifact, open_artifact
from vista.engine.lineage import inputs_there, lineage, read_manifest
from vista.errors import UserError
from vista.inputs.questions import DEFAULT_QUESTION
from vista.projector.control_tokens import is_control

LABELS = ("label_latents", "import_labels")
_DIRECTIONS = "directions"
_METHOD = "latent"  # of the directions, unless another is asked for
_ASKED = 100  # records among which a question is looked for


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a readout is made of.

    Attributes:
        name: Readable name of the point, ENCODER-LLM-wWEIGHT-sSEED.
        encoder: Settings of the vision encoder.
        encoder_model: Its artifact; None where the settings name a folder.
        llm: Settings of the language model.
        llm_model: Its artifact; None where the settings name a folder.
        projector: The projector.
        saes: The SAEs, one a layer.
        labels: The labels of these SAEs, as far as they are labelled.
        directions: Directions of concepts in the residual stream, if any were found.
        max_active: Latents of a token that are kept, at most.
        question: What is asked about an image, as in training.
        latents: The latents that it was found by; None of a saved readout.
        figures: Rows of the long table that are of the point, of a saved readout.
    """

    name: str
    encoder: EncoderSettings
    encoder_model: Artifact | None
    llm: LanguageSettings
    llm_model: Artifact | None
    projector: Artifact
    saes: tuple[Artifact, ...]
    labels: tuple[Artifact, ...] = ()
    directions: Artifact | None = None
    max_active: int
    question: str = DEFAULT_QUESTION
    latents: Artifact | None = None
    figures: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together, by the digests of what each was made from.

        Raises:
            UserError: Labels or directions are of another SAE, or the projector was trained for
                another language model.
        """
        saes = {sae.digest for sae in self.saes}
        for labels in self.labels:
            _refuse_other(labels, "sae", saes, "labels another SAE than those of this readout")
        if self.directions is not None:
            what = "holds directions of another SAE than those of this readout"
            _refuse_other(self.directions, "saes", saes, what)
        if self.llm_model is not None:
            what = f"was trained for another language model than {self.llm_model.path.name}"
            _refuse_other(self.projector, "llm", {self.llm_model.digest}, what)


def parts_of_latents(folder: Path, method: str | None = None) -> Parts:
    """Return the parts behind a finished artifact of latents, RESULTS/latents/NAME-ID.

    Args:
        folder: The artifact's folder.
        method: Method of the directions; None: labelled latents, if they were looked for.

    Raises:
        UserError: An artifact is missing or damaged; the latents are those of a control, or of
            combined encoders; or no directions were found by the method.
    """
    latents = open_artifact(folder, "latents")
    projector, features = (_only(latents, role) for role in ("projector", "features"))
    if latents.settings.get("text_scale") or is_control(projector.path):
        raise UserError(f"{folder} are the latents of a control; open those of its point")
    if features.stage != "features":
        raise UserError(
            f"{folder} reads combined features, which need several encoders: only the latents "
            "of one encoder can be read anew"
        )
    saes = inputs_there(latents, "saes")
    if not saes or len(saes) != len(latents.inputs.get("saes", ())):
        raise UserError(f"{folder}: an SAE that it was read with is gone: run the workflow again")
    return Parts(
        name=latents.path.name.rpartition("-")[0],
        encoder=EncoderSettings.model_validate(features.settings["encoder"]),
        encoder_model=_model(features, "encoder"),
        llm=LanguageSettings.model_validate(latents.settings["llm"]),
        llm_model=_model(latents, "llm"),
        projector=projector,
        saes=tuple(saes),
        labels=tuple(labels_of(latents)),
        directions=_directions(latents, projector, method),
        max_active=int(latents.settings["latents"]["max_active"]),
        question=_question(latents),
        latents=latents,
    )


def labels_of(latents: Artifact) -> Iterator[Artifact]:
    """Yield the labels of the SAEs that latents were read with, each SAE's once."""
    saes = dict.fromkeys(latents.inputs.get("saes", []))
    results = latents.path.absolute().parents[1]
    for stage in LABELS:
        for manifest in sorted((results / stage).glob(f"*/{MANIFEST}")):
            sae = _input(manifest.parent, "sae")
            if sae in saes:
                del saes[sae]
                yield open_artifact(manifest.parent, stage)


def _directions(latents: Artifact, projector: Artifact, method: str | None) -> Artifact | None:
    """Return directions in the residual stream that were found with a projector."""
    found = {}
    results = latents.path.absolute().parents[1]
    path = f"{projector.path.parent.name}/{projector.path.name}"
    for manifest in sorted((results / _DIRECTIONS).glob(f"*/{MANIFEST}")):
        if any(parent.path == path for parent in lineage(manifest.parent)):
            artifact = open_artifact(manifest.parent, _DIRECTIONS)
            found[str(artifact.settings["directions"]["method"])] = artifact
    if method is not None and method not in found:
        raise UserError(
            f"{latents.path}: no directions were found by {method!r}; there are "
            f"{', '.join(found) or 'none'}"
        )
    return found.get(method or _METHOD)


def _question(latents: Artifact) -> str:
    """Return the first question about an image of the data, else the default."""
    for records in inputs_there(latents, "records"):
        table = read_records(records.file("records.parquet"))
        for record in table.select(range(min(_ASKED, len(table)))):
            if record.turns:
                return record.turns[0].question
    return DEFAULT_QUESTION


def _only(artifact: Artifact, role: str) -> Artifact:
    inputs = inputs_there(artifact, role)
    if len(inputs) != 1:
        raise UserError(
            f"{artifact.path}: its {role} is not in these results: run the workflow again"
        )
    return inputs[0]


def _model(artifact: Artifact, role: str) -> Artifact | None:
    """Return the artifact of a model; None where settings name its folder."""
    return _only(artifact, role) if role in artifact.inputs else None


def _input(folder: Path, role: str) -> str | None:
    """Return the digest of an artifact's input in a role, unchecked; None if there is none."""
    inputs = (read_manifest(folder) or {}).get("inputs")
    digest = inputs.get(role) if isinstance(inputs, dict) else None
    return digest if isinstance(digest, str) else None


def _refuse_other(artifact: Artifact, role: str, digests: set[str], what: str) -> None:
    """Refuse an artifact of which an input in a role, if it has one, is none of some digests."""
    inputs = artifact.inputs.get(role, [])
    if not digests.issuperset(inputs if isinstance(inputs, list) else [inputs]):
        raise UserError(f"{artifact.path} {what}: open parts that were made together")
