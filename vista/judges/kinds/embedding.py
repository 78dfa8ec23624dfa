"""The judge that compares sentence embeddings: a text names an object that it lies close to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from vista.config.checkpoint import Checkpoint
from vista.config.data import Split
from vista.config.judge_base import Device, Dtype, JudgeSettings, short_name
from vista.errors import UserError
from vista.judges import Resources

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(JudgeSettings):
    """Cosine of the sentence embeddings of text and object name."""

    kind: Literal["embedding"] = "embedding"
    source: Checkpoint = Field(description="Sentence encoder that AutoModel loads.")
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Least cosine that counts as naming; null: the one of the largest F1 on "
        "`fit_split`.",
    )
    fit_split: Split = Field(
        "validation",
        description="Images whose reference captions and objects the threshold is fitted on. "
        "Metrics mostly judge labels of latents, which are shorter than captions: "
        "metrics.judge_agreement measures how the threshold carries over.",
    )
    max_tokens: int = Field(128, ge=4, description="Longest text, in tokens; the rest is cut off.")
    batch_size: int = Field(64, ge=1, description="Texts a forward pass.")
    device: Device = Field("cpu", description='"cpu", "cuda", "cuda:1" or "mps".')
    dtype: Dtype = Field("float32", description="Number format of the weights.")

    @property
    def fitted_on(self) -> Split | None:
        """The split that its threshold is fitted on; None where the threshold is set."""
        return self.fit_split if self.threshold is None else None


@dataclass(frozen=True)
class Threshold:
    """A threshold and how well it parts the pairs that it was fitted on.

    Attributes:
        value: Least cosine that counts as naming.
        precision: Share of the pairs above it whose text names the object.
        recall: Share of the pairs whose text names the object that lie above it.
        f1: Harmonic mean of the two, which `value` maximises.
        n: Pairs.
        n_named: Pairs whose text names the object.
    """

    value: float
    precision: float
    recall: float
    f1: float
    n: int
    n_named: int


class EmbeddingJudge:
    """Cosine of text and object name, cut at a threshold.

    Args:
        embed: texts -> unit rows [texts, width].
        threshold: Least cosine that counts as naming; None until it is fitted.
        name: Name of the judge in tables.
    """

    looks = False

    def __init__(
        self,
        embed: Callable[[Sequence[str]], NDArray[np.float32]],
        threshold: float | None,
        name: str = "embedding",
    ) -> None:
        self.name = name
        self.threshold = threshold
        self._embed = embed

    def judge(self, texts: Sequence[str | None], objects: Sequence[str]) -> NDArray[np.bool_]:
        """Return [texts, objects]: True where the cosine reaches the threshold.

        Raises:
            UserError: There is no threshold.
        """
        if self.threshold is None:
            raise UserError(
                "judge.threshold: the embedding judge has none here; give a number, or fit it on "
                "a development split first"
            )
        result: NDArray[np.bool_] = self.similarity(texts, objects) >= self.threshold
        return result

    def similarity(
        self, texts: Sequence[str | None], objects: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return the cosines [texts, objects]; minus infinity where one of the two is blank."""
        import numpy as np

        rows, columns = list(dict.fromkeys(texts)), list(dict.fromkeys(objects))
        spoken_r = np.array([bool(text and text.strip()) for text in rows], dtype=bool)
        spoken_c = np.array([bool(name.strip()) for name in columns], dtype=bool)
        cosine = np.full((len(rows), len(columns)), -np.inf, dtype=np.float32)
        if spoken_r.any() and spoken_c.any():
            vectors = self._embed([text for text in rows if text and text.strip()])
            names = self._embed([name for name in columns if name.strip()])
            cosine[np.ix_(spoken_r, spoken_c)] = vectors @ names.T
        row = {text: i for i, text in enumerate(rows)}
        column = {name: j for j, name in enumerate(columns)}
        chosen = np.ix_([row[text] for text in texts], [column[name] for name in objects])
        result: NDArray[np.float32] = cosine[chosen]
        return result

    def fit(
        self, texts: Sequence[str], objects: Sequence[str], truth: NDArray[np.bool_]
    ) -> tuple[Self, Threshold]:
        """Return the judge with the threshold of the largest F1 on known pairs, and what it is.

        Args:
            texts: Of a development split.
            objects: Names of objects.
            truth: [texts, objects]: whether the text names the object.

        Raises:
            UserError: All pairs are of one kind, so that no threshold separates them.
        """
        threshold = fit_threshold(self.similarity(texts, objects), truth)
        return type(self)(self._embed, threshold.value, self.name), threshold


def fit_threshold(similarity: NDArray[np.floating], truth: NDArray[np.bool_]) -> Threshold:
    """Return the threshold of the largest F1; of equals the highest.

    Hardly any pair of a text and an object belongs together. Balanced accuracy, which weighs all
    the others as one half, would accept several wrong pairs for each right one; F1 counts wrong
    against right. The threshold lies half way between two neighbouring similarities, so that it
    depends on no rounding.

    Args:
        similarity: Any shape; minus infinity marks a pair that is left out.
        truth: Same shape: whether the pair belongs together.

    Raises:
        UserError: All pairs are of one kind.
        ValueError: The shapes differ.
    """
    import numpy as np

    if similarity.shape != truth.shape:
        raise ValueError(f"shapes differ: {similarity.shape} and {truth.shape}")
    kept = np.isfinite(similarity)
    score, named = similarity[kept].astype(np.float64), truth[kept].astype(bool)
    n, n_named = len(named), int(named.sum())
    if n_named in (0, n):
        raise UserError(
            "judge.threshold: the development split has no pair of a text and an object that it "
            f"{'names' if not n_named else 'does not name'}; give a number instead"
        )
    order = np.argsort(-score, kind="stable")
    score, named = score[order], named[order]
    # A cut after position i accepts the i + 1 highest pairs; only between unequal ones.
    cuts = np.flatnonzero(score[:-1] > score[1:])
    if not len(cuts):
        raise UserError("judge.threshold: all pairs are equally similar; take another encoder")
    hits, accepted = np.cumsum(named)[cuts], cuts + 1
    f1 = 2 * hits / (accepted + n_named)
    best = int(np.argmax(f1))
    at = cuts[best]
    return Threshold(
        value=float((score[at] + score[at + 1]) / 2),
        precision=float(hits[best] / accepted[best]),
        recall=float(hits[best] / n_named),
        f1=float(f1[best]),
        n=n,
        n_named=n_named,
    )


def create(settings: Settings, resources: Resources) -> EmbeddingJudge:
    """Return the judge, without a threshold where the settings leave it to be fitted.

    Raises:
        UserError: Its model cannot be loaded.
    """
    from vista.judges.backends.sentences import sentence_embedder

    source = settings.source
    embed = sentence_embedder(
        resources.model or str(source.path),
        device=settings.device,
        dtype=settings.dtype,
        max_tokens=settings.max_tokens,
        batch=settings.batch_size,
    )
    return EmbeddingJudge(embed, settings.threshold, f"embedding:{short_name(source)}")
