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
