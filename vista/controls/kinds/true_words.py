"""Control: what is at each patch, as a word of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from vista.config.control_base import ControlSettings

if TYPE_CHECKING:
    from vista.controls.sources import Sources
    from vista.projector.control_tokens import ControlTokens


class Settings(ControlSettings):
    """The ceiling: at each patch the input embedding of the word that names the object there, so
    what text SAEs and labels can read of an image at best."""

    once: ClassVar[bool] = True
    mask_cover: float = Field(
        0.5, gt=0, le=1, description="share of a patch that an object must cover"
    )
    elsewhere: str = Field(
        "background", min_length=1, description="the word at patches without an object"
    )


def make(sources: Sources, settings: Settings) -> ControlTokens:
    """Return the token of each patch: the last one of a word of several tokens, at which a language
    model has read the word."""
    import numpy as np

    from vista.controls.sources import last_tokens
    from vista.inputs.patch_classes import patch_classes
    from vista.projector.control_tokens import ControlTokens

    rows = sources.evaluated()
    words = [
        [
            name or settings.elsewhere
            for name in patch_classes(record, dict(sources.placing), settings.mask_cover)
        ]
        for record in sources.records.select(rows)
    ]
    token_of = last_tokens(sources.llm.tokenizer, {word for image in words for word in image})
    ids_rp = np.zeros((len(sources.records), sources.features.shape[1]), dtype=np.int64)
    ids_rp[rows] = [[token_of[word] for word in image] for image in words]
    return ControlTokens(words=ids_rp)
