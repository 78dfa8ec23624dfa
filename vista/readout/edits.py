"""Edits that a readout makes: along one latent, or along the direction of a concept.

Shape legend: b row of a batch, t position, p visual token, d width of the language model.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vista.config.edits import READS_LATENT, How
from vista.data.geometry import ImageGeometry, token_of
from vista.errors import UserError
from vista.foreign.text import one_line
from vista.judges.kinds.whole_word import WholeWordJudge
from vista.metrics.localization.measure import own_latents
from vista.sae.label_table import LatentLabels

if TYPE_CHECKING:
    from torch import Tensor

    from vista.interventions.edits import Concept, Edit, RowEdit
    from vista.sae.neutral import SparseAutoencoder

Change = Literal["add", "subtract", "ablate", "clamp"]
# A box (x, y, width, height) in px of the image, patches as (row, column), or a mask of patches.
Where = tuple[float, float, float, float] | Sequence[tuple[int, int]] | NDArray[np.bool_]
_TAKES_SOURCE: frozenset[How] = frozenset({"subtract", "ablate", "remove_add", "swap"})
_TAKES_TARGET: frozenset[How] = frozenset({"add", "remove_add", "swap"})


@dataclass(frozen=True)
class LatentEdit:
    """An edit along one latent at some visual tokens of an image.

    Attributes:
        layer: Layer of the latent's SAE.
        latent: Its number.
        change: What is done; see `vista.interventions.edits.change`.
        strength: Coefficient: of a unit direction (add, subtract), of what the latent writes
            (ablate: 1 removes it), or the activation that it is set to (clamp).
        patches: Numbers of the visual tokens that are edited.
        blocks: Blocks after which it is done; empty: after the latent's own.
        random: The control: each token is moved as far, along one random direction.
    """

    layer: int
    latent: int
    change: Change
    strength: float
    patches: tuple[int, ...]
    blocks: tuple[int, ...] = ()
    random: bool = False


@dataclass(frozen=True)
class ConceptEdit:
    """An edit along the directions of concepts at some visual tokens of an image.

    Attributes:
        remove: Concept that is taken away; None: none.
        add: Concept that is put in; None: none.
        how: What is done; see `vista.interventions.edits.change`. None: subtract, add or
            remove_add, by the concepts that are given.
        strength: Coefficient, as in `LatentEdit`.
        patches: Numbers of the visual tokens that are edited.
        blocks: Blocks after which it is done; empty: after that of the concept's latent.
        random: The control, as in `LatentEdit`.
    """

    remove: str | None
    add: str | None
    strength: float
    patches: tuple[int, ...]
    how: How | None = None
    blocks: tuple[int, ...] = ()
    random: bool = False


class ConceptFinder:
    """Finds directions of concepts: those that the workflow found, else a labelled latent's.

    Args:
        saes: SAEs by layer.
        labels: Labels by layer.
        found: Concepts that have a direction already, each with its block; None as block where
            the direction belongs to none.
    """

    def __init__(
        self,
        saes: Mapping[int, SparseAutoencoder],
        labels: Mapping[int, LatentLabels],
        found: Mapping[str, tuple[Concept, int | None]],
    ) -> None:
        self._saes, self._labels, self._found = saes, labels, found

    def __call__(self, word: str) -> tuple[Concept, int | None]:
        """Return a concept and the block of its direction.

        Raises:
            UserError: The concept has no direction, and no latent's label names it.
        """
        if word in self._found:
            return self._found[word]
        layer, latent = self.latent(word)
        return latent_concept(self._saes[layer], latent), layer

    def latent(self, word: str, layer: int | None = None) -> tuple[int, int]:
        """Return layer and number of the latent that is named after a word.

        In the lowest layer that has one, unless a layer is given; of several in a layer, the one
        that localization takes (`vista.metrics.localization.measure.own_latents`).

        Raises:
            UserError: No label names the word.
        """
        judge = WholeWordJudge()
        layers = sorted(self._labels) if layer is None else [layer]
        for number in layers:
            table = self._labels.get(number)
            if table is not None:
                own = own_latents(table.label_s, table.share_s, [word], judge.judge)
                if word in own:
                    return number, own[word]
        raise UserError(self._unknown(word, layers))

    def known(self, layer: int, latent: int) -> None:
        """Refuse a latent that there is not. Raises UserError."""
        sae = self._saes.get(layer)
        if sae is None or not 0 <= latent < sae.config.d_sae:
            raise UserError(f"there is no latent {latent} of layer {layer}")

    def _unknown(self, word: str, layers: Sequence[int]) -> str:
        tables = [self._labels[layer] for layer in layers if layer in self._labels]
        where = (
            f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(map(str, layers))}"
        )
        if not tables:
            return f"no latent of {where} has a label: label the SAEs first"
        names = sorted({label for table in tables for label in table.label_s if label})
        close = difflib.get_close_matches(word, names, n=5)
        text = f"no latent of {where} is labelled {one_line(repr(word))}"
        return f"{text}; close to it are {one_line(', '.join(close))}" if close else text


def latent_concept(sae: SparseAutoencoder, latent: int) -> Concept:
    """Return a latent as a concept: its decoder row, scaled to length 1, is the direction."""
    from vista.interventions.edits import Concept, Latent

    direction_d = sae.W_dec[latent].detach().float().cpu()
    direction_d = direction_d / direction_d.norm().clamp_min(1e-8)
    return Concept(direction_d, (Latent(sae, latent),))


def row_of_latent(
    edit: LatentEdit, saes: Mapping[int, SparseAutoencoder], n_visual: int
) -> RowEdit:
    """Return an edit along a latent as the stage edit_captions makes it.

    Raises:
        UserError: There is no such layer, latent or patch.
    """
    from vista.interventions.edits import RowEdit

    sae = saes.get(edit.layer)
    if sae is None or not 0 <= edit.latent < sae.config.d_sae:
        raise UserError(f"there is no latent {edit.latent} of layer {edit.layer}")
    concept = latent_concept(sae, edit.latent)
    source, target = (None, concept) if edit.change == "add" else (concept, None)
    patches_p, blocks = _mask(edit.patches, n_visual), edit.blocks or (edit.layer,)
    return RowEdit(edit.change, edit.strength, patches_p, source, target, tuple(blocks))


def row_of_concepts(edit: ConceptEdit, concept_of: ConceptFinder, n_visual: int) -> RowEdit:
    """Return an edit along concepts as the stage edit_captions makes it.

    Raises:
        UserError: No concept is given, one has no direction, the edit needs another or a latent
            that its directions lack, or there is no such patch.
    """
    from vista.interventions.edits import RowEdit

    if edit.remove is None and edit.add is None:
        raise UserError("name a concept to remove, to add, or both")
    how: How = edit.how or (
        "add" if edit.remove is None else "subtract" if edit.add is None else "remove_add"
    )
    source, target = (
        (None, None) if word is None else concept_of(word) for word in (edit.remove, edit.add)
    )
    if how in _TAKES_SOURCE and source[0] is None:
        raise UserError(f"{how} needs a concept to remove")
    if how in _TAKES_TARGET and target[0] is None:
        raise UserError(f"{how} needs a concept to add")
    # Clamping acts on the target where there is one.
    reads = target if how == "clamp" and target[0] is not None else source
    if how in READS_LATENT and (reads[0] is None or not reads[0].latents):
        raise UserError(f"{how} reads a latent, and the direction of this concept is of none")
    block = target[1] if how in ("add", "clamp") and target[0] is not None else source[1]
    blocks = tuple(edit.blocks) or (() if block is None else (block,))
    if not blocks:
        raise UserError("this direction belongs to no block: name the blocks to edit after")
    patches_p = _mask(edit.patches, n_visual)
    return RowEdit(how, edit.strength, patches_p, source[0], target[0], blocks)


def _mask(patches: Sequence[int], n_visual: int) -> Tensor:
    import torch

    if not all(0 <= patch < n_visual for patch in patches):
        raise UserError(f"patches {list(patches)}: the image has 0..{n_visual - 1}")
    patches_p = torch.zeros(n_visual, dtype=torch.bool)
    patches_p[list(patches)] = True
    return patches_p


def patches_at(where: Where | None, geometry: ImageGeometry) -> tuple[int, ...]:
    """Return the numbers of the visual tokens that a place in an image covers.

    Args:
        where: A box (x, y, width, height) in px, which covers each patch that it touches; patches
            as (row, column); a mask of patches [rows, columns] or [p]; None: all patches.
        geometry: How the image lies on the patch grid.

    Raises:
        UserError: It covers no patch, or a patch lies outside of the grid.
    """
    rows, columns = geometry.grid
    if where is None:
        chosen_p = np.ones(rows * columns, bool)
    elif isinstance(where, np.ndarray) and where.dtype == bool:
        if where.size != rows * columns:
            raise UserError(f"a mask of {where.shape} patches; the grid has {rows} x {columns}")
        chosen_p = where.reshape(-1)
    elif len(where) == 4 and all(np.isscalar(side) for side in where):
        chosen_p = geometry.box_to_patches(tuple(float(side) for side in where))  # type: ignore[arg-type]
    else:
        chosen_p = np.zeros(rows * columns, bool)
        for row, column in where:  # type: ignore[misc]
            chosen_p[token_of((row, column), (rows, columns))] = True
    if not chosen_p.any():
        raise UserError(
            "no patch lies there: the box is outside of the image, or the list is empty"
        )
    return tuple(np.flatnonzero(chosen_p).tolist())


def at_random(edit: Edit, rows: Sequence[int]) -> Edit:
    """Return an edit of the stream that moves the tokens of some rows as far as it would, along
    one random direction."""
    import torch

    def along(h_btd: Tensor) -> Tensor:
        out_btd = edit(h_btd)
        direction_d = torch.randn(h_btd.shape[-1], generator=torch.Generator().manual_seed(0))
        unit_d = (direction_d / direction_d.norm()).to(h_btd.device)
        for b in rows:
            length_t1 = (out_btd[b] - h_btd[b]).float().norm(dim=-1, keepdim=True)
            out_btd[b] = (h_btd[b].float() + length_t1 * unit_d).to(h_btd.dtype)
        return out_btd

    return along
