"""Stage: visual tokens -> residual stream by layer -> sparse SAE latents, with text and control.

Legend of shape suffixes: b image, p patch token, t token, d LLM width, n valid token, k slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vista.artifacts import Job
from vista.config.projector import LatentsSettings
from vista.data.records import Record, read_records
from vista.errors import UserError
from vista.progress import progress
from vista.store.features import FeatureReader
from vista.store.latents import LatentWriter

if TYPE_CHECKING:
    from vista.language.model import LanguageModel


def run(job: Job) -> None:
    """Read projector, features, records, LLM and SAEs; write latents.zarr.

    Token kinds: `image`, the visual tokens; `text`, the question and answer after them;
    `control`, the reference answer as text in the place of the image (method notes,
    reconstruction and sparsity).
    """
    import torch

    torch.set_num_threads(job.threads)
    with torch.no_grad():
        _encode(job)


def _encode(job: Job) -> None:
    """Encode every image of the split, batch by batch."""
    import torch

    from vista.projector.module import load_projector
    from vista.stages.loading import load_llm, load_saes

    settings = LatentsSettings.model_validate(job.settings["latents"])
    records = read_records(job.input("records").file("records.parquet"))
    reader = FeatureReader(job.input("features").store("features.zarr"))
    chosen = records.rows_of(settings.split).tolist()
    if not chosen:
        raise UserError(f"latents.split {settings.split!r}: the data has no image of that split.")
    llm = load_llm(job)
    saes = load_saes(job, llm)
    projector_input = job.input("projector")
    projector_input.verify()
    projector = load_projector(
        projector_input.path, d_vision=reader.shape[-1], d_model=llm.d_model
    ).to(llm.device)
    n_visual = reader.shape[1]
    image_of = records.feature_rows()[1]
    kinds = _token_counts(llm, records.select(chosen), n_visual, settings)
    slots = min(settings.max_active, max(sae.config.d_sae for sae in saes.values()))
    writer = LatentWriter(
        job.work / "latents.zarr",
        image_ids=[records[i].image_id for i in chosen],
        grid=reader.grid,
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
        rows = [chosen[i] for i in batch]
        features_bpv = torch.from_numpy(reader.read(image_of[rows]).astype(np.float32))
        visual_bpd = projector(features_bpv.to(llm.device))
        turns = [records[i].turns for i in rows]
        seen = llm.batch(turns, n_visual, settings.max_length).to(llm.device)
        spoken = control_batch(llm, [records[i] for i in rows], settings.max_length)
        spoken = spoken.to(llm.device)
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
        for kind, taps, mask_bt in (
            ("image", with_image, visual),
            ("text", with_image, seen.text_mask),
            ("control", without, spoken.text_mask),
        ):
            shape = (kind, kinds[kind], slots)
            _write_kind(writer, shape, batch.start, taps, mask_bt, saes)
    for layer in saes:
        for kind in kinds:
            writer.finish(layer, kind)
    writer.close()


def _write_kind(
    writer: LatentWriter,
    shape: tuple[str, int, int],
    start: int,
    taps: dict[int, Any],
    mask_bt: Any,
    saes: dict[int, Any],
) -> None:
    """Encode the masked tokens of one batch at every layer and write them, left-packed.

    `shape` is the token kind, its tokens an image, and the slots a token.
    """
    kind, tokens, slots = shape
    b = len(mask_bt)
    valid = np.arange(tokens) < mask_bt.sum(1).cpu().numpy()[:, None]
    writer.set_valid(kind, start, valid)
    for layer, sae in saes.items():
        # Each layer may lie on another device.
        here_bt = mask_bt.to(taps[layer].device)
        # Row-major selection: the tokens of an image stay together and in order.
        x_nd = taps[layer][here_bt].float()
        index_nk, value_nk, nnz_n = sae.encode_sparse(x_nd, slots, "latents.max_active")
        # Most slots are empty where there are many: they need not leave the device.
        used = int(nnz_n.max()) if len(nnz_n) else 0
        index_nk, value_nk = index_nk[:, :used], value_nk[:, :used]
        error_n = (sae(x_nd) - x_nd).square().mean(-1)
        columns = (index_nk, value_nk, nnz_n, error_n, x_nd.square().mean(-1))
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
    llm: LanguageModel, records: Sequence[Record], n_visual: int, settings: LatentsSettings
) -> dict[str, int]:
    """Return the largest number of tokens that any image has, by token kind."""
    longest = {"image": n_visual, "text": 1, "control": 1}
    for record in records:
        text = llm.batch([record.turns], n_visual, settings.max_length).text_mask
        control = control_batch(llm, [record], settings.max_length).text_mask
        longest["text"] = max(longest["text"], int(text.sum()))
        longest["control"] = max(longest["control"], int(control.sum()))
    return longest


def control_batch(llm: LanguageModel, records: Sequence[Record], max_length: int) -> Any:
    """Return the text control: the reference answer in the place of the image.

    The answer is the image's first caption, else its first turn's answer; it stands there bare,
    as the visual tokens do, after what opens every prompt and without the rest of the template.
    """
    import torch

    from vista.language.prompt import IGNORED, Batch

    texts = [
        record.captions[0] if record.captions else record.turns[0].answer if record.turns else ""
        for record in records
    ]
    encoded = llm.tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = [(llm.opening + list(ids))[:max_length] for ids in encoded]
    length_b = torch.tensor([len(row) for row in rows])
    mask_bt = torch.arange(int(length_b.max())) < length_b[:, None]
    ids_bt = torch.zeros(mask_bt.shape, dtype=torch.int64)
    ids_bt[mask_bt] = torch.tensor([token for row in rows for token in row])
    text_bt = mask_bt.clone()
    text_bt[:, : len(llm.opening)] = False
    labels_bt = torch.full_like(ids_bt, IGNORED)
    return Batch(ids_bt, mask_bt.long(), labels_bt, text_bt, len(llm.opening), 0)
