"""Fast paths of torch, one against the plain one, for their own sake: what gives nothing stays out.

Both sides compute the same; the check holds their outputs to what the number format allows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.case import Case, Size, seconds
from benchmarks.models import MAX_LENGTH, SHAPES, Setup, require_same


def cases(size: Size, folder: Path) -> Iterator[Case]:
    """Yield each fast path on the vision model's forward, or on the language model's step."""
    import torch

    setup = Setup(SHAPES["tiny" if size == "tiny" else "embedded"], folder, 32)
    vision, language = setup.encoder.model, setup.llm.model
    pixels = torch.cat(setup.pixel_values)
    batch = setup.llm.batch(setup.turns, 0, MAX_LENGTH)
    embedded = language.get_input_embeddings()(batch.input_ids).detach()

    def see(model: Any = vision) -> Any:
        with torch.no_grad():
            return model(pixel_values=pixels).last_hidden_state

    def step(model: Any = language) -> Any:
        """Forward, and backward to the embeddings, as the projector's training does."""
        stream = embedded.clone().requires_grad_(True)
        model(inputs_embeds=stream, attention_mask=batch.attention_mask, labels=batch.labels,
              use_cache=False).loss.backward()  # fmt: skip
        return stream.grad

    def low(run: Callable[[], Any]) -> Callable[[], Any]:
        def cast() -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return run()

        return cast

    for name, run in (("vision forward", see), ("LLM forward and backward", step)):
        yield _case(f"bf16 autocast, {name}", low(run), run, 0.05)
    # Not the language model: the soft cap of Gemma 2 is in eager attention alone.
    eager = copy.deepcopy(vision)
    eager.set_attn_implementation("eager")
    yield _case("SDPA, vision forward", see, lambda: see(eager), 1e-3)
    yield _case("fused AdamW, 50 steps", _adamw(setup, True), _adamw(setup, False), 1e-4)
    # Half a minute of compiling, which no test can afford.
    if size == "full":
        yield _compiled("vision forward", vision, see)
        yield _compiled("LLM forward and backward", language, step)


def _compiled(name: str, model: Any, run: Callable[..., Any]) -> Case:
    import torch

    fast = torch.compile(model)
    first = seconds(lambda: run(fast))
    more = f"after a first run of {first:.0f} s"
    return _case(f"torch.compile, {name}", lambda: run(fast), run, 1e-3, more)


def _case(
    name: str, ours: Callable[[], Any], usual: Callable[[], Any], tolerance: float, more: str = ""
) -> Case:
    require_same(name, ours(), usual(), tolerance)
    return Case(
        name,
        ", ".join(filter(None, ("32 images or conversations, embedded sizes", more))),
        ours=lambda: seconds(ours),
        usual=lambda: seconds(usual),
    )


def _adamw(setup: Setup, fused: bool) -> Callable[[], Any]:
    """Steps of a projector's optimizer on a gradient that stays."""
    import torch

    from vista.projector.module import make_projector

    def run() -> Any:
        projector = make_projector("linear", setup.encoder.d_vision, setup.llm.d_model, seed=0)
        optimizer = torch.optim.AdamW(projector.parameters(), lr=1e-3, fused=fused)
        for parameter in projector.parameters():
            parameter.grad = parameter.detach().clone()
        for _ in range(50):
            optimizer.step()
        return projector.layers[0].weight.detach()

    return run
