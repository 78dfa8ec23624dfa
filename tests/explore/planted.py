"""A small run with everything that the page shows, through the product's own writers.

Two points of one encoder, one of another (another grid) and one of class tokens, two layers with
their SAEs, 300 images of several shapes in two shards with masks, labels of which one is hostile,
edited captions with scores and a control, vision SAEs on patches and on class tokens with labels
from training images and by steering, a report with an outlier.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import save_file

from tests.published import publish
from vista.data.masks import encode_mask
from vista.data.record import Box, Object, Record
from vista.data.records import write_records
from vista.engine.artifacts import Artifact
from vista.inputs.edited_captions import SCHEMA as CAPTION_SCHEMA
from vista.metrics.figure import Figure
from vista.metrics.results import figures_table, write_parquet
from vista.sae.label_table import LatentLabels, write_labels
from vista.sae.top_table import write_top
from vista.store.latents import LatentWriter

N = 300
SHAPES = ((64, 64), (96, 48), (40, 80))
IDS = [f"image {n}" if n else "größe/0" for n in range(N)]
# Images of which no latents are stored.
TRAIN = [f"train {n}" for n in range(3)]
LAYERS = {1: 40, 3: 60}
PUBLISHED = {1: "gemma-2-2b/1-gemmascope-res-16k", 3: '../"onclick=alert(1)//x'}
OUTLIER = 8000.0
K = 6
HOSTILE = "<img src=x onerror=\"document.title='hacked'\">"
CAPTION = "a <script>document.title='hacked'</script> cat"
WORDS = ("cat", "dog", HOSTILE, None, "the sky", "kätzchen")
# Folders and geometries of the encoders, and the points that are read with them.
PLACING = {
    "dinov2": {"size": 32, "patch": 8, "fit": "pad"},
    "clip": {"size": 30, "patch": 10, "fit": "crop"},
    "dinov2_class": {"size": 32, "patch": 32, "fit": "pad"},
}
# Latents of each vision SAE, by encoder.
VISION_SAES = {"dinov2": 30, "dinov2_class": 12}
POINTS = {
    "dinov2-gemma2-w0-s0": "dinov2",
    "dinov2-gemma2-w1-s0": "dinov2",
    "clip-gemma2-w1-s0": "clip",
    "dinov2_class-gemma2-w1-s0": "dinov2_class",
}


def make_records(images: Path) -> list[Record]:
    """Return the records of the images, and write the images."""
    images.mkdir(parents=True)
    records = []
    for n, image_id in enumerate(IDS + TRAIN):
        split = "train" if image_id in TRAIN else "test"
        width, height = SHAPES[n % len(SHAPES)]
        mask_hw = np.zeros((height, width), bool)
        mask_hw[4 : 4 + height // 2, 4 : 4 + width // 2] = True
        mask_hw[6:9, 6:9] = False  # a hole
        box = Box(4, 4, width / 2, height / 2)
        cat = Object("cat" if n % 2 else "dog", box, encode_mask(mask_hw))
        caption = CAPTION if n == 0 else f"a picture of number {n}"
        records.append(Record(image_id, split, f"{n}.png", width, height, (caption,), (), (cat,)))
        Image.new("RGB", (width, height), (n % 256, 99, 60)).save(images / f"{n}.png")
    return records


def write_store(work: Path, seed: int, grid: tuple[int, int]) -> None:
    """Write random latents; of image 1 no latent fires at the last token, of image 2 it is not
    there."""
    rng = np.random.default_rng(seed)
    tokens = grid[0] * grid[1]
    writer = LatentWriter(work / "latents.zarr", IDS, grid, LAYERS, {"image": tokens}, k=K)
    valid = np.ones((N, tokens), bool)
    valid[2, -1] = False
    writer.set_valid("image", 0, valid)
    for layer, size in LAYERS.items():
        nnz = rng.integers(0, K + 1, (N, tokens)).astype(np.uint16)
        nnz[1, -1] = 0
        used = np.arange(K) < nnz[..., None]
        order = np.argsort(rng.random((N, tokens, size)), axis=2)[..., :K]
        index = np.where(used, order, 0).astype(np.uint16)
        value = np.where(used, -np.sort(-rng.random((N, tokens, K)) * 5), 0).astype(np.float16)
        error, norm2 = (rng.random((N, tokens)).astype(np.float32) + 0.1 for _ in range(2))
        writer.write("image", 0, layer, index, value, nnz, error, norm2)
        writer.finish(layer, "image", np.full(4, 1.0))
    writer.close()


def write_label_table(work: Path, layer: int, words: tuple[str | None, ...] = WORDS) -> None:
    size = LAYERS[layer]
    rng = np.random.default_rng(layer)
    names = tuple(words[n % len(words)] for n in range(size))
    share, density = (rng.random(size).astype(np.float32) for _ in range(2))
    contexts = tuple(
        (f"{n + 0.5}: a «{names[n]}» sat", "0.25: on") if n % 4 else () for n in range(size)
    )
    auroc = np.where(np.arange(size) % 3 == 0, np.nan, share).astype(np.float32)
    write_labels(
        work / "labels.parquet",
        LatentLabels(layer, f"gemma2-l{layer}", 1000, names, share, density, contexts, auroc),
    )


def top_rows(n_latents: int, patches: int) -> dict[str, list[Any]]:
    """Return the columns of a table of top images. Latent 4 never fires."""
    rows = [
        (
            latent,
            rank,
            TRAIN[rank],
            (7 * latent + rank) % patches,
            3.0 - rank,
            [name] if name else [],
        )
        for latent in range(n_latents)
        for rank, name in enumerate(("dog", HOSTILE, None))
        if latent != 4
    ]
    names = ("latent", "rank", "image_id", "patch", "activation", "classes")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def write_vision_labels(work: Path, sae: str, n_latents: int, patches: int) -> None:
    names = tuple(WORDS[n % len(WORDS)] for n in range(n_latents))
    share = (np.arange(n_latents) / n_latents).astype(np.float32)
    density = np.where(np.arange(n_latents) == 4, 0, 0.25).astype(np.float32)
    table = LatentLabels(2, sae, 3 * patches, names, share, density, ((),) * n_latents)
    write_labels(work / "labels.parquet", table)
    write_top(work / "top.parquet", top_rows(n_latents, patches))


def write_steering(work: Path, sae: str, n_latents: int) -> None:
    labels = tuple("steered" if n == 2 else None for n in range(n_latents))
    share = np.array([label is not None for label in labels], np.float32)
    table = LatentLabels(2, sae, 48, labels, share, share, ((),) * n_latents)
    write_labels(work / "labels.parquet", table)
    row = {"latent": 2, "coefficient": 4.0, "answer": f"an answer {HOSTILE}", "label": "steered"}
    schema = pa.schema({"latent": pa.int32()})
    columns = pa.Table.from_pylist([row | {"gain": 0.5, "nearest": "cat"}])
    columns = columns.set_column(0, schema.field(0), columns["latent"].cast(pa.int32()))
    pq.write_table(columns, work / "steering.parquet")


def write_sae(work: Path, layer: int) -> None:
    """Write an SAE with random decoder rows of width 12; that of layer 3 has a hostile name."""
    write_decoder(work, LAYERS[layer], layer=layer, neuronpedia=PUBLISHED[layer])


def write_decoder(work: Path, size: int, **config: Any) -> None:
    rows_sd = np.random.default_rng(100 + size).standard_normal((size, 12), np.float32)
    save_file({"W_dec": rows_sd}, work / "sae.safetensors")
    (work / "sae.json").write_text(json.dumps({"d_sae": size, **config}))


def write_report(work: Path) -> None:
    table = figures_table(
        Figure(
            metric,
            encoder="dinov2",
            llm="gemma2",
            sae_weight=weight,
            seed=0,
            layer=layer,
            token_kind="image",
            value=0.1 * (layer + 1) * (weight + 1),
            ci_low=0.05,
            ci_high=0.9,
            chance=0.02,
            n=N,
        )
        for metric in ("matching_rate", "fvu")
        for weight in (0.0, 1.0)
        for layer in LAYERS
    )
    figures = [
        Figure("l0", encoder="dinov2", layer=layer, value=value, n=N)
        for layer, value in enumerate((0.5, 2.0, 1.5, OUTLIER))
    ]
    table = pa.concat_tables([table, figures_table(figures)])
    write_parquet(work / "summary.parquet", table)
    (work / "figures").mkdir()
    Image.new("RGB", (60, 40), "white").save(work / "figures" / "matching_rate.png")
    (work / "summary.md").write_text("# Run\n\n![Matching \\_rate](figures/matching_rate.png)\n")


def caption_rows(control: str = "") -> list[dict[str, Any]]:
    """Return the rows of edited captions: two images, before and after at two coefficients."""
    rows = []
    for n in (0, 1):
        for variant, coefficient in (("none", 0.0), ("object", 1.0), ("object", 4.0)):
            after = (
                f"a {control}dog with strength {coefficient:g}" if coefficient else f"{CAPTION} {n}"
            )
            rows.append(
                {
                    **dict.fromkeys(CAPTION_SCHEMA.names, 0),
                    "image_id": IDS[n],
                    "split": "test",
                    "source": "cat",
                    "target": "dog",
                    "task": "replace",
                    "variant": variant,
                    "coefficient": coefficient,
                    "blocks": [1, 3] if coefficient else None,
                    "caption": after,
                    "found": True,
                    "patches": [0, 5] if coefficient else [],
                }
            )
    return rows


def write_captions(work: Path, control: str = "") -> None:
    names = {field.name for field in CAPTION_SCHEMA}
    rows = [{key: row[key] for key in row if key in names} for row in caption_rows(control)]
    pq.write_table(pa.Table.from_pylist(rows, CAPTION_SCHEMA), work / "captions.parquet")
    (work / "edits.json").write_text("{}")


def write_scores(work: Path) -> None:
    keys = ("image_id", "source", "target", "variant", "coefficient", "blocks")
    rows = [
        {key: row[key] for key in keys}
        | {"chosen": row["coefficient"] == 4, "score": n // 3 * 2, "new_details": ["sky"]}
        for n, row in enumerate(caption_rows())
        if row["coefficient"]
    ]
    pq.write_table(pa.Table.from_pylist(rows), work / "items.parquet")


def planted_run(folder: Path) -> Path:
    """Make the run in FOLDER/results and return that."""
    root, images = folder / "results", folder / "images"
    records = make_records(images)
    table = publish(
        root,
        "records/glyphs-0123456789",
        lambda work: write_records(work / "records.parquet", records),
        {"kind": "folder", "images": str(images), "fetch": []},
    )
    features = {
        name: publish(
            root,
            f"features/{name}-0123456789",
            lambda work, placing=placing: (work / "geometry.json").write_text(json.dumps(placing)),
            records=table,
        )
        for name, placing in PLACING.items()
    }
    saes, labels, latents = [], [], []
    for layer in LAYERS:
        sae = publish(
            root,
            f"import_sae/gemma2-l{layer}-0123456789",
            lambda work, layer=layer: write_sae(work, layer),
            {"layer": layer},
        )
        saes.append(sae)
        table_of_layer = publish(
            root,
            f"label_latents/gemma2-l{layer}-0123456789",
            lambda work, layer=layer: write_label_table(work, layer),
            sae=sae,
        )
        labels.append(table_of_layer)
    for seed, (name, encoder) in enumerate(POINTS.items()):
        side = PLACING[encoder]["size"] // PLACING[encoder]["patch"]
        point = publish(
            root,
            f"latents/{name}-0123456789",
            lambda work, seed=seed, side=side: write_store(work, seed, (side, side)),
            records=table,
            features=features[encoder],
            saes=saes,
        )
        latents.append(point)
    publish_vision_saes(root, table, features)
    publish(
        root,
        "report/planted-0123456789",
        write_report,
        {"name": "planted"},
        latents=latents,
        labels=labels,
        interventions=publish_edits(root, table, features["dinov2"]),
    )
    return root


def publish_edits(root: Path, records: Artifact, features: Artifact) -> list[Artifact]:
    """Publish edited captions with scores, and a control of them; return the scores."""
    point, parents = "dinov2-gemma2-w1-s0-latent", {"records": records, "features": features}
    method, scores = None, []
    for control in ("", "random_source"):
        name = f"{point}-{control}" if control else point
        test = publish(
            root,
            f"edit_captions/{name}-replace-test-0123456789",
            lambda work, control=control: write_captions(work, control),
            **parents,
        )
        of_method = {} if method is None else {"method": method}
        method = publish(
            root,
            f"intervention/{name}-replacement-0123456789",
            write_scores,
            records=records,
            test=test,
            development=test,
            **of_method,
        )
        scores.append(method)
    return scores


def publish_vision_saes(root: Path, records: Artifact, features: dict[str, Artifact]) -> None:
    """Publish a vision SAE of each encoder and one of prompts with their labels, and the first
    one's by steering."""
    prompts = publish(
        root,
        "prompt_features/one_object-0123456789",
        lambda work: write_records(
            work / "records.parquet",
            [Record(name, "train", name, 1, 1, (f"prompt {CAPTION}",)) for name in TRAIN],
        ),
    )
    inputs = {
        "dinov2-topk": (features["dinov2"], records, VISION_SAES["dinov2"], 16),
        "dinov2_class-topk": (features["dinov2_class"], records, VISION_SAES["dinov2_class"], 1),
        "one_object-text_encoder": (prompts, prompts, 8, 5),
    }
    for name, (of, table, n_latents, patches) in inputs.items():
        read = {"features": of, "records": table}
        path = f"train_vision_sae/{name}-0123456789"
        sae = publish(
            root, path, lambda work, n=n_latents: write_decoder(work, n), {"name": name}, **read
        )
        labels = publish(
            root,
            f"label_vision_latents/{name}-0123456789",
            lambda work, at=(name, n_latents, patches): write_vision_labels(work, *at),
            sae=sae,
            **read,
        )
        if name == "dinov2-topk":
            publish(
                root,
                "label_by_steering/dinov2-gemma2-w1-s0-topk-0123456789",
                lambda work, at=(name, n_latents): write_steering(work, *at),
                sae=sae,
                labels=labels,
                **read,
            )
