"""Captions of edited images: a batch of images x edits with a KV cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Case, Limit, Size, seconds
from benchmarks.machine import bandwidth
from benchmarks.models import QUESTION, SHAPES, WORDS, Setup, Shapes
from benchmarks.profiles import torch_shares

# The first rows of an image are unedited.
COEFFICIENTS = (0.0, 1.0, 4.0, 10.0)
BLOCKS = (0, 1, 2)


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Yield the one case."""
    images, tokens = (2, 4) if size == "tiny" else (8, 50)
    shapes = SHAPES["tiny" if size == "tiny" else "embedded"]
    both = _Both(shapes, folder, images, tokens)
    check(both)
    # A profile of all operators of all tokens would fill the memory.
    few = _Both(shapes, folder / "few", 1, min(10, tokens))
    weights = sum(each.numel() * each.element_size() for each in both.llm.model.parameters())
    yield Case(
        "captions of edited images",
        f"{images} images x {len(COEFFICIENTS)} edits, {tokens} new tokens each, embedded sizes; "
        "usual: one image at a time, no KV cache, the image encoded again for every token",
        ours=lambda: seconds(both.ours),
        usual=lambda: seconds(both.usual),
        bar=20,
        runs=3,
        limit=Limit(tokens * weights / bandwidth(), "decode bandwidth: the weights once a token"),
        profile=lambda: (torch_shares(few.usual), torch_shares(few.ours)),
    )


def check(both: _Both) -> None:
    """Raise unless both ways write the same captions from features of the same precision."""
    ours = both.captions(both.encoder.encode(both.pixels).numpy())
    usual = both.usual()
    # Another order of sums may turn a token, and with it the rest of that caption.
    if sum(a != b for a, b in zip(ours, usual, strict=True)) > len(usual) / 10:
        raise AssertionError(f"captions: {ours} here, {usual} the usual way")


class _Both(Setup):
    """Both ways to caption images with a part of their visual tokens edited."""

    def __init__(self, shapes: Shapes, folder: Path, images: int, tokens: int) -> None:
        import torch

        from vista.projector.module import make_projector
        from vista.standins.llm import build_tokenizer

        # Every id has a word, or captions could not be told apart.
        words = len(build_tokenizer([WORDS]))
        super().__init__(
            replace(shapes, language={**shapes.language, "vocab_size": words}), folder, images
        )
        # Nobody stops early: the work is the same on every machine.
        self.llm.eos_ids = frozenset()
        self.tokens = tokens
        self.projector = make_projector("linear", self.encoder.d_vision, self.llm.d_model, seed=0)
        self.projector.requires_grad_(False)
        direction_d = torch.randn(self.llm.d_model, generator=torch.Generator().manual_seed(0))
        self.direction_d = direction_d / direction_d.norm()
        self.patches_p = torch.arange(self.n_visual) % 3 == 0

    def ours(self) -> list[str]:
        """The captions, from cached features."""
        return self.captions(self.reader.read(range(self.images)))

    def captions(self, features: NDArray[Any]) -> list[str]:
        """The captions of all rows, as the stage edit_captions makes them."""
        import torch

        from vista.interventions.edits import Concept, RowEdit, stream_edits

        source = Concept(self.direction_d)
        rows = [
            RowEdit("subtract", coefficient, self.patches_p, source, blocks=BLOCKS)
            if coefficient
            else None
            for _ in range(self.images)
            for coefficient in COEFFICIENTS
        ]
        features_bpv = torch.from_numpy(features.astype(np.float32))
        features_bpv = features_bpv.repeat_interleave(len(COEFFICIENTS), 0)
        return self.llm.generate(
            self.projector(features_bpv),
            [QUESTION] * len(rows),
            max_new_tokens=self.tokens,
            edits=stream_edits(rows, len(self.llm.opening)),
        )

    def usual(self) -> list[str]:
        """The same captions, one after the other."""
        from benchmarks.usual.captions import caption
        from vista.language.prompt import prompt_ids

        prompt = prompt_ids(self.llm.tokenizer, QUESTION, self.n_visual)
        away_pd = self.patches_p[:, None] * -self.direction_d
        made = [
            caption(
                self.encoder.model, self.projector, self.llm.model, image, prompt,
                BLOCKS, coefficient * away_pd, self.tokens,
            )
            for image in self.pixel_values
            for coefficient in COEFFICIENTS
        ]  # fmt: skip
        return [self.llm.tokenizer.decode(ids, skip_special_tokens=True) for ids in made]
