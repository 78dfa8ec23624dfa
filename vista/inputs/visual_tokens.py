"""Visual tokens of images: stored features through a projector.

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
        projector: The projector, on the language model's device.
        llm: The language model that reads the tokens.
    """

    features: FeatureReader
    image_of: NDArray[np.int64]
    projector: Projector
    llm: LanguageModel

    def of(self, rows: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Return the visual tokens [b, p, d] of images by their rows in the records."""
        import torch

        features_bpv = torch.from_numpy(self.features.read(self.image_of[rows]).astype(np.float32))
        tokens_bpd: Tensor = self.projector(features_bpv.to(self.llm.device))
        return tokens_bpd


def read_visual_tokens(
    projector: Artifact, features: Artifact, records: RecordTable, llm: LanguageModel
) -> VisualTokens:
    """Open the features and load the projector, which must fit them and the language model."""
    from vista.projector.module import load_projector

    reader = FeatureReader(features.store("features.zarr"))
    projector.verify()
    module = load_projector(projector.path, d_vision=reader.shape[-1], d_model=llm.d_model)
    return VisualTokens(reader, records.feature_rows()[1], module.to(llm.device), llm)


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
