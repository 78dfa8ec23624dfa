"""Visual tokens of images: stored features through a projector, or what a control makes of them.

Legend of shape suffixes: b image, p patch token, v encoder width, d LLM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vista.data.records import RecordTable
from vista.engine.artifacts import Artifact
from vista.projector.control_tokens import Replacement, is_control, load_replacement
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from torch import Tensor

    from vista.language.model import LanguageModel
    from vista.projector.module import Projector

# The stream that enters block 0, where layers count the blocks that were passed from 0.
ENTERING = -1


@dataclass(frozen=True)
class VisualTokens:
    """The visual tokens of a data set's images, made as they are read.

    Attributes:
        features: Store of features.
        image_of: Row of the store for each record.
        projector: The projector, on the language model's device; None where tokens are words.
        llm: The language model that reads the tokens.
        replacement: What a control reads in place of an image's own tokens, if anything.
    """

    features: FeatureReader
    image_of: NDArray[np.int64]
    projector: Projector | None
    llm: LanguageModel
    replacement: Replacement | None = None

    def of(self, rows: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Return the visual tokens [b, p, d] of images by their rows in the records."""
        import torch

        change, patches = self.replacement, None
        if change is not None:
            chosen = change.known(rows)
            if change.words is not None:
                ids_bp = torch.from_numpy(change.words[chosen]).to(self.llm.device)
                return self.llm.embed(ids_bp)
            rows = rows if change.images is None else change.images[chosen]
            patches = None if change.patches is None else change.patches[chosen]
        assert self.projector is not None
        features_bpv = self.features.read(self.image_of[rows]).astype(np.float32)
        if patches is not None:
            features_bpv = np.take_along_axis(features_bpv, patches[..., None], axis=1)
        tokens_bpd: Tensor = self.projector(torch.from_numpy(features_bpv).to(self.llm.device))
        return tokens_bpd


def read_visual_tokens(
    projector: Artifact, features: Artifact, records: RecordTable, llm: LanguageModel
) -> VisualTokens:
    """Open the features and load the projector, or the control, which must fit them and the
    language model."""
    from vista.projector.module import CONFIG, load_projector

    reader = FeatureReader(features.store("features.zarr"))
    image_of, folder = records.feature_rows()[1], projector.path
    projector.verify()
    replacement = load_replacement(folder, records) if is_control(folder) else None
    if replacement is not None and not (folder / CONFIG).is_file():
        return VisualTokens(reader, image_of, None, llm, replacement)
    module = load_projector(folder, d_vision=reader.shape[-1], d_model=llm.d_model)
    return VisualTokens(reader, image_of, module.to(llm.device), llm, replacement)


def visual_streams(
    llm: LanguageModel, visual_bpd: Tensor, layers: Sequence[int]
) -> dict[int, Tensor]:
    """Return the residual stream [b, p, d] of visual tokens after each block of `layers`.

    Layer -1 is the stream that enters block 0: the visual tokens. No text follows them: the stream
    at a token depends only on what precedes it.
    """
    import torch

    b, n_visual, _ = visual_bpd.shape
    streams = {layer: visual_bpd for layer in layers if layer == ENTERING}
    blocks = [layer for layer in layers if layer != ENTERING]
    if blocks:
        start = len(llm.opening)
        ids_bt = torch.tensor([llm.opening + [0] * n_visual] * b, device=llm.device)
        taps = llm.forward(
            ids_bt, visual=visual_bpd, visual_start=start, taps=blocks, stop_after=max(blocks)
        ).taps
        streams |= {layer: taps[layer][:, start:] for layer in blocks}
    return streams
