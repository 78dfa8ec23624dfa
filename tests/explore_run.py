"""A planted run to explore: three images of two patches, latents of one layer, labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.published import publish
from vista.data.record import Box, Object, Record
from vista.data.records import write_records
from vista.sae.label_table import LatentLabels, write_labels
from vista.store.latents import LatentWriter

IDS = ["cat 1", "dog 2", "3"]
NAME = "dinov2-gemma2-w1-s0"
# Images x patches (one row of two) x slots: latents and activations of layer 4, strongest first.
INDEX = [[[1, 2], [2, 0]], [[3, 0], [0, 0]], [[1, 0], [1, 0]]]
VALUE = [[[2.0, 0.5], [1.5, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[3.0, 0.0], [4.0, 0.0]]]
NNZ = [[2, 1], [1, 0], [1, 1]]


def write_store(work: Path) -> None:
    index, value = np.array(INDEX, np.uint16), np.array(VALUE, np.float16)
    writer = LatentWriter(work / "latents.zarr", IDS, (1, 2), {4: 5}, {"image": 2}, k=2)
    writer.set_valid("image", 0, np.ones((3, 2), bool))
    error, norm2 = (np.full((3, 2), x, np.float32) for x in (0.5, 2.0))
    writer.write("image", 0, 4, index, value, np.array(NNZ, np.uint16), error, norm2)
    writer.finish(4, "image", np.full(4, 1.0))
    writer.close()


def write_label_table(work: Path) -> None:
    names = ("grass", "<b>cat</b>\x1b[31m", "dog", None, "the")
    contexts = ((), ("2.0: a «cat» sat",), (), (), ())
    density = np.array([0.1, 0.02, 0.03, 0.0, 0.5], np.float32)
    table = LatentLabels(4, "s", 10, names, np.full(5, 0.75, np.float32), density, contexts)
    write_labels(work / "labels.parquet", table)


def publish_run(folder: Path) -> Path:
    """Publish the run below a folder; return its results folder."""
    root = folder / "results"
    images = folder / "images"
    images.mkdir()
    cat = Object("cat", Box(0, 0, 10, 10))
    records = [
        Record(
            name, "test", f"{b}.png", 32, 16, (f"a picture of {b}",), (), (cat,) if b == 0 else ()
        )
        for b, name in enumerate(IDS)
    ]
    for record in records:
        Image.new("RGB", (32, 16), "green").save(images / record.path)
    of_data = {"kind": "folder", "images": str(images), "fetch": []}
    table = publish(
        root, "records/r-1", lambda work: write_records(work / "records.parquet", records), of_data
    )
    geometry = {"size": 32, "patch": 16, "fit": "crop"}
    features = publish(
        root,
        "features/dinov2-1",
        lambda work: (work / "geometry.json").write_text(json.dumps(geometry)),
    )
    sae = publish(root, "import_sae/l4-1", lambda work: (work / "a").touch())
    publish(root, "label_latents/l4-1", write_label_table, sae=sae)
    publish(root, f"latents/{NAME}-1", write_store, records=table, features=features, saes=[sae])
    return root
