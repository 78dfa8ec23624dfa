"""The conventions of vista.language.model, on every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vista.errors import UserError
from vista.language.model import LanguageModel, find_blocks
from vista.language.prompt import prompt_ids

IDS = torch.tensor([[1, 5, 9, 7, 11, 6, 8], [1, 6, 6, 12, 4, 10, 5]])
N_VISUAL = 3
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def _plain_logits(lm: LanguageModel, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = lm.model(input_ids=ids, use_cache=False).logits
    return logits


def _logits(lm: LanguageModel, *args: Any, **kwargs: Any) -> torch.Tensor:
    with torch.no_grad():
        logits = lm.forward(*args, **kwargs).logits
    assert logits is not None
    return logits


@pytest.fixture
def ids_as_text(placed_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers as ids: random models say bytes that are no text, and different ones look alike."""
    monkeypatch.setattr(
        placed_lm.tokenizer, "decode", lambda ids, **_: " ".join(str(int(i)) for i in ids)
    )


def _visual(lm: LanguageModel, n: int = len(IDS)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, N_VISUAL, lm.d_model, generator=generator)


def test_a_prompts_own_stream_spliced_in_gives_plain_logits(any_lm: LanguageModel) -> None:
    """Fails if visual tokens go anywhere but the stream entering block 0."""
    own = any_lm.embed(IDS)[:, 1 : 1 + N_VISUAL]
    blank = IDS.clone()
    blank[:, 1 : 1 + N_VISUAL] = 0
    spliced = _logits(any_lm, blank, torch.ones_like(IDS), visual=own)
    torch.testing.assert_close(spliced, _plain_logits(any_lm), **CLOSE)
    assert not torch.allclose(_logits(any_lm, blank), spliced, atol=1e-3)


def test_visual_tokens_are_not_scaled_after_they_are_written(any_lm: LanguageModel) -> None:
    visual = _visual(any_lm)
    seen: list[torch.Tensor] = []
    handle = any_lm.blocks[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    try:
        written = any_lm._write_visual(visual, 1)
        # The watcher sits before the writer; a second one behind it sees what block 0 gets.
        handle.remove()
        handle = any_lm.blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        _plain_logits(any_lm)
        written.remove()
    finally:
        handle.remove()
    torch.testing.assert_close(seen[-1][:, 1 : 1 + N_VISUAL], visual)
    text = any_lm.embed(IDS)
    torch.testing.assert_close(seen[-1][:, 1 + N_VISUAL :], text[:, 1 + N_VISUAL :])


def test_the_embedded_stream_carries_gemmas_scale_once_and_no_other_models(
    any_lm: LanguageModel,
) -> None:
    scale = any_lm.d_model**0.5 if any_lm.model.config.model_type.startswith("gemma") else 1.0
    expected = any_lm.model.get_input_embeddings().weight[IDS] * scale
    positions = getattr(any_lm.model.base_model, "wpe", None)  # GPT-2 adds learnt positions
    if positions is not None:
        expected = expected + positions.weight[: IDS.shape[-1]]
    torch.testing.assert_close(any_lm.embed(IDS), expected)


def test_layer_l_is_the_stream_after_block_l(any_lm: LanguageModel) -> None:
    """Fails on an off-by-one block, and on the normed last hidden state."""
    outputs: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            outputs[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [b.register_forward_hook(keep(i)) for i, b in enumerate(any_lm.blocks)]
    with torch.no_grad():
        states = any_lm.model(input_ids=IDS, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        taps = any_lm.forward(IDS, taps=range(any_lm.n_blocks)).taps
    assert sorted(taps) == [0, 1, 2]
    for layer in range(any_lm.n_blocks - 1):
        torch.testing.assert_close(taps[layer], states[layer + 1], **CLOSE)
    for layer, tap in taps.items():
        torch.testing.assert_close(tap, outputs[layer], **CLOSE)
        for other in set(taps) - {layer}:
            assert not torch.allclose(tap, outputs[other], atol=1e-3)
    assert not torch.allclose(taps[2], states[-1], atol=1e-3)


def test_an_early_stop_leaves_out_the_later_blocks_only(any_lm: LanguageModel) -> None:
    with torch.no_grad():
        whole = any_lm.forward(IDS, taps=(0, 1, 2), visual=_visual(any_lm))
        ran: list[int] = []
        handle = any_lm.blocks[2].register_forward_pre_hook(lambda *_: ran.append(2))
        short = any_lm.forward(IDS, taps=(0, 1), stop_after=1, visual=_visual(any_lm))
        assert ran == []
        again = _logits(any_lm, IDS)
        handle.remove()
    assert short.logits is None
    for layer in (0, 1):
        torch.testing.assert_close(short.taps[layer], whole.taps[layer])
    torch.testing.assert_close(again, _plain_logits(any_lm), **CLOSE)


def test_right_padding_changes_nothing(any_lm: LanguageModel) -> None:
    pad = torch.zeros(2, 4, dtype=torch.int64)
    ids = torch.cat([IDS, pad], dim=1)
    mask = torch.cat([torch.ones_like(IDS), pad], dim=1)
    padded = _logits(any_lm, ids, mask, visual=_visual(any_lm))
    alone = torch.cat(
        [_logits(any_lm, IDS[i : i + 1], visual=_visual(any_lm)[i : i + 1]) for i in range(2)]
    )
    torch.testing.assert_close(padded[:, : IDS.shape[1]], alone, **CLOSE)


def test_logits_at_chosen_positions_are_the_models_own(any_lm: LanguageModel) -> None:
    at = torch.zeros(IDS.shape, dtype=torch.bool)
    at[0, 5] = at[1, 3] = at[1, 6] = True
    whole = _plain_logits(any_lm)
    torch.testing.assert_close(_logits(any_lm, IDS, logits_at=at), whole[at], **CLOSE)
    if any_lm.model.config.model_type == "gemma2":
        assert whole.abs().max() <= 0.5
        raw = any_lm.model.model(input_ids=IDS).last_hidden_state @ any_lm.model.lm_head.weight.T
        assert raw.abs().max() > 0.6, "the cap does not bite, so this test could not fail"
        torch.testing.assert_close(whole, 0.5 * torch.tanh(raw / 0.5), **CLOSE)


def test_gradients_reach_the_visual_tokens_and_nothing_else(any_lm: LanguageModel) -> None:
    visual = _visual(any_lm).requires_grad_()
    out = any_lm.forward(IDS, visual=visual, taps=(1,))
    assert out.logits is not None
    (out.logits[:, -1].square().sum() + out.taps[1].square().sum()).backward()
    assert visual.grad is not None
    assert bool((visual.grad.abs().sum(-1) > 0).all())
    assert all(p.grad is None and not p.requires_grad for p in any_lm.model.parameters())
    assert not any_lm.model.training


def test_an_edit_acts_on_its_layer_and_on_what_follows(any_lm: LanguageModel) -> None:
    push = torch.zeros(any_lm.d_model)
    push[2] = 3.0
    with torch.no_grad():
        plain = any_lm.forward(IDS, taps=(0, 1, 2))
        edited = any_lm.forward(IDS, taps=(0, 1, 2), edits={1: lambda h_btd: h_btd + push})
    torch.testing.assert_close(edited.taps[0], plain.taps[0])
    torch.testing.assert_close(edited.taps[1], plain.taps[1] + push)
    assert not torch.allclose(edited.taps[2], plain.taps[2] + push, atol=1e-4)
    torch.testing.assert_close(_logits(any_lm, IDS), _plain_logits(any_lm), **CLOSE)


def _slow_generate(
    lm: LanguageModel, visual: torch.Tensor, prompt: str, steps: int, edits: Any = None
) -> str:
    """No cache, no batch: the whole sequence again for every token."""
    ids = prompt_ids(lm.tokenizer, prompt, len(visual), lm.placement)
    length = len(ids)

    def on_prompt(edit: Any) -> Any:
        return lambda h: torch.cat([edit(h[:, :length]), h[:, length:]], dim=1)

    kept = {layer: on_prompt(edit) for layer, edit in (edits or {}).items()}
    for _ in range(steps):
        logits = _logits(
            lm,
            torch.tensor([ids]),
            visual=visual[None],
            visual_start=len(lm.opening),
            edits=kept,
        )
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] in lm.eos_ids:
            ids.pop()
            break
    text: str = lm.tokenizer.decode(ids[length:], skip_special_tokens=True)
    return text


@pytest.mark.usefixtures("ids_as_text")
def test_cached_batched_generation_equals_one_token_at_a_time(placed_lm: LanguageModel) -> None:
    """Prompts are longer than Gemma's sliding window (8 tokens here)."""
    prompts = ["describe the scene .", "what is at left ?", "what ?", "describe the scene ."]
    visual = _visual(placed_lm, 4) * 2
    fast = placed_lm.generate(visual, prompts, 8, batch_size=2)
    slow = [_slow_generate(placed_lm, v, p, 8) for v, p in zip(visual, prompts, strict=True)]
    assert fast == slow
    assert len(set(fast)) > 1, "all answers equal: the images were not looked at"


@pytest.mark.usefixtures("ids_as_text")
def test_generation_ends_at_any_of_the_end_tokens(
    placed_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    visual = _visual(placed_lm, 1)
    said = placed_lm.generate(visual, ["what ?"], 6)[0].split()
    assert said
    monkeypatch.setattr(placed_lm, "eos_ids", placed_lm.eos_ids | {int(said[-1])})
    cut = placed_lm.generate(visual, ["what ?"], 6)[0].split()
    assert cut == said[: said.index(said[-1])]


@pytest.mark.usefixtures("ids_as_text")
def test_edits_of_the_prompt_reach_the_generated_answer(placed_lm: LanguageModel) -> None:
    prompts, visual = ["what is at left ?"] * 2, _visual(placed_lm, 2)
    push_ld = torch.randn(3, placed_lm.d_model, generator=torch.Generator().manual_seed(1)) * 20
    edits = {layer: lambda h_btd, layer=layer: h_btd + push_ld[layer] for layer in (0, 2)}
    fast = placed_lm.generate(visual, prompts, 5, edits=edits)
    assert fast == [_slow_generate(placed_lm, v, prompts[0], 5, edits) for v in visual]
    assert fast != placed_lm.generate(visual, prompts, 5)
    with pytest.raises(ValueError, match="one length"):
        placed_lm.generate(visual, ["what ?", "what is at left ?"], 5, edits=edits)


def test_mistakes_of_the_caller_are_refused(any_lm: LanguageModel) -> None:
    with pytest.raises(ValueError, match=r"blocks 0\.\.2"):
        any_lm.forward(IDS, taps=(3,))
    with pytest.raises(ValueError, match="after stop_after"):
        any_lm.forward(IDS, taps=(2,), stop_after=1)
    with pytest.raises(ValueError, match="do not fit"):
        any_lm.forward(IDS, visual=torch.zeros(2, 7, any_lm.d_model))
    with pytest.raises(ValueError, match="prompts"):
        any_lm.generate(_visual(any_lm), ["what ?"], 2)


def test_bfloat16_runs_and_stays_near_float32(
    any_lm: LanguageModel, family: str, checkpoint: Callable[..., Path]
) -> None:
    small = LanguageModel.load(checkpoint(family), dtype="bfloat16")
    assert small.dtype == torch.bfloat16
    visual = _visual(any_lm)
    near, exact = _logits(small, IDS, visual=visual), _logits(any_lm, IDS, visual=visual)
    assert near.dtype == torch.bfloat16
    similar = torch.cosine_similarity(near.float().flatten(), exact.flatten(), dim=0)
    assert similar > 0.99
    own = small.embed(IDS)[:, 1 : 1 + N_VISUAL]
    torch.testing.assert_close(_logits(small, IDS, visual=own), _plain_logits(small))
    assert len(small.generate(visual, ["what ?", "describe the scene ."], 3)) == 2


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "gemma3_multimodal"])
def test_the_sliding_window_of_the_config_is_in_force(
    name: str, checkpoint: Callable[..., Path]
) -> None:
    ids = torch.arange(7, 27)[None]
    narrow = _plain_logits(LanguageModel.load(checkpoint(name)), ids)
    wide = _plain_logits(LanguageModel.load(checkpoint(name, window=64)), ids)
    torch.testing.assert_close(narrow[:, :8], wide[:, :8], **CLOSE)
    assert not torch.allclose(narrow[:, 8:], wide[:, 8:], atol=1e-3)


def test_gemma2_caps_its_attention_logits(checkpoint: Callable[..., Path]) -> None:
    """Fails if an attention that cannot cap is picked."""
    lm = LanguageModel.load(checkpoint("gemma2"))
    capped = _plain_logits(lm)
    for block in lm.blocks:
        assert block.self_attn.attn_logit_softcapping == 1.0
        block.self_attn.attn_logit_softcapping = 1e6
    assert not torch.allclose(_plain_logits(lm), capped, atol=1e-3)


def test_a_model_with_blocks_elsewhere_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"Linear.*BLOCK_PATHS"):
        find_blocks(nn.Linear(2, 2), 3)
