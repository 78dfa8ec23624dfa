"""Checks of a run's methods and edits against what each method declares.

They run when a config is planned. An edit that is accepted and then ignored, or that is made along
a direction without the latent or block that it needs, would give a wrong result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from vista.config.edits import READS_LATENT, EditSettings, method_names
from vista.config.interventions import InterventionsSettings, MethodEntry
from vista.config.language import StandinLlm
from vista.errors import UserError
from vista.interventions.method import DirectionMethod, load_method

if TYPE_CHECKING:
    from vista.config.run import LlmEntry


def refuse_unfit_methods(settings: InterventionsSettings, llms: Mapping[str, LlmEntry]) -> None:
    """Refuse methods without the vision SAE that they read, edits that a method's directions do not
    allow, and edits without a block.

    Raises:
        UserError: The first of them, by its whole key.
    """
    for name, entry in settings.methods.items():
        _check_vision_sae(name, entry)
    for key, entry, edit in _edits(settings):
        method = load_method(entry.directions.method)
        if method.space == "features":
            continue
        _check_stream_edit(key, entry.directions.method, method, edit)
        for name in settings.llms or llms:
            source = llms[name].model.source
            last = max((block for choice in edit.blocks or () for block in choice), default=0)
            if isinstance(source, StandinLlm) and last >= source.n_blocks:
                raise UserError(
                    f"{key}.blocks names block {last}; llms.{name} has blocks "
                    f"0..{source.n_blocks - 1}"
                )


def _check_vision_sae(name: str, entry: MethodEntry) -> None:
    reads = "vision_sae" in load_method(entry.directions.method).reads
    if reads == (entry.vision_sae is not None):
        return
    readers = [entry.directions.method]
    if not reads:
        readers = [other for other in method_names() if "vision_sae" in load_method(other).reads]
    raise UserError(
        f"interventions.methods.{name}: `vision_sae` and directions of method "
        f"{' or '.join(readers)} belong together"
    )


def _check_stream_edit(key: str, name: str, method: DirectionMethod, edit: EditSettings) -> None:
    reads = edit.how in READS_LATENT
    if not method.of_latents and (reads or "active" in edit.tokens):
        choice = f"how: {edit.how}" if reads else "tokens: active"
        raise UserError(
            f"{key} has `{choice}`, but directions of method {name} have no latent that "
            "fires; choose subtract, add or remove_add, and tokens object or all"
        )
    if not method.has_block and edit.blocks is None:
        raise UserError(
            f"{key}.blocks is null, but directions of method {name} belong to no "
            "block; list the blocks"
        )
    if reads and edit.blocks is not None:
        raise UserError(
            f"{key} has `how: {edit.how}`, which reads a latent in the block that its SAE is "
            f"of: set {key}.blocks to null"
        )


def _edits(settings: InterventionsSettings) -> Iterator[tuple[str, MethodEntry, EditSettings]]:
    """Each edit of each method, and the key that it is under."""
    for name, entry in settings.methods.items():
        for task, edit in settings.edits(name):
            yield f"interventions.methods.{name}.{task}", entry, edit
