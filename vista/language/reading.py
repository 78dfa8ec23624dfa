"""Sequences that a language model has read once, with the cache of their keys and values.

What begins alike is read once: a caption, the cross-entropy of a reference and that of another
image's reference all begin with the same visual tokens.

Shape suffixes: b sequence, t token, v vocabulary, n positions picked out of a [b, t] grid in
row-major order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vista.language.prompt import Batch


@dataclass(frozen=True)
class Reading:
    """Sequences of one length that a model has read. It never changes: reading on gives a new one.

    Attributes:
        model: the Hugging Face model.
        ids_bt: the ids read so far, placeholders of visual tokens included.
        cache: its `past_key_values`; None before the first token.
        logits_bv: logits of the next token; None before the first token.
        shift: what is added to a token's place to give its position; None: the model counts.
    """

    model: Any
    ids_bt: Tensor
    cache: Any | None = None
    logits_bv: Tensor | None = None
    shift: int | None = None

    def on(self, ids_bt: Tensor, **inputs: Tensor) -> Reading:
        """Read some more tokens of each sequence; the model gets `inputs` too."""
        if ids_bt.shape[1] == 0:
            return self
        output = self._run(ids_bt, logits_to_keep=1, **inputs)
        read_bt = torch.cat([self.ids_bt, ids_bt], dim=1)
        logits_bv = output.logits[:, -1]
        return Reading(self.model, read_bt, output.past_key_values, logits_bv, self.shift)

    def begins(self, batch: Batch) -> bool:
        """Whether the samples of a batch begin with what was read, as far as they go."""
        ids_bt = batch.input_ids[:, : self.ids_bt.shape[1]]
        return torch.equal(ids_bt, self.ids_bt[:, : ids_bt.shape[1]])

    def answer_logits(self, batch: Batch) -> Tensor:
        """Logits [n, v] at `batch.predict_mask`, as one pass over whole samples gives them.

        Args:
            batch: samples with the visual tokens that were read; its padding is on the right, so
                no real token attends to it.

        Raises:
            ValueError: a sample does not begin with what was read.
        """
        if not self.begins(batch):
            raise ValueError("the samples do not begin with what was read")
        start = self.ids_bt.shape[1]
        # The last token that was read predicts the first of the rest.
        at_bt = batch.predict_mask[:, max(start - 1, 0) :]
        rest_bt = batch.predict_mask[:, start:]
        if self.logits_bv is None or rest_bt.any():
            with removed([narrow_head(self.model, rest_bt)]):
                rest_nv = cast(Tensor, self._run(batch.input_ids[:, start:]).logits[0])
        else:
            rest_nv = self.logits_bv[:0]
        if self.logits_bv is None or not at_bt[:, 0].any():
            return rest_nv
        first_n = at_bt.nonzero()[:, 1] == 0
        logits_nv = rest_nv.new_empty(len(first_n), rest_nv.shape[1])
        logits_nv[first_n] = self.logits_bv[at_bt[:, 0]]
        logits_nv[~first_n] = rest_nv
        return logits_nv

    def greedy(self, max_new_tokens: int, ends: Sequence[int]) -> list[list[int]]:
        """The likeliest next tokens of each sequence, up to one of `ends`, which is left out.

        A sequence that has ended leaves the batch. Raises ValueError where nothing was read.
        """
        if self.logits_bv is None:
            raise ValueError("greedy decoding needs at least one token before it")
        answers: list[list[int]] = [[] for _ in self.ids_bt]
        rows, cache = list(range(len(answers))), _twin(self.cache)
        next_b = self.logits_bv.argmax(-1)
        for step in range(max_new_tokens):
            if step:
                output = self.model(
                    input_ids=next_b[:, None],
                    past_key_values=cache,
                    use_cache=True,
                    **self._positions(next_b[:, None], self.ids_bt.shape[1] + step - 1),
                )
                cache, next_b = output.past_key_values, output.logits[:, -1].argmax(-1)
            tokens = next_b.tolist()
            going = [i for i, token in enumerate(tokens) if token not in ends]
            for i in going:
                answers[rows[i]].append(tokens[i])
            if not going:
                break
            if len(going) < len(rows):
                # On the CPU: the layers of a cache may lie on several devices.
                kept = torch.tensor(going)
                cache.batch_select_indices(kept)
                next_b = next_b[kept.to(next_b.device)]
                rows = [rows[i] for i in going]
        return answers

    def _run(self, ids_bt: Tensor, **options: Any) -> Any:
        cache = None if self.cache is None else _twin(self.cache)
        positions = self._positions(ids_bt, self.ids_bt.shape[1])
        return self.model(
            input_ids=ids_bt, past_key_values=cache, use_cache=True, **positions, **options
        )

    def _positions(self, ids_bt: Tensor, start: int) -> dict[str, Tensor]:
        """The positions of tokens from place `start` on, where the model is told them."""
        if self.shift is None or start == 0:
            return {}
        places_t = torch.arange(start, start + ids_bt.shape[1], device=ids_bt.device)
        return {"position_ids": (places_t + self.shift).expand(ids_bt.shape)}


def one_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Split sequences into batches of at most `size` of one length; yields their indices."""
    for length in sorted(set(lengths)):
        same = [i for i, other in enumerate(lengths) if other == length]
        for start in range(0, len(same), size):
            yield same[start : start + size]


def narrow_head(model: Any, logits_at_bt: Tensor) -> RemovableHandle:
    """Let a model compute its logits at some positions alone; they come as [1, n, v].

    Narrowing the head's *input* leaves the model's own head in charge: whatever it does after the
    matrix product (Gemma 2's soft cap) is still done.
    """

    def narrow(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][logits_at_bt.to(args[0].device)][None], *args[1:])

    head = model.get_output_embeddings()
    return cast(RemovableHandle, head.register_forward_pre_hook(narrow))


@contextmanager
def removed(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Take hooks off again, whatever happens in between."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def _twin(cache: Any) -> Any:
    """A cache that grows apart from the first one, and shares the tensors that both hold now."""
    from transformers.cache_utils import DynamicLayer

    twin = copy(cache)
    # Layers of keys and values grow by new tensors; others may write into the ones they have.
    twin.layers = [
        copy(layer) if isinstance(layer, DynamicLayer) else deepcopy(layer)
        for layer in cache.layers
    ]
    return twin
