"""The text control: the reference answer as text in the place of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vista.data.records import Record

if TYPE_CHECKING:
    from vista.language.model import LanguageModel
    from vista.language.prompt import Batch


def control_text(record: Record) -> str:
    """Return an image's first caption, else its first turn's answer, else nothing."""
    if record.captions:
        return record.captions[0]
    return record.turns[0].answer if record.turns else ""


def control_batch(llm: LanguageModel, records: Sequence[Record], max_length: int) -> Batch:
    """Return the text control of some images, with labels.

    The text stands bare, as the visual tokens do, after what opens every prompt and without the
    rest of the template. Its first token is no label: the opening alone would predict it, and of
    some models nothing does.
    """
    import torch

    from vista.language.prompt import IGNORED, Batch

    texts = [control_text(record) for record in records]
    encoded = llm.tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = [(llm.opening + list(ids))[:max_length] for ids in encoded]
    length_b = torch.tensor([len(row) for row in rows])
    mask_bt = torch.arange(int(length_b.max())) < length_b[:, None]
    ids_bt = torch.zeros(mask_bt.shape, dtype=torch.int64)
    ids_bt[mask_bt] = torch.tensor([token for row in rows for token in row], dtype=torch.int64)
    text_bt = mask_bt.clone()
    text_bt[:, : len(llm.opening)] = False
    labels_bt = torch.where(text_bt, ids_bt, IGNORED)
    labels_bt[:, len(llm.opening) : len(llm.opening) + 1] = IGNORED
    return Batch(ids_bt, mask_bt.long(), labels_bt, text_bt, len(llm.opening), 0)
