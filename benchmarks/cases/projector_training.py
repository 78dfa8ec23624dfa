"""Projector training on cached features, and what the SAE term adds to a step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import Case, Limit, Size, seconds
from benchmarks.models import (
    LAYERS,
    MAX_LENGTH,
    SHAPES,
    Setup,
    flops_limit,
    make_llm,
    make_saes,
    make_turns,
    require_same,
)
from benchmarks.profiles import torch_shares

BATCH, LR = 8, 1e-3


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Yield a case for each weight of the SAE term, and the term's share of a step."""
    images, steps = (8, 2) if size == "tiny" else (64, 16)
    shapes = SHAPES["tiny" if size == "tiny" else "embedded"]
    both = _Both(shapes, folder, images)
    check(both)
    limit = flops_limit(lambda: both.ours(0, 1), "LLM forward and backward", steps)
    for weight in (0, 1):
        yield _case(both, weight, steps, limit)
    yield _share_of_the_term(size)


def _case(both: _Both, weight: float, steps: int, limit: Limit) -> Case:
    def ours() -> None:
        both.ours(weight, steps)

    def usual() -> None:
        both.usual(weight, steps)

    return Case(
        f"projector training, lambda {weight:g}",
        f"{steps} steps of {BATCH} images, embedded LLM; usual: every image encoded again at every "
        "step, micro-batches of 1, all hidden states",
        ours=lambda: seconds(ours),
        usual=lambda: seconds(usual),
        bar=1.5,
        limit=limit,
        profile=lambda: (torch_shares(usual), torch_shares(ours)),
    )


def check(both: _Both) -> None:
    """Raise unless both ways give the same curve, and the same gradient in the first step."""
    for weight in (0, 1):
        gradients = []
        for side in (both.ours, both.usual):
            projector, _ = side(weight, 1)
            gradients.append(projector.layers[0].weight.grad)
        # Cached features are float16.
        require_same(f"gradient at lambda {weight}", *gradients, tolerance=5e-3)
        curves = [side(weight, 2)[1] for side in (both.ours, both.usual)]
        require_same(f"curve at lambda {weight}", *curves, tolerance=1e-3)


class _Both(Setup):
    """The two ways on the same models, images and order."""

    def ours(self, weight: float, steps: int) -> tuple[Any, list[Any]]:
        """Return the trained projector and its curve [step, 2]."""
        saes, shape = self.saes if weight else {}, self.reader.shape
        return train(self.llm, saes, self.turns, shape, self.reader.read, weight, steps)

    def usual(self, weight: float, steps: int) -> tuple[Any, list[Any]]:
        """Return the trained projector and its curve [step, 2]."""
        from benchmarks.usual.train_projector import train as train_usual
        from vista.projector.module import make_projector
        from vista.projector.train import batch_indices

        projector = make_projector("linear", self.reader.shape[-1], self.llm.d_model, seed=0)
        order = [batch_indices(len(self.turns), BATCH, step, 0).tolist() for step in range(steps)]
        curve = train_usual(
            projector, self.encoder.model, self.llm.model, self.plain_saes, self.pixel_values,
            self.samples, order, weight, LR,
        )  # fmt: skip
        return projector, curve

    @cached_property
    def samples(self) -> list[tuple[Any, Any]]:
        """Ids and labels [1, t] of each conversation."""
        batches = [self.llm.batch([turns], self.n_visual, MAX_LENGTH) for turns in self.turns]
        return [(batch.input_ids, batch.labels) for batch in batches]


def train(
    llm: Any, saes: Any, turns: Any, shape: tuple[int, ...], read: Any, weight: float, steps: int
) -> tuple[Any, list[Any]]:
    """Train a projector from features of `shape` [image, patch, channel]; return it with its curve
    [step, 2]: cross-entropy and SAE error, 0 without the term."""
    from vista.config.projector import TrainingStage
    from vista.projector.module import make_projector
    from vista.projector.passes import TrainingData
    from vista.projector.train import train_projector

    projector = make_projector("linear", shape[-1], llm.d_model, seed=0)
    stage = TrainingStage(
        steps=steps, batch_size=BATCH, lr=LR, warmup=0, max_length=MAX_LENGTH,
        checkpoint_every=10**6,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        curve = train_projector(
            projector, llm, saes, TrainingData(turns, shape[1], read), stage,
            sae_weight=weight, seed=0, checkpoints=Path(folder),
        )  # fmt: skip
    return projector, list(
        zip(curve["cross_entropy"], np.nan_to_num(curve["sae_error"]), strict=True)
    )


def _share_of_the_term(size: Size) -> Case:
    """A step with the SAE term against one without."""
    shapes = SHAPES["tiny" if size == "tiny" else "published"]
    # Two images: a step takes half a minute on two cores.
    images = 2
    models: list[Any] = []

    def step(weight: float) -> float:
        # Made at the first run: they take 7 GB, which no other case should have to live with.
        if not models:
            llm = make_llm(shapes, dtype="bfloat16")
            models.extend((llm, make_saes(shapes, llm, LAYERS)))
        llm, saes = models
        patches = (shapes.vision["image_size"] // shapes.vision["patch_size"]) ** 2
        shape = (images, patches, shapes.vision["hidden_size"])
        features = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
        read = features.__getitem__
        saes = saes if weight else {}
        return seconds(lambda: train(llm, saes, make_turns(images), shape, read, weight, 1))

    return Case(
        "SAE term in a step, published sizes",
        f"one step of {images} images at lambda 1 against lambda 0: 26 blocks of Gemma-2-2B in "
        "bfloat16, 16k SAEs in float32 on blocks 0..4, random weights",
        ours=lambda: step(1),
        usual=lambda: step(0),
        bar=1.25,
        at_most=True,
        runs=1,
        profile=lambda: (torch_shares(lambda: step(0)), torch_shares(lambda: step(1))),
    )
