"""From an image to its labelled latents and its caption, with or without an edit.

A readout is an encoder, a projector, a language model and its SAEs that belong together: those
behind one artifact of latents. It takes the steps of the stages features, latents and
edit_captions, by their code.

Shape legend: b image, p visual token, d width of the language model, k slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.config.encoders import EncoderSettings
from vista.config.language import LanguageSettings
from vista.data.geometry import prepare_image
from vista.engine.artifacts import Artifact, open_artifact
from vista.engine.lineage import parents_of
from vista.errors import UserError
from vista.inputs.models import load_llm, load_saes, load_vision_encoder

if TYPE_CHECKING:
    from torch import Tensor

    from vista.encoders.contract import VisionEncoder
    from vista.interventions.edits import Edit, RowEdit
    from vista.language.model import LanguageModel
    from vista.projector.module import Projector
    from vista.sae.neutral import SparseAutoencoder

Change = Literal["add", "subtract", "ablate", "clamp"]


@dataclass(frozen=True)
class LayerLatents:
    """The active latents of an image's visual tokens at one layer.

    Attributes:
        index_pk: Number of each active latent, strongest first.
        value_pk: Its activation, float32; 0 in slots that are not used.
        nnz_p: Slots in use.
        error_p: Mean over channels of (SAE(x) - x)^2.
        norm2_p: Mean over channels of x^2.
    """

    index_pk: NDArray[np.int64]
    value_pk: NDArray[np.float32]
    nnz_p: NDArray[np.int64]
    error_p: NDArray[np.float32]
    norm2_p: NDArray[np.float32]


@dataclass(frozen=True)
class LatentEdit:
    """An edit along one latent at some visual tokens of an image.

    Attributes:
        layer: Layer of the latent's SAE.
        latent: Its number.
        change: What is done; see `vista.interventions.edits.change`.
        strength: Coefficient: of a unit direction (add, subtract), of what the latent writes
            (ablate: 1 removes it), or the activation that it is set to (clamp).
        patches: Numbers of the visual tokens that are edited.
        blocks: Blocks after which it is done; empty: after the latent's own.
        random: The control: each token is moved as far, along one random direction.
    """

    layer: int
    latent: int
    change: Change
    strength: float
    patches: tuple[int, ...]
    blocks: tuple[int, ...] = ()
    random: bool = False


class Readout:
    """An encoder, a projector, a language model and its SAEs that belong together.

    Attributes:
        encoder: The vision encoder.
        fit: How images are made square for it.
        projector: The projector.
        llm: The language model.
        saes: Its SAEs by layer.
        max_active: Latents of a token that are kept, at most.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        fit: Literal["pad", "crop"],
        projector: Projector,
        llm: LanguageModel,
        saes: Mapping[int, SparseAutoencoder],
        max_active: int,
    ) -> None:
        self.encoder, self.fit, self.projector = encoder, fit, projector
        self.llm, self.saes, self.max_active = llm, saes, max_active

    @classmethod
    def of_latents(cls, folder: Path) -> Readout:
        """Load the models behind a finished artifact of latents, RESULTS/latents/NAME-ID.

        Raises:
            UserError: An artifact is missing or damaged; the latents are those of a control, or of
                combined encoders; or the models cannot be loaded.
        """
        from vista.projector.control_tokens import is_control
        from vista.projector.module import load_projector

        latents = open_artifact(folder, "latents")
        results = folder.absolute().parents[1]
        projector, features = (
            _parent(results, latents, role) for role in ("projector", "features")
        )
        if latents.settings.get("text_scale") or is_control(projector.path):
            raise UserError(f"{folder} are the latents of a control; open those of its point")
        if features.stage != "features":
            raise UserError(
                f"{folder} reads combined features, which need several encoders: only the latents "
                "of one encoder can be read anew"
            )
        encoder_settings = EncoderSettings.model_validate(features.settings["encoder"])
        encoder = load_vision_encoder(encoder_settings, _model(results, features, "encoder"))
        llm_settings = LanguageSettings.model_validate(latents.settings["llm"])
        llm = load_llm(llm_settings, _model(results, latents, "llm"))
        saes = load_saes(_parents(results, latents, "saes"), llm)
        projector.verify()
        module = load_projector(projector.path, d_vision=encoder.d_vision, d_model=llm.d_model)
        max_active = int(latents.settings["latents"]["max_active"])
        return cls(encoder, encoder_settings.fit, module.to(llm.device), llm, saes, max_active)

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

        b, p, _ = visual_bpd.shape
        images: list[dict[int, LayerLatents]] = [{} for _ in range(b)]
        with torch.no_grad():
            streams = visual_streams(self.llm, visual_bpd, sorted(self.saes))
            for layer, sae in sorted(self.saes.items()):
                x_nd = streams[layer].flatten(0, 1).float().to(sae.W_enc.device)
                slots = min(self.max_active, sae.config.d_sae)
                codes = sae.encode_sparse(x_nd, slots, "latents.max_active")
                error_n = (sae.decode_sparse(codes, x_nd) - x_nd).square().mean(-1)
                columns = [*codes, error_n, x_nd.square().mean(-1)]
                by_image = [column.cpu().numpy().reshape(b, p, -1) for column in columns]
                for i, found in enumerate(images):
                    index, value, nnz, error, norm2 = (column[i] for column in by_image)
                    used = int(nnz.max())
                    found[layer] = LayerLatents(
                        index[:, :used], value[:, :used], nnz[:, 0], error[:, 0], norm2[:, 0]
                    )
        return images

    def captions(
        self,
        image: Image.Image,
        question: str,
        edits: Sequence[LatentEdit | None] = (None,),
        max_new_tokens: int = 32,
    ) -> list[str]:
        """Return the greedy answer to a question about an image under each edit, None for none.

        Raises:
            UserError: An edit names a layer, latent, block or patch that is not there.
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
                stream = {block: _at_random(edit, controls) for block, edit in stream.items()}
            reading = self.llm.read(ids_bt, visual_bpd, stream)
            return self.llm.answers(reading, max_new_tokens)

    def _row(self, edit: LatentEdit, n_visual: int) -> RowEdit:
        """Return an edit as the stage edit_captions makes it."""
        import torch

        from vista.interventions.edits import Concept, Latent, RowEdit

        sae = self.saes.get(edit.layer)
        blocks = edit.blocks or (edit.layer,)
        if sae is None or not 0 <= edit.latent < sae.config.d_sae:
            raise UserError(f"there is no latent {edit.latent} of layer {edit.layer}")
        if not all(0 <= block < self.llm.n_blocks for block in blocks):
            raise UserError(f"blocks {list(blocks)}: the model has 0..{self.llm.n_blocks - 1}")
        if not all(0 <= patch < n_visual for patch in edit.patches):
            raise UserError(f"patches {list(edit.patches)}: the image has 0..{n_visual - 1}")
        direction_d = sae.W_dec[edit.latent].detach().float().cpu()
        direction_d = direction_d / direction_d.norm().clamp_min(1e-8)
        concept = Concept(direction_d, (Latent(sae, edit.latent),))
        patches_p = torch.zeros(n_visual, dtype=torch.bool)
        patches_p[list(edit.patches)] = True
        source, target = (None, concept) if edit.change == "add" else (concept, None)
        return RowEdit(edit.change, edit.strength, patches_p, source, target, tuple(blocks))


def _at_random(edit: Edit, rows: Sequence[int]) -> Edit:
    """Return an edit of the stream that moves the tokens of some rows as far as it would, along
    one random direction."""
    import torch

    def along(h_btd: Tensor) -> Tensor:
        out_btd = edit(h_btd)
        direction_d = torch.randn(h_btd.shape[-1], generator=torch.Generator().manual_seed(0))
        unit_d = (direction_d / direction_d.norm()).to(h_btd.device)
        for b in rows:
            length_t1 = (out_btd[b] - h_btd[b]).float().norm(dim=-1, keepdim=True)
            out_btd[b] = (h_btd[b].float() + length_t1 * unit_d).to(h_btd.dtype)
        return out_btd

    return along


def _parents(results: Path, artifact: Artifact, role: str) -> list[Artifact]:
    """Return the inputs of an artifact in a role. Raises UserError if one is not there."""
    return [
        open_artifact(results / path, path.partition("/")[0])
        for path in parents_of(artifact.manifest).get(role, [])
    ]


def _parent(results: Path, artifact: Artifact, role: str) -> Artifact:
    inputs = _parents(results, artifact, role)
    if len(inputs) != 1:
        raise UserError(f"{artifact.path} does not say what its {role} is: run the workflow again")
    return inputs[0]


def _model(results: Path, artifact: Artifact, role: str) -> Artifact | None:
    """Return the artifact of a model; None where settings name its folder."""
    return next(iter(_parents(results, artifact, role)), None)
