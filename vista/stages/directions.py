"""Stage: a direction for each concept, by one method, found on the selection split and frozen.

Legend of shape suffixes: b image, p patch token, v encoder width, d LLM width, u place (patch or
image), c concept, n sampled token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.artifacts import Artifact, Job
from vista.config.interventions import FITTED, DirectionSettings
from vista.data.records import RecordTable, read_records
from vista.errors import UserError
from vista.interventions.directions import (
    ConceptDirection,
    Directions,
    Space,
    summed_rows,
    write_directions,
)
from vista.interventions.selection import (
    BoolArray,
    Candidate,
    Chosen,
    best_latents,
    derangement,
    published_latents,
    random_like,
    read_latent_ids,
    sparse_auroc,
)
from vista.judges import Judge
from vista.progress import progress
from vista.sae.label_table import FILE, LatentLabels, read_labels
from vista.stages.direction_inputs import Selection, firings_at, select
from vista.stages.judging import stage_judge, write_tally
from vista.stages.latent_inputs import read_latents, read_layer_labels
from vista.store.features import FeatureReader
from vista.store.latents import LatentReader


def run(job: Job) -> None:
    """Write directions.json and directions.safetensors.

    Inputs beside `records` and `features` (selection split, boxes on the patch grid), by method:
    latent, latent_at, random_latent, wrong_concept: `latents` of that split, `labels`, `saes`;
    random: `llm`; mean_difference, logistic: `llm`, `projector`; vision_latent: `vision_sae`,
    `labels` (its own).
    """
    import torch

    torch.set_num_threads(job.threads)
    settings = DirectionSettings.model_validate(job.settings["directions"])
    records = read_records(job.input("records").file("records.parquet"))
    judge = stage_judge(job, settings.judge)
    with torch.no_grad():
        if settings.method == "vision_latent":
            directions = _of_vision_sae(job, settings, records, judge)
        elif settings.method in FITTED:
            directions = _fitted(job, settings, records, judge)
        elif settings.method == "random":
            directions = _random(job, settings, records, judge)
        else:
            directions = _of_latents(job, settings, records, judge)
    write_directions(job.work, directions)
    write_tally(job, judge)


def _of_latents(
    job: Job, settings: DirectionSettings, records: RecordTable, judge: Judge
) -> Directions:
    latents = read_latents(job)
    labels = read_layer_labels(job, latents)
    given: dict[str, tuple[int, int]] = {}
    if settings.method == "latent_at":
        given = (
            published_latents(settings.preset)
            if settings.preset
            else read_latent_ids(Path(str(settings.path)))
        )
    rows = records.rows_by_id(latents.image_ids).tolist()
    selection = select(job, settings, records, judge, list(given), rows)
    n_patches = latents.kinds["image"]
    if selection.patches_cbp is not None and selection.patches_cbp.shape[2] != n_patches:
        raise UserError(
            f"directions: the features have {selection.patches_cbp.shape[2]} patches, the latents "
            f"{n_patches}; rebuild the latents from these features"
        )

    def firings(layer: int, latent: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        entries = latents.by_latent(layer, latent)
        place = entries.image.astype(np.int64) * n_patches + entries.token
        return firings_at(place, entries.value, n_patches, selection)

    if settings.method == "latent_at":
        chosen: list[list[Chosen]] = []
        for name, positive_u in zip(selection.names, selection.positive_cu, strict=True):
            if name not in given:
                chosen.append([])
                continue
            candidate = _given(name, *given[name], latents, labels)
            auroc = sparse_auroc(*firings(*given[name]), positive_u)
            chosen.append([Chosen(candidate, auroc)])
    else:
        candidates = [
            each
            for layer, table in labels.items()
            for each in _candidates(layer, table, latents.token_frequency(layer))
        ]
        named = judge.judge([each.label for each in candidates], selection.names)
        chosen = best_latents(candidates, named, firings, selection.positive_cu, settings.n_latents)
        if settings.method == "random_latent":
            chosen = random_like(chosen, candidates, named, settings.nearest, settings.seed)
        if settings.method == "wrong_concept":
            chosen = _exchanged(selection.names, chosen, settings.seed)
    wanted = {(e.candidate.layer, e.candidate.latent) for each in chosen for e in each}
    decoder, width = _decoder_rows(job.input_list("saes"), wanted)
    return _assembled(settings.method, "stream", selection, chosen, decoder, width)


def _candidates(layer: int, table: LatentLabels, density_s: NDArray[Any]) -> list[Candidate]:
    share_s = np.nan_to_num(np.asarray(table.share_s, dtype=np.float64), nan=-1.0)
    return [
        Candidate(layer, s, label, float(share_s[s]), float(density_s[s]))
        for s, label in enumerate(table.label_s)
        if label and label.strip()
    ]


def _given(
    name: str,
    layer: int,
    latent: int,
    latents: LatentReader,
    labels: Mapping[int, LatentLabels],
) -> Candidate:
    if layer not in latents.layers or not 0 <= latent < latents.layers[layer]:
        raise UserError(
            f"directions: {name} is given as latent {latent} of layer {layer}, which the latents "
            "do not hold; add that layer to the SAEs' layers"
        )
    density = float(latents.token_frequency(layer)[latent])
    table = labels[layer]
    return Candidate(layer, latent, table.label_s[latent], float(table.share_s[latent]), density)


def _exchanged(names: Sequence[str], chosen: list[list[Chosen]], seed: int) -> list[list[Chosen]]:
    """Give each concept the latents of another that has some; none where no other has any.

    Replacement draws targets by the same cycle through the sorted names. Here it is walked the
    other way: a source that was edited along its own target would fail by construction.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    before = {order[after]: order[c] for c, after in enumerate(derangement(len(names), seed))}
    out: list[list[Chosen]] = [[] for _ in chosen]
    for c in (c for c, each in enumerate(chosen) if each):
        other = before[c]
        while not chosen[other]:
            other = before[other]
        if other != c:
            # How well it marks its own concept says nothing about this one.
            out[c] = [Chosen(each.candidate, None) for each in chosen[other]]
    return out


def _decoder_rows(
    saes: Sequence[Artifact], wanted: set[tuple[int, int]]
) -> tuple[dict[tuple[int, int], NDArray[np.float32]], int]:
    """Decoder rows of some (layer, latent), and their width; one SAE in memory at a time."""
    from vista.sae.neutral import CONFIG_FILE, load_sae

    rows: dict[tuple[int, int], NDArray[np.float32]] = {}
    width = 0
    for artifact in saes:
        described = json.loads(artifact.file(CONFIG_FILE).read_text(encoding="utf-8"))
        layer, width = int(described["layer"]), int(described["d_in"])
        here = sorted(latent for at, latent in wanted if at == layer)
        if here:
            artifact.verify()
            sae = load_sae(artifact.path)
            rows |= {(layer, latent): sae.decoder_row(latent).numpy() for latent in here}
    missing = sorted({layer for layer, _ in wanted - set(rows)})
    if missing:
        raise UserError(f"directions: no SAE of layer {missing[0]} is given; add it to the SAEs")
    return rows, width


def _assembled(
    method: str,
    space: Space,
    selection: Selection,
    chosen: Sequence[Sequence[Chosen]],
    decoder: Mapping[tuple[int, int], NDArray[np.float32]],
    width: int,
) -> Directions:
    direction_cd = np.zeros((len(selection.names), width), dtype=np.float32)
    concepts = []
    for c, (name, latents) in enumerate(zip(selection.names, chosen, strict=True)):
        n_images = int(selection.present_bc[:, c].sum())
        if not latents:
            concepts.append(ConceptDirection(name, False, n_images))
            continue
        ids = tuple((each.candidate.layer, each.candidate.latent) for each in latents)
        direction_cd[c], norm = summed_rows([decoder[each] for each in ids])
        best = latents[0]
        concepts.append(
            ConceptDirection(
                name,
                bool(norm > 0),
                n_images,
                layer=ids[0][0] if space == "stream" else None,
                latent=ids[0][1],
                label=best.candidate.label,
                auroc=best.auroc,
                density=best.candidate.density,
                norm=norm,
                latents=ids,
            )
        )
    return Directions(method, space, tuple(concepts), direction_cd)


def _of_vision_sae(
    job: Job, settings: DirectionSettings, records: RecordTable, judge: Judge
) -> Directions:
    import torch

    from vista.sae.neutral import load_sae

    selection = select(job, settings, records, judge)
    reader = FeatureReader(job.input("features").store("features.zarr"))
    trained = job.input("vision_sae")
    trained.verify()
    sae = load_sae(trained.path, expect_d_in=reader.shape[-1])
    table = read_labels(job.input("labels").file(FILE))
    if len(table.label_s) != sae.config.d_sae:
        raise UserError(
            f"directions: labels of {len(table.label_s)} latents for a vision SAE of "
            f"{sae.config.d_sae}; label that SAE"
        )
    layer = sae.config.layer
    candidates = _candidates(layer, table, table.density_s)
    named = judge.judge([each.label for each in candidates], selection.names)
    used = [each.latent for i, each in enumerate(candidates) if named[i].any()]
    images = records.feature_rows()[1][selection.rows]
    n_patches, size = reader.shape[1], settings.batch_size
    places: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    for start in progress(range(0, len(images), size), desc="vision latents", unit="batch"):
        features_bpv = torch.from_numpy(
            reader.read(images[start : start + size]).astype(np.float32)
        )
        # Dense activations of a large dictionary are held for a few tokens at a time.
        tokens = torch.split(features_bpv.reshape(-1, reader.shape[-1]), sae.dense_rows)
        z_nk = torch.cat([sae.encode(part)[:, used] for part in tokens]).numpy()
        place, column = np.nonzero(z_nk > 0)
        places.append(place + start * n_patches)
        columns.append(column)
        values.append(z_nk[place, column])
    place_n, column_n, value_n = (np.concatenate(each) for each in (places, columns, values))
    number = {latent: k for k, latent in enumerate(used)}

    def firings(_: int, latent: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        at = column_n == number[latent]
        return firings_at(place_n[at], value_n[at], n_patches, selection)

    chosen = best_latents(candidates, named, firings, selection.positive_cu, settings.n_latents)
    decoder = {(layer, latent): sae.decoder_row(latent).numpy() for latent in used}
    return _assembled(settings.method, "features", selection, chosen, decoder, sae.config.d_in)


def _random(
    job: Job, settings: DirectionSettings, records: RecordTable, judge: Judge
) -> Directions:
    from vista.interventions.fitted import random_directions
    from vista.stages.loading import llm_width

    selection = select(job, settings, records, judge)
    concepts = tuple(
        ConceptDirection(name, True, int(present_b.sum()), norm=1.0)
        for name, present_b in zip(selection.names, selection.present_bc.T, strict=True)
    )
    rows_cd = random_directions(len(concepts), llm_width(job), settings.seed)
    return Directions(settings.method, "stream", concepts, rows_cd)


def _fitted(
    job: Job, settings: DirectionSettings, records: RecordTable, judge: Judge
) -> Directions:
    from vista.interventions.fitted import logistic, mean_difference

    selection = select(job, settings, records, judge)
    x_nd, positive_cn = _samples(job, settings, records, selection)
    if settings.method == "logistic":
        rows_cd = logistic(x_nd, positive_cn, settings.regularisation)
    else:
        rows_cd = mean_difference(x_nd, positive_cn)
    concepts = []
    everywhere = np.arange(len(x_nd))
    for c, name in enumerate(selection.names):
        found = bool(rows_cd[c].any())
        along_n = (x_nd @ rows_cd[c]).astype(np.float64)
        auroc = sparse_auroc(everywhere, along_n, positive_cn[c]) if found else None
        n_images = int(selection.present_bc[:, c].sum())
        layer = settings.layer if found else None
        concepts.append(
            ConceptDirection(name, found, n_images, layer=layer, auroc=auroc, norm=float(found))
        )
    return Directions(settings.method, "stream", tuple(concepts), rows_cd)


def _samples(
    job: Job, settings: DirectionSettings, records: RecordTable, selection: Selection
) -> tuple[NDArray[np.float32], BoolArray]:
    """Tokens of the stream after the block [n, d], and which concepts are at each [c, n].

    Concepts with boxes: some patches of an image's objects and as many others. Words: the mean
    over an image's patches.
    """
    import torch

    from vista.projector.module import load_projector
    from vista.stages.loading import load_llm

    reader = FeatureReader(job.input("features").store("features.zarr"))
    llm = load_llm(job)
    if settings.layer >= llm.n_blocks:
        raise UserError(
            f"directions.layer {settings.layer}: the language model has blocks "
            f"0..{llm.n_blocks - 1}"
        )
    trained = job.input("projector")
    trained.verify()
    projector = load_projector(trained.path, d_vision=reader.shape[-1], d_model=llm.d_model)
    projector = projector.to(llm.device)
    image_of = records.feature_rows()[1]
    rng = np.random.default_rng(settings.seed)
    n_visual, start = reader.shape[1], len(llm.opening)
    # Nothing after the visual tokens can change them, so nothing needs to stand there.
    ids = torch.zeros(1, start + n_visual, dtype=torch.int64, device=llm.device)
    ids[0, :start] = torch.tensor(llm.opening)
    xs, positives = [], []
    size = settings.batch_size
    for first in progress(range(0, len(selection.rows), size), desc="stream", unit="batch"):
        rows = selection.rows[first : first + size]
        features_bpv = torch.from_numpy(reader.read(image_of[rows]).astype(np.float32))
        stream_btd = llm.forward(
            ids.expand(len(rows), -1),
            visual=projector(features_bpv.to(llm.device)),
            visual_start=start,
            taps=(settings.layer,),
            stop_after=settings.layer,
        ).taps[settings.layer]
        x_bpd = stream_btd[:, start:].float().cpu().numpy()
        if selection.patches_cbp is None:
            xs.append(x_bpd.mean(1))
            positives.append(selection.present_bc[first : first + len(rows)].T)
            continue
        for b, x_pd in enumerate(x_bpd):
            patches_cp = selection.patches_cbp[:, first + b]
            inside_p = patches_cp.any(0)
            at = [
                rng.permutation(np.flatnonzero(each))[: settings.patches_per_image]
                for each in (inside_p, ~inside_p)
            ]
            taken = np.sort(np.concatenate(at))
            xs.append(x_pd[taken])
            positives.append(patches_cp[:, taken])
    return np.concatenate(xs), np.concatenate(positives, axis=1)
