"""The models of a readout: an encoder, a projector, a language model and its SAEs.

A readout takes the steps of the stages features, latents and edit_captions, by their code.

Shape legend: b image, p visual token, d width of the language model, k slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from vista.config.edits import How
from vista.data.geometry import ImageGeometry, prepare_image
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.models import load_llm, load_saes, load_vision_encoder
from vista.inputs.questions import DEFAULT_QUESTION
from vista.progress import progress
from vista.readout.edits import (
    ConceptEdit,
    ConceptFinder,
    LatentEdit,
    Where,
    at_random,
    patches_at,
    row_of_concepts,
    row_of_latent,
)
from vista.readout.images import ImageLike, open_images
from vista.readout.parts import Parts, parts_of_latents
from vista.readout.seen import LayerLatents, SeenImages
from vista.sae.label_table import FILE, LatentLabels, read_labels

if TYPE_CHECKING:
    from torch import Tensor

    from vista.encoders.contract import VisionEncoder
    from vista.interventions.edits import Concept, RowEdit
    from vista.language.model import LanguageModel
    from vista.projector.module import Projector
    from vista.sae.neutral import SparseAutoencoder

_BATCH = 16  # images of a pass


class Readout:
    """An encoder, a projector, a language model and its SAEs that belong together.

    Calling it with images gives their labelled latents.

    Attributes:
        encoder: The vision encoder.
        fit: How images are made square for it.
        projector: The projector.
        llm: The language model.
        saes: Its SAEs by layer.
        max_active: Latents of a token that are kept, at most.
        labels: Labels of the SAEs' latents by layer, as far as they are labelled.
        question: What is asked about an image, unless another question is given.
        parts: The artifacts that it was loaded from; None if it was put together by hand.

    Examples:
        >>> readout = run.readout("dinov2", "gemma2", sae_weight=1)
        >>> seen = readout("cat.png")
        >>> list(seen.top(k=3).columns)
        ['image', 'layer', 'label', 'latent', 'activation', 'row', 'column']
        >>> label = seen.top(k=50).label.dropna().iloc[0]
        >>> caption = readout.caption("cat.png", max_new_tokens=8)
        >>> edited = readout.caption("cat.png", remove=label, strength=2, max_new_tokens=8)
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        fit: Literal["pad", "crop"],
        projector: Projector,
        llm: LanguageModel,
        saes: Mapping[int, SparseAutoencoder],
        max_active: int,
        labels: Mapping[int, LatentLabels] | None = None,
        question: str = DEFAULT_QUESTION,
        parts: Parts | None = None,
    ) -> None:
        self.encoder, self.fit, self.projector = encoder, fit, projector
        self.llm, self.saes, self.max_active = llm, saes, max_active
        self.labels, self.question, self.parts = dict(labels or {}), question, parts

    @classmethod
    def of_latents(cls, folder: Path, method: str | None = None) -> Readout:
        """Load the models behind a finished artifact of latents, RESULTS/latents/NAME-ID.

        Args:
            folder: The artifact's folder.
            method: Method of the directions of concepts; None: labelled latents.

        Raises:
            UserError: An artifact is missing or damaged, or made for other models; the latents are
                those of a control, or of combined encoders; or the models cannot be loaded.
        """
        return cls.of_parts(parts_of_latents(folder, method))

    @classmethod
    def of_parts(cls, parts: Parts) -> Readout:
        """Load the models of parts that belong together.

        Raises:
            UserError: A part is damaged, or does not fit the others.
        """
        from vista.projector.module import load_projector

        encoder = load_vision_encoder(parts.encoder, parts.encoder_model)
        llm = load_llm(parts.llm, parts.llm_model)
        saes = load_saes(parts.saes, llm)
        parts.projector.verify()
        module = load_projector(
            parts.projector.path, d_vision=encoder.d_vision, d_model=llm.d_model
        )
        tables = [read_labels(labels.file(FILE)) for labels in parts.labels]
        return cls(
            encoder,
            parts.encoder.fit,
            module.to(llm.device),
            llm,
            saes,
            parts.max_active,
            {table.layer: _fitting(table, saes) for table in tables},
            parts.question,
            parts,
        )

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None) -> Readout:
        """Load a readout that `save_pretrained` wrote.

        Args:
            source: Its folder, or a repository of the Hugging Face hub, "owner/name".
            revision: Branch, tag or commit of the repository.

        Raises:
            UserError: There is none, a file of it is damaged, or its parts were not saved together.
        """
        from vista.readout.pretrained import open_parts

        return cls.of_parts(open_parts(source, revision))

    def save_pretrained(self, folder: str | Path, *, copy_models: bool | None = None) -> None:
        """Write the readout as a folder: safetensors, JSON, and a model card with its figures.

        Args:
            folder: The folder; not there yet, or empty.
            copy_models: Whether encoder and language model are written, too. None: those that the
                workflow trained; of others the repository and its commit.

        Raises:
            UserError: The readout was put together by hand, the folder holds files, or a model is
                a folder of this machine and is not copied.
        """
        from vista.readout.pretrained import save_parts

        save_parts(self._parts(), Path(folder), copy_models)

    def push_to_hub(
        self, repo: str, *, private: bool = True, copy_models: bool | None = None
    ) -> str:
        """Upload what `save_pretrained` writes to a repository of the Hugging Face hub.

        The token is the one in HF_TOKEN. Returns the address of the commit.

        Raises:
            UserError: As `save_pretrained`; or the hub refuses it.
        """
        from vista.readout.pretrained import push_parts

        return push_parts(self._parts(), repo, private, copy_models)

    def _parts(self) -> Parts:
        if self.parts is None:
            raise UserError("this readout was put together by hand: there are no artifacts to save")
        return self.parts

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> SeenImages:
        """Return the latents of images.

        Args:
            images: A file, a Pillow image or an array [h, w, 3] of uint8, or several of them.

        Raises:
            UserError: One is no image, or a token has more active latents than `max_active`.
        """
        named = open_images(images)
        names, opened = [name for name, _ in named], [image for _, image in named]
        layers: list[dict[int, LayerLatents]] = []
        starts: Iterable[int] = range(0, len(opened), _BATCH)
        if len(opened) > _BATCH:
            starts = progress(list(starts), desc="images", unit="batch")
        for start in starts:
            layers += self.latents(self.visual_tokens(opened[start : start + _BATCH]))
        geometry = [self.geometry(image) for image in opened]
        return SeenImages(names, opened, layers, geometry, self.labels, self._finder)

    def geometry(self, image: Image.Image) -> ImageGeometry:
        """Return how an image lies on the encoder's patch grid."""
        encoder, size = self.encoder, (image.width, image.height)
        return ImageGeometry(
            *size,
            encoder.size,
            encoder.patch,
            self.fit,
            per_patch=encoder.per_patch,
            pool=encoder.pool,
        )

    def visual_tokens(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the visual tokens of images [b, p, d]: features as they are stored (float16),
        through the projector."""
        import torch

        encoder = self.encoder
        pixels = np.stack(
            [
                prepare_image(image, encoder.size, self.fit, encoder.mean_colour, encoder.resample)
                for image in images
            ]
        )
        with torch.no_grad():
            features_bpv = encoder.encode(pixels).half().float()
            tokens_bpd: Tensor = self.projector(features_bpv.to(self.llm.device))
        return tokens_bpd

    def latents(self, visual_bpd: Tensor) -> list[dict[int, LayerLatents]]:
        """Return for each image the active latents of its visual tokens by layer.

        Raises:
            UserError: A token has more active latents than `max_active`.
        """
        import torch

        from vista.inputs.visual_tokens import visual_streams
        from vista.sae.measured import measured_tokens

        b, p, _ = visual_bpd.shape
        images: list[dict[int, LayerLatents]] = [{} for _ in range(b)]
        with torch.no_grad():
            streams = visual_streams(self.llm, visual_bpd, sorted(self.saes))
            for layer, sae in sorted(self.saes.items()):
                x_nd = streams[layer].flatten(0, 1).to(sae.W_enc.device)
                columns = measured_tokens(sae, x_nd, min(self.max_active, sae.config.d_sae))
                by_image = [column.cpu().numpy().reshape(b, p, -1) for column in columns]
                for i, found in enumerate(images):
                    index, value, nnz, error, norm2 = (column[i] for column in by_image)
                    used = int(nnz.max())
                    found[layer] = LayerLatents(
                        index[:, :used], value[:, :used], nnz[:, 0], error[:, 0], norm2[:, 0]
                    )
        return images

    def caption(
        self,
        image: ImageLike,
        question: str | None = None,
        *,
        remove: str | None = None,
        add: str | None = None,
        how: How | None = None,
        strength: float = 1.0,
        blocks: Sequence[int] = (),
        where: Where | None = None,
        random: bool = False,
        max_new_tokens: int = 32,
    ) -> str:
        """Return the greedy answer to a question about an image, as it is or under an edit.

        Args:
            image: A file, a Pillow image or an array.
            question: What is asked; None: the question of the training data.
            remove: Concept whose direction is taken away from visual tokens: one that the workflow
                found a direction for, or a word that a latent is named after. None: none.
            add: Concept whose direction is added.
            how: What is done; see `vista.interventions.edits.change`. None: subtract, add, or
                remove_add with both concepts.
            strength: Coefficient of the edit.
            blocks: Blocks after which it is made; none: after that of the concept's latent.
            where: What is edited: a box (x, y, width, height) in px, patches as (row, column), or
                a mask of patches. None: all.
            random: The control: each token is moved as far, along one random direction.
            max_new_tokens: Length of the answer, at most.

        Raises:
            UserError: A concept has no direction and names no latent, or a block or patch is not
                there.
        """
        ((_, opened),) = open_images(image)
        edit = None
        if remove is not None or add is not None:
            patches = patches_at(where, self.geometry(opened))
            edit = ConceptEdit(remove, add, strength, patches, how, tuple(blocks), random)
        elif how is not None or where is not None or random:
            raise UserError("name a concept to remove or to add")
        asked = self.question if question is None else question
        (answer,) = self.captions(opened, asked, [edit], max_new_tokens)
        return answer

    def captions(
        self,
        image: Image.Image,
        question: str,
        edits: Sequence[LatentEdit | ConceptEdit | None] = (None,),
        max_new_tokens: int = 32,
    ) -> list[str]:
        """Return the greedy answer to a question about an image under each edit, None for none.

        Raises:
            UserError: An edit names a layer, latent, concept, block or patch that is not there.
        """
        import torch

        from vista.interventions.edits import stream_edits

        visual_pd = self.visual_tokens([image])[0]
        rows = [None if edit is None else self._row(edit, len(visual_pd)) for edit in edits]
        visual_bpd = visual_pd.expand(len(rows), *visual_pd.shape)
        (ids,) = self.llm.prompts([question], len(visual_pd))
        with torch.no_grad():
            ids_bt = torch.tensor([ids] * len(rows), device=self.llm.device)
            stream = stream_edits(rows, len(self.llm.opening))
            if controls := [b for b, edit in enumerate(edits) if edit and edit.random]:
                stream = {block: at_random(edit, controls) for block, edit in stream.items()}
            reading = self.llm.read(ids_bt, visual_bpd, stream)
            return self.llm.answers(reading, max_new_tokens)

    def _row(self, edit: LatentEdit | ConceptEdit, n_visual: int) -> RowEdit:
        if isinstance(edit, LatentEdit):
            row = row_of_latent(edit, self.saes, n_visual)
        else:
            row = row_of_concepts(edit, self._finder, n_visual)
        if not all(0 <= block < self.llm.n_blocks for block in row.blocks):
            raise UserError(f"blocks {list(row.blocks)}: the model has 0..{self.llm.n_blocks - 1}")
        return row

    @cached_property
    def _finder(self) -> ConceptFinder:
        return ConceptFinder(self.saes, self.labels, self._found())

    def _found(self) -> dict[str, tuple[Concept, int | None]]:
        """Return the concepts that the workflow found a direction for, with their blocks."""
        from vista.inputs.edit_concepts import edit_concepts
        from vista.interventions.directions import read_directions

        artifact: Artifact | None = None if self.parts is None else self.parts.directions
        if artifact is None or self.parts is None:
            return {}
        width: dict[Any, int] = {"stream": self.llm.d_model, "features": self.encoder.d_vision}
        directions = read_directions(artifact, width)
        if directions.space != "stream":
            return {}
        concepts = edit_concepts(directions, self.parts.saes, self.llm.layer_device)
        blocks = {concept.concept: concept.layer for concept in directions.concepts}
        return {name: (concept, blocks[name]) for name, concept in concepts.items()}


def _fitting(table: LatentLabels, saes: Mapping[int, SparseAutoencoder]) -> LatentLabels:
    """Return labels that fit an SAE of their layer. Raises UserError."""
    sae = saes.get(table.layer)
    if sae is None or len(table.label_s) != sae.config.d_sae:
        size = "none" if sae is None else sae.config.d_sae
        raise UserError(
            f"labels of {len(table.label_s)} latents of layer {table.layer}, whose SAE has {size}: "
            "labels hold for one SAE"
        )
    return table
