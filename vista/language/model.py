"""A frozen causal language model that takes visual tokens in and lets its residual stream be read.

Shape suffixes: b batch, p visual (patch) token, t token, d width of the residual stream,
v vocabulary, n positions picked out of a [b, t] grid in row-major order.

Two conventions hold everywhere, and only this file knows how a model realises them:

* Visual tokens replace the residual stream that *enters block 0* (VISTA, arXiv 2605.24946, section
  3; the projector's output is that stream). Writing them into the token embeddings instead would
  be wrong wherever a model works on its embeddings first: Gemma multiplies them by sqrt(d_model),
  GPT-2 adds positions.
* "Layer l" is the residual stream after block l, counted from 0, unnormed. `hidden_states[-1]` of
  most models has already gone through the final norm and is never used.

A model larger than one GPU may lie on several: inputs go to `device`, a tap and what an edit gets
are on `layer_device` of their layer, logits come back to `device`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vista.config.language import Placement
from vista.errors import UserError
from vista.language.checkpoint import eos_ids, load_checkpoint
from vista.language.prompt import Batch, QuestionAnswer, build_batch, opening_ids, prompt_ids
from vista.language.reading import Reading, narrow_head, one_length, removed
from vista.language.template import choose_template
from vista.language.vlm import IMAGE_INPUTS, position_shift, refuse_other_class

Edit = Callable[[Tensor], Tensor]

# Where the families keep their blocks, tried in order; a new family is one more line.
BLOCK_PATHS = (
    "model.layers",  # Llama, Gemma, Gemma 2, Gemma 3 (text), Qwen 2 and 3, Mistral, OLMo, Phi 3
    "model.language_model.layers",  # Gemma 3 and other models with a vision part of their own
    "transformer.h",  # GPT-2
    "gpt_neox.layers",  # Pythia
)


@dataclass(frozen=True)
class Forward:
    """What one pass gave.

    Attributes:
        logits: [b, t, v], or [n, v] if only some positions were asked for, or None if the pass
            stopped before the head.
        taps: residual stream [b, t, d] after each tapped block, after any edit of that block.
    """

    logits: Tensor | None
    taps: dict[int, Tensor] = field(default_factory=dict)


class _StopForward(Exception):
    """Raised by a hook to leave a pass early; never seen outside this file."""


def find_blocks(model: nn.Module, n_blocks: int) -> nn.ModuleList:
    """The list of decoder blocks of a Hugging Face causal language model.

    Raises:
        UserError: no known path leads to a list of `n_blocks` blocks.
    """
    for path in BLOCK_PATHS:
        module: Any = model
        for name in path.split("."):
            module = getattr(module, name, None)
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return module
    raise UserError(
        f"language model {type(model).__name__}: its {n_blocks} blocks were not found under any of "
        f"{', '.join(BLOCK_PATHS)}; add its path to BLOCK_PATHS in vista/language/model.py"
    )


class LanguageModel:
    """A frozen decoder with its tokenizer. Gradients flow through it to `visual`, never into it.

    Attributes:
        model: the Hugging Face model, in eval mode, no parameter requiring a gradient.
        tokenizer: its tokenizer.
        blocks: its decoder blocks; `n_blocks` of them.
        d_model: width of the residual stream.
        placement: where visual tokens stand in a prompt. It belongs to the model, so that training
            and every evaluation share it, as they share the tokenizer's chat template.
        system: system message of every prompt; None for none.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        placement: Placement = "after_bos",
        system: str | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.placement = placement
        self.system = system
        config = model.config.get_text_config()
        self.d_model = int(config.hidden_size)
        self.n_blocks = int(config.num_hidden_layers)
        if self.n_blocks < 1:
            raise UserError(
                f"language model: config.json has num_hidden_layers {self.n_blocks}, expected 1 or "
                "more; fetch the checkpoint again"
            )
        self.blocks = find_blocks(model, self.n_blocks)
        self.eos_ids = eos_ids(model, tokenizer)

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "cpu",
        dtype: str = "float32",
        placement: Placement = "after_bos",
        device_map: str | Mapping[str, Any] | None = None,
        max_memory: Mapping[str, str] | None = None,
        template: str = "tokenizer",
        system: str | None = None,
    ) -> LanguageModel:
        """Load a `save_pretrained` folder.

        Args:
            folder: config, tokenizer and safetensors weights.
            device: "cpu", "cuda", "cuda:1", "mps", or "auto" (the first of CUDA, MPS, CPU that is
                there); without effect under a `device_map`.
            dtype: "float32", "bfloat16" or "float16".
            placement: where visual tokens stand; see `vista.language.prompt`.
            device_map: how accelerate spreads the model over several devices: "auto", "balanced",
                "sequential", or module name -> device. No part may be left on disk.
            max_memory: most memory of each device under a `device_map`, {"0": "20GiB"}.
            template, system: chat template and system message; see `LanguageSettings`.

        Raises:
            UserError: the folder is missing or lacks weights in safetensors; it holds no known
                causal language model; the template cannot be read; or a device is not there or has
                too little memory.
        """
        if placement == "image":
            refuse_other_class(folder)
        model, tokenizer = load_checkpoint(
            folder,
            device=device,
            dtype=dtype,
            device_map=device_map,
            max_memory=max_memory,
        )
        choose_template(tokenizer, template, Path(folder))
        return cls(model, tokenizer, placement, system)

    @cached_property
    def opening(self) -> list[int]:
        """`opening_ids` of this model. A stage that reads text alone never asks for them."""
        return opening_ids(self.tokenizer, self.placement, self.system)

    @property
    def device(self) -> torch.device:
        """Where inputs go, and where logits come back."""
        return cast(torch.device, self.model.get_input_embeddings().weight.device)

    def layer_device(self, layer: int) -> torch.device:
        """Where block `layer` lies, and with it the tap of that layer."""
        return next(self.blocks[layer].parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return cast(torch.dtype, self.model.dtype)

    def batch(
        self,
        turns_per_sample: Sequence[Sequence[QuestionAnswer]],
        n_visual: int,
        max_length: int,
    ) -> Batch:
        """`build_batch` with this model's tokenizer and prompt settings; on the CPU.

        Raises UserError as that does, and where a token has no row in the model's embedding.
        """
        batch = build_batch(
            self.tokenizer, turns_per_sample, n_visual, max_length, self.placement, self.system
        )
        self._check_ids(max(batch.input_ids.flatten().tolist(), default=0))
        return batch

    def embed(self, input_ids_bt: Tensor) -> Tensor:
        """The residual stream entering block 0 for plain text, [b, t, d], model scale included."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(_stream_in(args, kwargs))
            raise _StopForward

        handle = self.blocks[0].register_forward_pre_hook(catch, with_kwargs=True)
        with torch.no_grad(), removed([handle]):
            self._run(input_ids=input_ids_bt, use_cache=False)
        return caught[0]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visual: Tensor | None = None,
        visual_start: int = 1,
        taps: Collection[int] = (),
        stop_after: int | None = None,
        edits: Mapping[int, Edit] | None = None,
        logits_at: Tensor | None = None,
    ) -> Forward:
        """One pass over whole sequences (no cache).

        Args:
            input_ids: token ids, right padded; ids at the visual positions are placeholders.
            attention_mask: 1 for real tokens (visual ones too), 0 for padding.
            visual: visual tokens; they replace the stream entering block 0 at positions
                visual_start .. visual_start + p - 1. `Batch.visual_start` says where that is.
            taps: layers whose residual stream to return.
            stop_after: leave the pass after this block; no logits then.
            edits: layer -> function of the whole stream [b, t, d] after that block; later blocks
                and the tap of that layer see its result.
            logits_at: bool mask; if given, logits are computed at these positions only and
                come as [n, v]. Vocabulary heads are large: 256k x 4 bytes a token for Gemma 2.

        Raises:
            ValueError: a layer out of range, or visual tokens that do not fit.
        """
        edits = edits or {}
        wanted = set(taps)
        used = {*wanted, *edits, *(() if stop_after is None else (stop_after,))}
        self._check_layers(used, stop_after)
        kept: dict[int, Tensor] = {}
        handles = []
        if visual is not None:
            self._check_visual(input_ids, visual, visual_start)
            handles.append(self._write_visual(visual, visual_start))
        for layer in sorted(used):
            stop = layer == stop_after
            handles.append(self._watch(layer, edits.get(layer), layer in wanted, kept, stop))
        if logits_at is not None:
            handles.append(narrow_head(self.model, logits_at))
        extra = {} if visual is None else self._image_inputs(input_ids, visual, visual_start)
        with removed(handles):
            output = self._run(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **extra
            )
        logits = None if output is None else cast(Tensor, output.logits)
        if logits is not None and logits_at is not None:
            # Not logits[0]: its backward pass writes the gradient into zeros of the same size.
            logits = logits.squeeze(0)
        return Forward(logits=logits, taps=kept)

    @torch.no_grad()
    def generate(
        self,
        visual: Tensor | None,
        prompts: Sequence[str],
        max_new_tokens: int,
        edits: Mapping[int, Edit] | None = None,
        batch_size: int = 64,
    ) -> list[str]:
        """Greedy answers to `prompts` (questions), each with its own visual tokens.

        Prompts are put into batches of equal length, so no padding ever enters the cache and an
        answer does not depend on its neighbours.

        Args:
            visual: visual tokens, or None for text alone.
            prompts: one question for each image; formatted as in training.
            edits: as in `forward`; they act on the prompt (image and question) only. What they
                change reaches the answer through the cache.

        Raises:
            ValueError: images and prompts do not pair up, or edits come with prompts that do not
                fit into one batch of one length (an edit knows images by their row).
        """
        if visual is not None and len(visual) != len(prompts):
            raise ValueError(f"{len(visual)} images but {len(prompts)} prompts")
        encoded = self.prompts(prompts, 0 if visual is None else visual.shape[1])
        if edits and (len({len(ids) for ids in encoded}) > 1 or len(prompts) > batch_size):
            raise ValueError("edits need prompts of one length that fit into one batch")
        answers = [""] * len(prompts)
        for rows in one_length([len(ids) for ids in encoded], batch_size):
            ids_bt = torch.tensor([encoded[i] for i in rows], device=self.device)
            reading = self.read(ids_bt, None if visual is None else visual[rows], edits)
            for i, text in zip(rows, self.answers(reading, max_new_tokens), strict=True):
                answers[i] = text
        return answers

    def prompts(self, questions: Sequence[str], n_visual: int) -> list[list[int]]:
        """The ids of each question's prompt, as in training: opening, placeholders, question."""
        known = {
            question: prompt_ids(self.tokenizer, question, n_visual, self.placement, self.system)
            for question in dict.fromkeys(questions)
        }
        self._check_ids(max((max(ids, default=0) for ids in known.values()), default=0))
        return [known[question] for question in questions]

    def read(
        self, ids_bt: Tensor, visual: Tensor | None = None, edits: Mapping[int, Edit] | None = None
    ) -> Reading:
        """Read sequences of one length and keep their cache, to read on or to be answered.

        Args:
            ids_bt: ids without padding, placeholders for visual tokens after the opening.
            visual: the visual tokens.
            edits: as in `forward`; they act on these tokens only. What they change reaches later
                ones through the cache.

        Raises:
            ValueError: a layer out of range, or visual tokens that do not fit.
        """
        n_visual = 0 if visual is None else visual.shape[1]
        model_type = self.model.config.model_type
        shift = position_shift(model_type, n_visual) if self.placement == "image" else None
        handles, extra = [], dict[str, Tensor]()
        self._check_layers(set(edits or {}), None)
        if visual is not None:
            self._check_visual(ids_bt, visual, len(self.opening))
            handles.append(self._write_visual(visual, len(self.opening)))
            extra = self._image_inputs(ids_bt, visual, len(self.opening))
        for layer, edit in (edits or {}).items():
            handles.append(self._watch(layer, edit, False, {}, False))
        with removed(handles):
            return Reading(self.model, ids_bt[:, :0], shift=shift).on(ids_bt, **extra)

    def answers(self, reading: Reading, max_new_tokens: int) -> list[str]:
        """The greedy answer to each prompt that was read."""
        return self.decode(self.answer_ids(reading, max_new_tokens))

    def answer_ids(self, reading: Reading, max_new_tokens: int) -> list[list[int]]:
        """The tokens of the greedy answer to each prompt, without the one that ends it."""
        return reading.greedy(max_new_tokens, sorted(self.eos_ids))

    def decode(self, answers: Sequence[list[int]]) -> list[str]:
        """The text of each answer, without special tokens."""
        return [cast(str, self.tokenizer.decode(ids, skip_special_tokens=True)) for ids in answers]

    def _image_inputs(self, ids_bt: Tensor, visual_bpd: Tensor, start: int) -> dict[str, Tensor]:
        """What the model's own class is called with where an image stands."""
        if self.placement != "image":
            return {}
        config = self.model.config
        return IMAGE_INPUTS[config.model_type](config, ids_bt, start, visual_bpd.shape[1])

    def _run(self, **inputs: Any) -> Any:
        """The model's own forward; None if a hook left it early."""
        try:
            return self.model(**inputs)
        except _StopForward:
            return None

    def _write_visual(self, visual_bpd: Tensor, start: int) -> RemovableHandle:
        def write(
            _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            h_btd = _stream_in(args, kwargs)
            end = start + visual_bpd.shape[1]
            # The stream's dtype and, in a model on several devices, its device.
            spliced = torch.cat([h_btd[:, :start], visual_bpd.to(h_btd), h_btd[:, end:]], dim=1)
            if args:
                return (spliced, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": spliced}

        return self.blocks[0].register_forward_pre_hook(write, with_kwargs=True)

    def _watch(
        self, layer: int, edit: Edit | None, tap: bool, kept: dict[int, Tensor], stop: bool
    ) -> RemovableHandle:
        def watch(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
            h_btd = output[0] if isinstance(output, tuple) else output
            if edit is not None:
                h_btd = edit(h_btd)
            if tap:
                kept[layer] = h_btd
            if stop:
                raise _StopForward
            if edit is None:
                return None
            return (h_btd, *output[1:]) if isinstance(output, tuple) else h_btd

        return self.blocks[layer].register_forward_hook(watch)

    def _check_ids(self, largest: int) -> None:
        rows = self.model.get_input_embeddings().weight.shape[0]
        if largest >= rows:
            raise UserError(
                f"language model: its tokenizer gives token {largest}, but its embedding has "
                f"{rows} rows; give the tokenizer that belongs to the model"
            )

    def _check_layers(self, layers: set[int], stop_after: int | None) -> None:
        wrong = sorted(layer for layer in layers if not 0 <= layer < self.n_blocks)
        if wrong:
            raise ValueError(f"layers {wrong} asked of a model with blocks 0..{self.n_blocks - 1}")
        late = sorted(layer for layer in layers if stop_after is not None and layer > stop_after)
        if late:
            raise ValueError(f"layers {late} come after stop_after={stop_after}")

    def _check_visual(self, input_ids_bt: Tensor, visual_bpd: Tensor, start: int) -> None:
        b, p, d = visual_bpd.shape
        if b != input_ids_bt.shape[0] or start + p > input_ids_bt.shape[1] or d != self.d_model:
            raise ValueError(
                f"visual tokens {tuple(visual_bpd.shape)} at {start} do not fit ids "
                f"{tuple(input_ids_bt.shape)} of a model of width {self.d_model}"
            )


def _stream_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return cast(Tensor, args[0] if args else kwargs["hidden_states"])
