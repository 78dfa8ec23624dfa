"""The logit lens after the last block is the model's own head, in every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vista.errors import UserError


def own_and_lens(llm: Any) -> tuple[Any, Any, Any]:
    """The model's logits, and the lens after the last and the first block."""
    from vista.language.lens import logit_lens

    ids_bt = torch.randint(0, 20, (2, 7), generator=torch.Generator().manual_seed(0))
    last = llm.n_blocks - 1
    plain = llm.forward(ids_bt, taps=(0, last))
    lens = logit_lens(llm)
    return plain.logits, lens(plain.taps[last]), lens(plain.taps[0])


def test_after_the_last_block_the_lens_gives_the_models_logits(any_lm: Any) -> None:
    own, last, first = own_and_lens(any_lm)
    torch.testing.assert_close(last, own, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(first, own, atol=1e-3)


def test_the_soft_cap_is_kept_and_what_is_unknown_refused(
    checkpoint: Callable[..., Path],
) -> None:
    from vista.language.lens import logit_lens
    from vista.language.model import LanguageModel

    llm = LanguageModel.load(checkpoint("gemma2"))
    uncapped = llm.forward(torch.arange(7)[None]).logits
    assert uncapped is not None
    # The logits of random weights are small: a cap that bites.
    llm.model.config.final_logit_softcapping = float(uncapped.abs().max()) / 2
    own, last, _ = own_and_lens(llm)
    torch.testing.assert_close(last, own, atol=1e-5, rtol=1e-4)
    hook = llm.model.register_forward_hook(lambda _, __, out: setattr(out, "logits", -out.logits))
    with pytest.raises(UserError, match="does more than norm, head and soft cap"):
        logit_lens(llm)
    hook.remove()
    inner = llm.model.model
    inner.other_norm, inner.norm = inner.norm, None
    with pytest.raises(UserError, match="NORM_NAMES"):
        logit_lens(llm)
