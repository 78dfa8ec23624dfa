"""Attention weights of every family against those that transformers itself returns."""

from __future__ import annotations

from typing import Any

import torch

from vista.data.records import Turn
from vista.language.attention import eager_attention, visual_attention
from vista.language.words import token_spans

N_VISUAL = 4
TURNS = [
    (Turn("describe the scene .", "a red cat at left ."),),
    (Turn("what is at left ?", "a blue dog on the grass at right ."),),
]


def test_weights_are_those_of_transformers(any_lm: Any) -> None:
    batch = any_lm.batch(TURNS, N_VISUAL, 64)
    generator = torch.Generator().manual_seed(0)
    visual_bpd = torch.randn(2, N_VISUAL, any_lm.d_model, generator=generator)
    at_bt = batch.predict_mask
    implementation = any_lm.model.config.get_text_config()._attn_implementation
    weights_nlhp, logits_nv = visual_attention(any_lm, batch, visual_bpd, at_bt)
    assert any_lm.model.config.get_text_config()._attn_implementation == implementation

    fused = any_lm.forward(
        batch.input_ids,
        batch.attention_mask,
        visual=visual_bpd,
        visual_start=batch.visual_start,
        logits_at=at_bt,
    )
    torch.testing.assert_close(logits_nv, fused.logits, rtol=1e-4, atol=1e-4)

    write = any_lm._write_visual(visual_bpd, batch.visual_start)
    with eager_attention(any_lm), torch.no_grad():
        output = any_lm.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
            output_attentions=True,
        )
    write.remove()
    assert weights_nlhp.shape[1] == any_lm.n_blocks == len(output.attentions)
    start = batch.visual_start
    for layer, weights_bhtt in enumerate(output.attentions):
        expected = weights_bhtt.transpose(1, 2)[at_bt][..., start : start + N_VISUAL]
        assert torch.equal(weights_nlhp[:, layer], expected.float())
    assert weights_nlhp.amax() > 0


def test_spans_cover_the_words(any_lm: Any) -> None:
    ids = any_lm.tokenizer("a blue dog on the grass", add_special_tokens=False)["input_ids"]
    text, spans = token_spans(any_lm.tokenizer, [*ids, any_lm.tokenizer.eos_token_id])
    assert text.strip() == "a blue dog on the grass"
    assert "".join(text[start:end] for start, end in spans) == text
    dog = text.index("dog")
    inside = [i for i, (start, end) in enumerate(spans) if start < dog + 3 and end > dog]
    # Tokens of some families hold several words.
    assert "dog" in any_lm.tokenizer.decode([ids[i] for i in inside])
    rest = [token for i, token in enumerate(ids) if i not in inside]
    assert "dog" not in any_lm.tokenizer.decode(rest)
