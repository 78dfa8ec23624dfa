"""Stage: encode the residual stream at visual, text and control tokens into sparse SAE latents.

Legend of shape suffixes: b image, p patch token, t token, d LLM width, n valid token, k slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.projector import LatentsSettings
from vista.data.records import RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import text_tokens
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.inputs.latents import read_latents
from vista.inputs.text_control import control_batch
from vista.progress import progress
from vista.store.latents import LatentReader, LatentWriter

if TYPE_CHECKING:
    from torch import Tensor

    from vista.language.model import LanguageModel
    from vista.sae.neutral import SparseAutoencoder


class LatentsOrder(Settings):
    """The language model, and how visual tokens are read through its SAEs.

    Attributes:
        text_scale: Whether the SAEs read visual tokens in the scale of text (the control of that
            name).
    """

    llm: LanguageSettings
    latents: LatentsSettings
    text_scale: bool = False


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, and the models.

    `unscaled` are the latents of the same point that say how large visual tokens and text are, for
    the control `text_scale`. `checks` are not read: the stage waits until they have passed.
    """

    features: Artifact
    records: Artifact
    projector: Artifact
    llm: Artifact | None = None
    saes: list[Artifact]
    checks: list[Artifact] = field(default_factory=list)
    unscaled: Artifact | None = None


@stage(LatentsOrder, Inputs)
def run(job: StageJob[LatentsOrder, Inputs]) -> None:
    """Read projector, features, records, LLM and SAEs; write latents.zarr.

    Token kinds: `image`, the visual tokens; `text`, the question and answer after them;
    `control`, the reference answer as text in the place of the image (method notes,
    reconstruction and sparsity).
    """
    import torch

    from vista.inputs.models import load_llm, load_saes
    from vista.inputs.visual_tokens import read_visual_tokens

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.latents, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    rows = records.rows_of(settings.split)
    if not len(rows):
        raise UserError(f"latents.split {settings.split!r}: the data has no image of that split.")
    llm = load_llm(job.settings.llm, inputs.llm)
    saes = load_saes(inputs.saes, llm)
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    scales = text_scales(inputs.unscaled) if inputs.unscaled is not None else {}
    with torch.no_grad():
        write_latents(
            job.work / "latents.zarr",
            llm,
            saes,
            records,
            rows,
            visual.of,
            visual.features.grid,
            settings,
            scales,
        )


def text_scales(latents: Artifact) -> dict[int, float]:
    """Return for each layer the factor that gives visual tokens the root mean square norm of the
    text control, over all images of a store of latents."""
    reader = read_latents(latents)
    return {
        layer: (_mean_square(reader, layer, "control") / _mean_square(reader, layer, "image"))
        ** 0.5
        for layer in reader.layers
    }


def _mean_square(reader: LatentReader, layer: int, kind: str) -> float:
    """Return the mean over valid tokens and dimensions of the squared stream."""
    total, count = 0.0, 0
    for images in reader.slices():
        valid_bt = reader.valid(kind, images)
        total += float(np.where(valid_bt, reader.column(layer, kind, "norm2", images), 0).sum())
        count += int(valid_bt.sum())
    return total / max(1, count)


def write_latents(
    path: Path,
    llm: LanguageModel,
    saes: Mapping[int, SparseAutoencoder],
    records: RecordTable,
    rows: NDArray[np.int64],
    visual_of: Callable[[NDArray[np.int64]], Tensor],
    grid: tuple[int, int],
    settings: LatentsSettings,
    scales: Mapping[int, float] | None = None,
) -> None:
    """Encode the images of some `rows` of the records, batch by batch, into the store at `path`.

    `visual_of(part)` gives the visual tokens [b, p, d] of a part of `rows`. `scales` are factors by
    layer on what the SAEs read of the stream at visual tokens; without them they read it as it is.
    """
    import torch

    n_visual = grid[0] * grid[1]
    kinds = _token_counts(llm, records, rows, n_visual, settings)
    slots = min(settings.max_active, max(sae.config.d_sae for sae in saes.values()))
    writer = LatentWriter(
        path,
        image_ids=records.image_ids(rows),
        grid=grid,
        layers={layer: sae.config.d_sae for layer, sae in saes.items()},
        kinds=kinds,
        k=slots,
        d_model=llm.d_model,
    )
    batches = [
        range(start, min(start + settings.batch_size, images.stop))
        for images in writer.pending()
        for start in range(images.start, images.stop, settings.batch_size)
    ]
    for batch in progress(batches, desc="latents", unit="batch"):
        part = rows[batch.start : batch.stop]
        visual_bpd = visual_of(part)
        shown = records.select(part)
        turns = [record.turns for record in shown]
        seen = llm.batch(turns, n_visual, settings.max_length).to(llm.device)
        spoken = control_batch(llm, shown, settings.max_length).to(llm.device)
        with_image = llm.forward(
            seen.input_ids,
            seen.attention_mask,
            visual=visual_bpd,
            visual_start=seen.visual_start,
            taps=tuple(saes),
            stop_after=max(saes),
        ).taps
        without = llm.forward(
            spoken.input_ids, spoken.attention_mask, taps=tuple(saes), stop_after=max(saes)
        ).taps
        visual = torch.zeros_like(seen.text_mask)
        visual[:, seen.visual_start : seen.visual_start + n_visual] = True
        read = with_image
        if scales:
            read = {layer: tap_btd * scales[layer] for layer, tap_btd in with_image.items()}
        for kind, taps, mask_bt in (
            ("image", read, visual),
            ("text", with_image, seen.text_mask),
            ("control", without, spoken.text_mask),
        ):
            shape = (kind, kinds[kind], slots)
            write_tokens(writer, shape, batch.start, taps, mask_bt, saes)
    for layer in saes:
        for kind in kinds:
            writer.finish(layer, kind)
    writer.close()


def write_tokens(
    writer: LatentWriter,
    shape: tuple[str, int, int],
    start: int,
    taps: dict[int, Any],
    mask_bt: Any,
    saes: Mapping[int, SparseAutoencoder],
) -> None:
    """Encode the masked tokens of one batch at every layer and write them, left-packed.

    `shape` is the token kind, its tokens an image, and the slots a token.
    """
    from vista.sae.measured import measured_tokens

    kind, tokens, slots = shape
    b = len(mask_bt)
    valid = np.arange(tokens) < mask_bt.sum(1).cpu().numpy()[:, None]
    writer.set_valid(kind, start, valid)
    for layer, sae in saes.items():
        # Each layer may lie on another device.
        here_bt = mask_bt.to(taps[layer].device)
        # Row-major selection: the tokens of an image stay together and in order.
        columns = measured_tokens(sae, taps[layer][here_bt], slots)
        index, value, nnz, error, norm2 = (
            _unpack(column.cpu().numpy(), valid, b, tokens) for column in columns
        )
        total_bd = (taps[layer] * here_bt[..., None]).double().sum(1).cpu().numpy()
        writer.write(kind, start, layer, index, value, nnz, error, norm2, total=total_bd)


def _unpack(column: Any, valid: Any, b: int, tokens: int) -> Any:
    """Spread values of valid tokens [n, ...] over [b, tokens, ...]; zero elsewhere."""
    out = np.zeros((b, tokens, *column.shape[1:]), dtype=column.dtype)
    out[valid] = column
    return out


def _token_counts(
    llm: LanguageModel,
    records: RecordTable,
    rows: NDArray[np.int64],
    n_visual: int,
    settings: LatentsSettings,
) -> dict[str, int]:
    """Return the largest number of tokens that any image has, by token kind."""
    longest = {"image": n_visual, "text": 1, "control": 1}
    for start in range(0, len(rows), settings.batch_size):
        shown = records.select(rows[start : start + settings.batch_size])
        turns = [record.turns for record in shown]
        for kind, batch in (
            ("text", llm.batch(turns, n_visual, settings.max_length)),
            ("control", control_batch(llm, shown, settings.max_length)),
        ):
            longest[kind] = max(longest[kind], int(batch.text_mask.sum(1).max()))
    return longest


def need(node: Node, shapes: Shapes) -> Need:
    """A pass with the image and one without, up to the last layer with an SAE; the tokens of both
    are stored."""
    shape, vision, saes = shapes.llm(node), shapes.features(node), shapes.saes(node)
    settings, device = node.order["latents"], shapes.llm_device(node)
    if shape is None or vision is None or saes is None:
        return UNKNOWN
    length = settings["max_length"]
    memory = formulas.reading_memory(shape, device, saes, settings["batch_size"], length)
    rows = shapes.rows(one(node, "records"), settings["split"])
    if rows is None:
        return Need(None, device.memory(memory), None)
    # Question and answer, and the answer in the place of the image.
    tokens = vision.patches + 2 * text_tokens(node, shapes, length, vision.patches)
    flops = formulas.forward_flops(shape, rows * tokens, 0, blocks=max(saes.layers) + 1)
    sae_flops = formulas.sae_flops(shape.d_model, saes, rows * tokens, decoded=False)
    disk = formulas.latent_bytes(rows, tokens, saes)
    seconds = TORCH_START + device.seconds(flops, sae_flops)
    return Need(disk, device.memory(memory), seconds)
