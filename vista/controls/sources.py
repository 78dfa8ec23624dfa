"""What a control is made from, and the arithmetic that several share.

Legend of shape suffixes: b image, p patch token, d LLM width, n token.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vista.config.control_base import FittedControl
from vista.data.records import RecordTable
from vista.errors import UserError
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from torch import Tensor

    from vista.language.model import LanguageModel
    from vista.projector.control_tokens import ControlTokens
    from vista.projector.module import Projector

IntArray = NDArray[np.int64]
# Images whose visual tokens are in memory at once.
_BATCH = 64


@dataclass(frozen=True)
class Sources:
    """The point that a control belongs to.

    Attributes:
        trained: Projector of the point that the control reads; None where it reads none.
        compared: Projector of the weight that it is compared with; None where there is none.
        features: Store of features.
        image_of: Row of the store for each record.
        records: Records of the data.
        load_llm: Loads the language model, which few controls read.
        placing: How images lie on the patch grid.
        splits: Splits that are evaluated.
        seed: Seed of the point.
    """

    trained: Projector | None
    compared: Projector | None
    features: FeatureReader
    image_of: IntArray
    records: RecordTable
    load_llm: Callable[[], LanguageModel]
    placing: Mapping[str, Any]
    splits: tuple[str, ...]
    seed: int

    @cached_property
    def llm(self) -> LanguageModel:
        """The language model, loaded when it is first asked for."""
        return self.load_llm()

    @property
    def projector(self) -> Projector:
        """The projector of the point that the control reads."""
        assert self.trained is not None
        return self.trained

    @property
    def reference(self) -> Projector:
        """The projector of the weight that the control is compared with."""
        assert self.compared is not None
        return self.compared

    def rows(self, split: str, images: int) -> IntArray:
        """Return the first rows of a split. Raises UserError where it has no image."""
        rows = self.records.rows_of(split)[:images]
        if not len(rows):
            raise UserError(
                f"sweep.controls: the data has no image of split {split!r}, which a control takes "
                "a number from; name another `split` there"
            )
        return rows

    def evaluated(self) -> IntArray:
        """Return the rows of all splits that are evaluated."""
        return np.concatenate([self.records.rows_of(split) for split in self.splits])

    def tokens(
        self, rows: IntArray, projector: Projector | None = None
    ) -> Iterator[tuple[IntArray, Tensor]]:
        """Yield the visual tokens [b, p, d] of some rows, batch by batch; by default those of the
        point's projector."""
        import torch

        module = projector or self.projector
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            features = self.features.read(self.image_of[part]).astype(np.float32)
            with torch.no_grad():
                yield part, module(torch.from_numpy(features))

    def rms_norm(self, rows: IntArray, projector: Projector) -> float:
        """Return the root of the mean squared norm of the visual tokens of some rows."""
        total, count = 0.0, 0
        for _, tokens_bpd in self.tokens(rows, projector):
            total += float(tokens_bpd.double().square().sum())
            count += tokens_bpd.shape[0] * tokens_bpd.shape[1]
        return float((total / count) ** 0.5)

    def mean(self, rows: IntArray) -> Tensor:
        """Return the mean visual token [d] of some rows, in float32."""
        sums = [
            (tokens.double().sum((0, 1)), tokens[..., 0].numel()) for _, tokens in self.tokens(rows)
        ]
        mean_d = sum(total for total, _ in sums) / sum(count for _, count in sums)
        return mean_d.float()  # type: ignore[union-attr]


def in_norm_of(
    sources: Sources, projector: Projector, reference: Projector, settings: FittedControl
) -> ControlTokens:
    """Return `projector`, scaled so that its visual tokens have the root mean square norm of those
    of `reference`; its facts are both norms and the factor."""
    from vista.projector.control_tokens import ControlTokens

    rows = sources.rows(settings.split, settings.images)
    norm, reference_norm = (sources.rms_norm(rows, part) for part in (projector, reference))
    factor = reference_norm / norm if norm > 0 else 1.0
    facts = {"norm": norm, "reference_norm": reference_norm, "factor": factor}
    return ControlTokens(scaled(projector, factor), facts)


def scaled(projector: Projector, factor: float) -> Projector:
    """Return a projector whose output is `factor` times that of another."""
    import torch

    module = copy.deepcopy(projector)
    last = module.linears()[-1]
    with torch.no_grad():
        last.weight.mul_(factor)
        last.bias.mul_(factor)
    return module


def last_tokens(tokenizer: Any, words: Collection[str]) -> dict[str, int]:
    """Return the id of the last token of each word, as it stands within a text."""
    names = sorted(words)
    encoded = tokenizer([f" {name}" for name in names], add_special_tokens=False)["input_ids"]
    return {name: int(ids[-1]) for name, ids in zip(names, encoded, strict=True)}
