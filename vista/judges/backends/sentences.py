"""Sentence embeddings by a local encoder: mean of the last hidden states, of length 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vista.errors import UserError
from vista.foreign.pretrained import load_model, load_part, loading
from vista.judges.backends.placement import on_device


def sentence_embedder(
    location: str, *, device: str, dtype: str, max_tokens: int, batch: int
) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Return a function texts -> unit rows [texts, width].

    Mean pooling over the tokens, special tokens included, as Sentence-BERT does (Reimers and
    Gurevych 2019).

    Raises:
        UserError: There is no such model with safetensors weights on this machine.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    with loading(
        f"judge.source: {location} could not be loaded as a sentence encoder",
        "a save_pretrained folder with a tokenizer and safetensors weights",
    ):
        tokenizer = load_part(AutoTokenizer, location)
        model, missing = load_model(AutoModel, location, dtype=getattr(torch, dtype))
    # A pooling head that nobody uses may be missing.
    missing = [name for name in missing if "pooler" not in name]
    if missing:
        raise UserError(
            f"judge.source: {len(missing)} weights of {location} are missing (first: "
            f"{missing[0]}); fetch or save it again"
        )
    model = on_device(model, device)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # masked: its value is never pooled

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
        # Texts of like length share a batch: less padding.
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            inputs = tokenizer(
                # Half of a surrogate pair has no UTF-8, which is what tokenizers read.
                [texts[i].encode("utf-8", "replace").decode() for i in part],
                padding=True,
                truncation=True,
                max_length=max_tokens,
                return_tensors="pt",
            ).to(device)
            with torch.inference_mode():
                hidden_btd = model(**inputs).last_hidden_state.float()
            weight_bt1 = inputs["attention_mask"][..., None].float()
            mean_bd = (hidden_btd * weight_bt1).sum(1) / weight_bt1.sum(1).clamp(min=1)
            rows[part] = torch.nn.functional.normalize(mean_bd, dim=1).cpu().numpy()
        return rows

    with loading(
        f"judge.source: {location} cannot embed a text",
        "a sentence encoder whose tokenizer has a padding token",
    ):
        embed(["a text"])
    return embed
