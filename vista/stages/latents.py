"""Stage: visual tokens -> residual stream by layer -> sparse SAE latents, with text and control.

Legend of shape suffixes: b image, p patch token, t token, d LLM width, n valid token, k slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vista.artifacts import Job
from vista.config.projector import LatentsSettings
from vista.data.records import Record, read_records
from vista.errors import UserError
from vista.progress import progress
from vista.store.features import FeatureReader
from vista.store.latents import LatentWriter


def run(job: Job) -> None:
    """Read projector, features, records, LLM and SAEs; write latents.zarr.

    Token kinds: `image`, the visual tokens; `text`, the question and answer after them;
    `control`, the reference answer as text in the place of the image (method notes,
    reconstruction and sparsity).
    """
    import torch

    from vista.language.prompt import build_batch
    from vista.projector.module import load_projector
    from vista.stages.loading import load_llm, load_saes

    torch.set_num_threads(job.threads)
    torch.set_grad_enabled(False)
    settings = LatentsSettings.model_validate(job.settings["latents"])
    records = read_records(job.input("records").file("records.parquet"))
    reader = FeatureReader(job.input("features").store("features.zarr"))
    chosen = [i for i, each in enumerate(records) if each.split == settings.split]
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
    writer = LatentWriter(
        job.work / "latents.zarr",
        image_ids=[records[i].image_id for i in chosen],
        grid=reader.grid,
        layers={layer: sae.config.d_sae for layer, sae in saes.items()},
        kinds=_token_counts(llm.tokenizer, [records[i] for i in chosen], n_visual, settings),
        k=min(settings.max_active, max(sae.config.d_sae for sae in saes.values())),
    )
    means = _Means()
    size = settings.batch_size
    for start in progress(range(0, len(chosen), size), desc="latents", unit="batch"):
        rows = chosen[start : start + size]
        features_bpv = torch.from_numpy(reader.read(np.array(rows)).astype(np.float32))
        visual_bpd = projector(features_bpv.to(llm.device))
        turns = [records[i].turns for i in rows]
        seen = build_batch(llm.tokenizer, turns, n_visual, settings.max_length).to(llm.device)
        spoken = control_batch(llm.tokenizer, [records[i] for i in rows], settings.max_length)
        spoken = spoken.to(llm.device)
        with_image = llm.forward(
            seen.input_ids,
            seen.attention_mask,
            visual_bpd=visual_bpd,
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
            _write_kind(writer, means, kind, start, taps, mask_bt, saes)
    for (layer, kind), mean_d in means.items():
        writer.finish(layer, kind, mean_d)
    writer.close()
