"""Make a results folder of any size to explore: `python -m benchmarks.explorer_store FOLDER`.

Scenes, their records, latents of one or more points, labels and a catalogue lie there as in a run;
no model is needed. What is where is planted: each scene shows one thing in its box, and the first
latents are those things, which fire most on the patches of the box and are labelled after them. All
else is drawn at random: how often a latent fires falls with its number, and so do activations over
the slots of a token.

Suffixes: b image, t token, k slot, s latent.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.data.geometry import ImageGeometry
from vista.data.records import Box, Object, Record, Turn, write_records
from vista.engine.artifacts import (
    Provenance,
    canonical_json,
    digest_text,
    input_digests,
    open_artifact,
    publishing,
)
from vista.inputs.latents import GEOMETRY
from vista.report.catalogue import CATALOGUE, catalogue_text
from vista.sae.label_table import FILE, LatentLabels, write_labels
from vista.store.latents import LatentWriter

THINGS = ("cat", "dog", "cow", "bus", "pizza", "bird", "boat", "kite")
NAME, ENCODER, LLM = "planted", "planted", "planted"
# Width and height in px of the scenes, in turns: a square, a wide one and a tall one.
SHAPES = ((224, 224), (224, 160), (150, 224))
_PATCH = 14
_CONTEXTS = 8
_LABELLED = 0.7
# Latents that fire somewhere in an image, as a multiple of those that fire at a token.
_POOL = 10
_BATCH = 8


@dataclass(frozen=True)
class Sizes:
    """How much is made: images, latents of an SAE, mean latents and slots of a token, layers, and
    SAE weights of the points. The grid has `side` x `side` patches."""

    images: int = 10_000
    latents: int = 16_384
    active: int = 64
    slots: int = 16_384
    side: int = 16
    layers: int = 1
    weights: tuple[float, ...] = (1.0,)


def make(results: Path, sizes: Sizes) -> dict[str, str]:
    """Make what is missing of the results; return the folders of the artifacts, and the catalogue's
    file, by what they are."""
    run, records = _Run(results), list(scenes(sizes))
    world = run.publish("draw_world", NAME, {"kind": "drawn", "seed": 0, "n": sizes.images}, {}, {
        "images": lambda path: _draw_scenes(path, records)
    })  # fmt: skip
    table = run.publish("records", NAME, {"kind": "drawn"}, {"world": world}, {
        "records.parquet": lambda path: write_records(path, records)
    })  # fmt: skip
    placing = {"size": sizes.side * _PATCH, "patch": _PATCH, "fit": "pad"}
    features = run.publish("features", ENCODER, {"geometry": placing},
        {"records": table, "world": world},
        {GEOMETRY: lambda path: path.write_text(canonical_json(placing))},
    )  # fmt: skip
    saes = [
        run.publish("import_sae", f"{LLM}-l{layer}", {"layer": layer, "d_sae": sizes.latents}, {},
            {"sae.txt": lambda path: path.write_text("planted\n")},
        )
        for layer in range(sizes.layers)
    ]  # fmt: skip
    labels = [
        run.publish("label_latents", f"{LLM}-l{layer}", {"layer": layer}, {"sae": saes[layer]},
            {FILE: lambda path, layer=layer: write_labels(path, draw_labels(layer, sizes))},
        )
        for layer in range(sizes.layers)
    ]  # fmt: skip
    points = []
    for weight in sizes.weights:
        name = f"{ENCODER}-{LLM}-w{weight:g}-s0"
        projector = run.publish("train_projector", name, {"sae_weight": weight, "seed": 0},
            {"features": features, "records": table},
            {"projector.txt": lambda path: path.write_text("planted\n")},
        )  # fmt: skip
        inputs = {"features": features, "records": table, "projector": projector, "saes": saes}
        settings = {"latents": {"split": "test", "max_active": sizes.slots}, "l0": sizes.active}
        points.append(run.publish("latents", name, settings, inputs, {
            "latents.zarr": lambda path, weight=weight: write_latents(path, records, sizes, weight)
        }))  # fmt: skip
    place = {"encoder": ENCODER, "llm": LLM}
    report = run.publish("report", NAME,
        {
            "name": NAME,
            "latents": [{**place, "sae_weight": w, "seed": 0} for w in sizes.weights],
            "labels": [{"llm": LLM, "layer": layer} for layer in range(sizes.layers)],
            "features": [{"encoder": ENCODER}],
        },
        {"latents": points, "labels": labels, "features": [features], "records": table},
        {"summary.md": lambda path: path.write_text("# planted\n")},
    )  # fmt: skip
    (results / CATALOGUE).write_text(catalogue_text((results / report).absolute()))
    return {"records": table, "latents": points[0], "labels": labels[0], "catalogue": CATALOGUE}


class _Run:
    """Publishes artifacts below a results folder, each file of them by a function of its path."""

    def __init__(self, results: Path) -> None:
        self._results = results

    def publish(
        self,
        stage: str,
        name: str,
        settings: dict[str, Any],
        parents: Mapping[str, str | list[str]],
        files: Mapping[str, Callable[[Path], object]],
    ) -> str:
        """Publish an artifact, if it is not there, and return its folder STAGE/NAME-ID."""
        inputs = input_digests(
            {
                role: self._open(paths) if isinstance(paths, str) else [*map(self._open, paths)]
                for role, paths in parents.items()
            }
        )
        number = digest_text(canonical_json([settings, inputs]))[:10]
        provenance = Provenance(stage, settings, inputs, {}, {}, parents)
        with publishing(self._results, stage, f"{name}-{number}", provenance) as work:
            for file, write in files.items() if work is not None else ():
                assert work is not None
                write(work / file)
        return f"{stage}/{name}-{number}"

    def _open(self, folder: str) -> Any:
        return open_artifact(self._results / folder)


def scenes(sizes: Sizes) -> Sequence[Record]:
    """Return the records of the scenes: one thing each, in a box of a third of its sides."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(sizes.images):
        thing = THINGS[number % len(THINGS)]
        width, height = SHAPES[number % len(SHAPES)]
        x, y = rng.integers(width - width // 3), rng.integers(height - height // 3)
        box = Box(float(x), float(y), float(width // 3), float(height // 3))
        text = f"a {thing} at {x}, {y}"
        records.append(
            Record(
                f"scene-{number:06d}",
                "test",
                f"{number // 1000:03d}/{number:06d}.png",
                width,
                height,
                (text,),
                (Turn("What is there?", text),),
                (Object(thing, box),),
            )
        )
    return records


def _draw_scenes(folder: Path, records: Sequence[Record]) -> None:
    """Draw each thing as a rectangle of its colour on a ground that differs between images."""
    for number, record in enumerate(records):
        image = Image.new("RGB", (record.width, record.height), _colour(number % 97 / 97, 80))
        (thing,) = record.objects
        x, y, width, height = map(int, thing.box)
        hue = THINGS.index(thing.category) / len(THINGS)
        image.paste(_colour(hue, 230), (x, y, x + width, y + height))
        path = folder / record.path
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, compress_level=1)


def _colour(hue: float, value: int) -> tuple[int, ...]:
    red, green, blue = (np.cos(2 * np.pi * (hue + np.arange(3) / 3)) + 1) / 2 * value
    return int(red), int(green), int(blue)


def draw_labels(layer: int, sizes: Sizes) -> LatentLabels:
    """Return labels: the things first, then numbered words; 3 in 10 of the others have none."""
    rng = np.random.default_rng(layer)
    n = sizes.latents
    words = [f"word {number}" for number in range(max(1, n // 4))]
    named = rng.random(n) < _LABELLED
    chosen = rng.integers(len(words), size=n)
    label_s: list[str | None] = [
        words[w] if ok else None for w, ok in zip(chosen, named, strict=True)
    ]
    label_s[: len(THINGS)] = THINGS[:n]
    around = rng.integers(len(words), size=(n, _CONTEXTS, 6))
    contexts_s = tuple(
        tuple(
            f"{9 - rank}.0: {' '.join(words[w] for w in row[:4])} «{label or 'it'}» "
            f"{' '.join(words[w] for w in row[4:])}"
            for rank, row in enumerate(rows)
        )
        for label, rows in zip(label_s, around, strict=True)
    )
    share_s = np.where([label is not None for label in label_s], rng.uniform(0.5, 1, n), 0)
    density_s, auroc_s = rng.random(n) ** 4, rng.uniform(0.5, 1, n)
    columns = [column.astype(np.float32) for column in (share_s, density_s, auroc_s)]
    return LatentLabels(
        layer, f"planted-l{layer}", 100_000, tuple(label_s), *columns[:2], contexts_s, columns[2]
    )


def write_latents(path: Path, records: Sequence[Record], sizes: Sizes, weight: float) -> None:
    """Write the store of one point; the things' latents fire more with a larger SAE weight."""
    grid = (sizes.side, sizes.side)
    writer = LatentWriter(
        path,
        [record.image_id for record in records],
        grid,
        dict.fromkeys(range(sizes.layers), sizes.latents),
        {"image": sizes.side**2},
        sizes.slots,
    )
    for start in range(0, len(records), _BATCH):
        shown = records[start : start + _BATCH]
        writer.set_valid("image", start, np.ones((len(shown), sizes.side**2), bool))
        for layer in range(sizes.layers):
            rng = np.random.default_rng([start, layer, round(100 * weight)])
            drawn = [_draw_image(rng, record, sizes, weight) for record in shown]
            most = max(index_tk.shape[1] for index_tk, _, _ in drawn)
            index_btk, value_btk = (
                np.stack([_padded(columns[i], most) for columns in drawn]) for i in range(2)
            )
            error_bt, norm2_bt = rng.uniform(
                [[[0.1]], [[1]]], [[[1]], [[2]]], (2, *index_btk.shape[:2])
            )
            nnz_bt = np.stack([nnz_t for _, _, nnz_t in drawn])
            writer.write("image", start, layer, index_btk, value_btk, nnz_bt, error_bt, norm2_bt)
    for layer in range(sizes.layers):
        writer.finish(layer, "image", np.zeros(64))
    writer.close()


def _draw_image(
    rng: np.random.Generator, record: Record, sizes: Sizes, weight: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return index and value [t, k], strongest first, and nnz [t] of one image."""
    n_tokens, most = sizes.side**2, min(sizes.slots, sizes.latents - len(THINGS))
    nnz_t = rng.lognormal(np.log(sizes.active) - 0.125, 0.5, n_tokens).round().astype(np.int64)
    nnz_t = nnz_t.clip(1, most)
    width = int(nnz_t.max())
    # Latents of this image; a low number is drawn more often. Those of a token are different ones.
    pool = len(THINGS) + (
        (sizes.latents - len(THINGS)) * rng.random(max(width, _POOL * sizes.active)) ** 2
    ).astype(np.int64)
    pool = np.unique(pool)
    nnz_t, width = nnz_t.clip(1, len(pool)), min(width, len(pool))
    place_tk = np.argpartition(rng.random((n_tokens, len(pool))), width - 1)[:, :width]
    index_tk = pool[place_tk]
    value_tk = -np.sort(-rng.lognormal(1, 1, (n_tokens, width)).clip(0.01, 100), axis=1)
    (thing,) = record.objects
    geometry = ImageGeometry(record.width, record.height, sizes.side * _PATCH, _PATCH, "pad")
    of_thing_t = geometry.box_to_patches(thing.box)
    index_tk[of_thing_t, 0] = THINGS.index(thing.category)
    value_tk[of_thing_t, 0] = 100 + 100 * weight + rng.random(int(of_thing_t.sum()))
    return index_tk, value_tk, nnz_t


def _padded(column_tk: NDArray[Any], slots: int) -> NDArray[Any]:
    return np.pad(column_tk, ((0, 0), (0, slots - column_tk.shape[1])))


def main() -> int:
    """Make the results, and say how long it took and how large they are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explorer_store")
    parser.add_argument("folder", type=Path, help="results folder that is made or completed")
    for name in ("images", "latents", "active", "slots", "side", "layers"):
        default = getattr(Sizes, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument(
        "--weights", type=float, nargs="+", default=Sizes.weights, help="a point each; default 1"
    )
    arguments = vars(parser.parse_args())
    results = arguments.pop("folder")
    start = time.perf_counter()
    made = make(results, Sizes(**{**arguments, "weights": tuple(arguments["weights"])}))
    took = time.perf_counter() - start
    store = results / made["latents"] / "latents.zarr"
    sizes = [file.stat().st_size for file in store.rglob("*") if file.is_file()]
    print(f"{took:.1f} s; {made['latents']}: {sum(sizes) / 1e6:.1f} MB in {len(sizes)} files")
    for what, folder in made.items():
        print(f"{what:9} {results / folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
