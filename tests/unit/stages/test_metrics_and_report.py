"""The metric stages and the report on a planted run: every figure is known beforehand.

Six images of 24x24 px on a grid of 3x3 patches, each with one object on one patch. The planted
latents: with the term (weight 1) the class's own latent fires on the object's patch, without it
(weight 0) it is silent in every second image and fires beside the object in the others.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.long_table import read_rows
from vista.config.report import ReportSettings
from vista.data.records import Box, Object, Record, encode_mask, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.metrics.labelled_latents import LabelledLatentsSettings
from vista.metrics.labelled_latents import stage as labelled_latents
from vista.metrics.labelled_latents.measure import strongest_latents
from vista.metrics.localization import LocalizationSettings
from vista.metrics.localization import stage as localization
from vista.metrics.matching_rate import MatchingSettings
from vista.metrics.matching_rate import stage as matching_rate
from vista.metrics.reconstruction import ReconstructionSettings
from vista.metrics.reconstruction import stage as reconstruction
from vista.metrics.results import read_result
from vista.report.summary import publish_summary
from vista.sae.label_table import LatentLabels, write_labels
from vista.stages import report
from vista.store.latents import LatentWriter

NAMES = ["cat", "dog", "umbrella"]
LABELS = ["cat", "dog", "umbrella", "grass", None, "cat"]
GRASS, UNLABELLED, DENSE = 3, 4, 5
PLACES = [0, 4, 8, 2, 6, 5]
LAYERS = {1: 6, 2: 6}


# The digests of inputs that metrics compare: labels must be of an SAE that made the latents.
INPUTS: dict[str, dict[str, Any]] = {
    "latents": {"saes": ["digest"]},
    "label_latents": {"sae": "digest"},
}


def publish(
    root: Path,
    stage: str,
    node: str,
    write: Callable[[Path], None],
    inputs: dict[str, Any] | None = None,
) -> Artifact:
    settings = {"kind": "drawn"} if stage == "records" else {}
    record = Provenance(stage, settings, inputs or INPUTS.get(stage, {}), "code", {})
    with publishing(root, stage, node, record) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / node)


def run(root: Path, stage: Any, node: str, settings: dict[str, Any], **inputs: Any) -> Artifact:
    def write(work: Path) -> None:
        stage.run(Job(node, settings, inputs, work))

    return publish(root, stage.__name__.removesuffix(".stage").rsplit(".", 1)[1], node, write)


def planted_records() -> list[Record]:
    found = []
    for i, place in enumerate(PLACES):
        y, x = divmod(place, 3)
        mask = np.zeros((24, 24), dtype=bool)
        mask[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = True
        box = Box(8.0 * x, 8.0 * y, 8.0, 8.0)
        thing = Object(NAMES[i % 3], box, encode_mask(mask))
        found.append(Record(f"image_{i}", "test", f"image_{i}.png", 24, 24, objects=(thing,)))
    return found


def write_world(work: Path) -> None:
    (work / "images").mkdir()
    for i in range(len(PLACES)):
        pixels = np.full((24, 24, 3), 40 * i, dtype=np.uint8)
        Image.fromarray(pixels).save(work / "images" / f"image_{i}.png")


def write_latents(work: Path, weight: float, grass: bool = True) -> None:
    """Write the planted latents; without `grass` no token has the frequent one."""
    ids = [f"image_{i}" for i in range(len(PLACES))]
    kinds = {"image": 9, "text": 2, "control": 2}
    writer = LatentWriter(work / "latents.zarr", ids, (3, 3), LAYERS, kinds, k=3)
    for kind, tokens in kinds.items():
        writer.set_valid(kind, 0, np.ones((6, tokens), dtype=bool))
        for layer in LAYERS:
            index = np.zeros((6, tokens, 3), dtype=np.uint16)
            value = np.zeros((6, tokens, 3), dtype=np.float16)
            nnz = np.zeros((6, tokens), dtype=np.uint16)
            if kind == "image":
                for i, place in enumerate(PLACES):
                    # A dense latent named "cat" and a frequent one shout everywhere.
                    index[i, :, 0], value[i, :, 0] = DENSE, 9.0
                    index[i, :, 1], value[i, :, 1] = GRASS if grass else UNLABELLED, 8.0
                    nnz[i] = 2
                    if weight or i % 2:
                        at = place if weight else (place + 1) % 9
                        index[i, at, 2], value[i, at, 2], nnz[i, at] = i % 3, 2.0 + i, 3
            error = np.full((6, tokens), 0.1 if weight else 0.8, dtype=np.float32)
            norm2 = np.full((6, tokens), 2.0, dtype=np.float32)
            writer.write(kind, 0, layer, index, value, nnz, error, norm2)
            writer.finish(layer, kind, np.full(4, 1.0))
    writer.close()


def write_label_table(work: Path, layer: int, labels: list[str | None] = LABELS) -> None:
    density = np.full(len(labels), 0.001, dtype=np.float32)
    if len(labels) > DENSE:
        density[DENSE] = 0.4
    share = np.linspace(0.9, 0.5, len(labels)).astype(np.float32)
    contexts = tuple(() for _ in labels)
    write_labels(
        work / "labels.parquet",
        LatentLabels(layer, f"sae_{layer}", 1000, tuple(labels), share, density, contexts),
    )


def write_curve(work: Path) -> None:
    import pyarrow as pa

    steps = np.arange(20.0)
    columns = {"step": steps, "cross_entropy": 1 / (1 + steps), "sae_error": np.full(20, 0.5)}
    pq.write_table(pa.table(columns), work / "curve.parquet")


def write_features(work: Path) -> None:
    (work / "geometry.json").write_text(json.dumps({"size": 24, "patch": 8, "fit": "pad"}))


def write_check(work: Path, layer: int) -> None:
    names = ("mse", "fvu", "explained_variance", "l0", "dead_share")
    content = dict.fromkeys(names, 0.1) | {"layer": layer, "tokens": 500, "d_sae": 6}
    (work / "result.json").write_text(json.dumps(content))


GROUPS = (None, "odd", "even")
MASK = {"max_image_share": 0.5, "max_label_density": 0.005}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("results")
    records = planted_records()
    found: dict[str, Any] = {
        "root": root,
        "records": publish(
            root, "records", "r", lambda w: void(write_records(w / "records.parquet", records))
        ),
        "world": publish(root, "draw_world", "w", write_world),
        "features": publish(root, "features", "f", write_features),
        "labels": [
            publish(root, "label_latents", f"l{layer}", lambda w, x=layer: write_label_table(w, x))
            for layer in (2, 1)
        ],
        "checks": [
            publish(root, "check_sae", f"c{layer}", lambda w, x=layer: write_check(w, x))
            for layer in (1, 2)
        ],
    }
    for weight in (0.0, 1.0):
        latents = publish(root, "latents", f"z{weight}", lambda w, x=weight: write_latents(w, x))
        shared = {"latents": latents, "labels": found["labels"], "records": found["records"]}
        found[f"latents_{weight}"] = latents
        found[f"curve_{weight}"] = publish(root, "train_projector", f"p{weight}", write_curve)
        found[f"reconstruction_{weight}"] = run(
            root,
            reconstruction,
            f"rec{weight}",
            ReconstructionSettings().model_dump(mode="json"),
            latents=latents,
        )
        found[f"matching_rate_{weight}"] = run(
            root,
            matching_rate,
            f"m{weight}",
            MatchingSettings.model_validate({"mask": MASK}).model_dump(mode="json"),
            **shared,
        )
        found[f"localization_{weight}"] = run(
            root,
            localization,
            f"loc{weight}",
            LocalizationSettings.model_validate({"mask": MASK}).model_dump(mode="json"),
            features=found["features"],
            **shared,
        )
    return found


def void(_: object) -> None:
    """Drop a value: publish wants a function that returns nothing."""


def value_of(
    artifact: Artifact, metric: str, layer: int | None, kind: str = "image", **columns: Any
) -> Any:
    wanted = {"metric": metric, "of": None, "layer": layer, "token_kind": kind, **columns}
    (row,) = [row for row in read_rows(artifact) if row | wanted == row]
    return row


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_labelled_latents_are_scored_as_a_readout_by_words(
    made: dict[str, Any], weight: float
) -> None:
    order = LabelledLatentsSettings.model_validate({"mask": MASK, "ks": [1, 3]})
    inputs = {name: made[name] for name in ("labels", "features", "records")}
    settings = order.model_dump(mode="json")
    latents = made[f"latents_{weight}"]
    artifact = run(
        made["root"], labelled_latents, f"ll{weight}", settings, latents=latents, **inputs
    )
    rows = read_rows(artifact)
    readout = "labelled_latents"
    assert {row["method"] for row in rows} == {readout}
    # With the mask the figures of images are those of the matching rate, all of them.
    same = ("value", "ci_low", "ci_high", "chance", "n")
    for name in ("matching_rate", "matching_gain", "object_recall"):
        for layer in (1, 2, None):
            for k in (1, 3):
                known = value_of(made[f"matching_rate_{weight}"], name, layer, k=k)
                row = value_of(artifact, f"lens_{name}", layer, k=k, of=None, method=readout)
                assert [row[key] for key in same] == [known[key] for key in same]
    # Without it grass is the strongest of each image and patch; the dense latent is still left out.
    for name in ("lens_matching_rate", "lens_patches_named"):
        words = None if name == "lens_patches_named" else "unmasked"
        values = [
            value_of(artifact, name, 1, k=k, of=words, method=readout)["value"] for k in (1, 3)
        ]
        found = {"lens_matching_rate": [0.5, 1.0], "lens_patches_named": [0.0, 1.0]}[name]
        assert values == [0.0, found[int(weight)]]
    assert value_of(artifact, "lens_patches_named", 1, k=3, method=readout)["n"] == 6


def test_the_strongest_latents_of_a_patch() -> None:
    """Ineligible latents and slots beyond a token's latents are none of them."""
    index = np.array([[[4, 2, 1, 0], [3, 3, 3, 3]]], np.uint16)
    value = np.array([[[5.0, 7.0, 7.0, 9.0], [1.0, 1.0, 1.0, 1.0]]], np.float16)
    eligible = np.array([True, True, True, False, True])
    latents = strongest_latents(index, value, np.array([[3, 1]]), eligible, 5)
    assert latents.tolist() == [[[1, 2, 4, -1, -1], [-1] * 5]]
    assert strongest_latents(index, value, np.array([[4, 0]]), eligible, 2).tolist() == [
        [[0, 1], [-1, -1]]
    ]


def test_reconstruction_of_planted_errors(made: dict[str, Any]) -> None:
    row = value_of(made["reconstruction_0.0"], "fvu", 1)
    assert row["value"] == pytest.approx(0.8)  # error .8, variance 2 - 1
    assert row["n"] == 54
    assert value_of(made["reconstruction_1.0"], "mse", 2, "text")["value"] == pytest.approx(0.1)
    assert value_of(made["reconstruction_1.0"], "l0", 1)["value"] == pytest.approx(2 + 1 / 9)
    fired = value_of(made["reconstruction_1.0"], "fired_share", 2)
    assert (fired["value"], fired["n"]) == (pytest.approx(5 / 6), 6)
    assert value_of(made["reconstruction_1.0"], "fired_share", 2, "text")["value"] == 0.0
    assert value_of(made["reconstruction_1.0"], "variance", 2)["value"] == pytest.approx(1.0)
    # The planted store has no totals of images.
    assert value_of(made["reconstruction_1.0"], "image_variance", 2)["value"] is None
    items = pq.read_table(made["reconstruction_1.0"].file("items.parquet"))
    assert items.num_rows == 6 * 2 * 3


def test_matching_of_planted_latents(made: dict[str, Any]) -> None:
    with_term = value_of(made["matching_rate_1.0"], "matching_rate", 1, k=1)
    assert with_term["value"] == 1.0
    assert with_term["chance"] == pytest.approx(1 / 5)  # one of five other images has the class
    assert value_of(made["matching_rate_0.0"], "matching_rate", 2, k=3)["value"] == 0.5
    assert value_of(made["matching_rate_0.0"], "silent_images", 1)["value"] == 0.5
    result = read_result(made["matching_rate_1.0"])
    # "grass" is in every image, the dense "cat" on too much text (and in every image); one latent
    # has no label.
    assert result["layers"][0]["n_eligible"] == 3
    assert result["layers"][0]["n_unlabelled"] == 1
    # cat, dog, umbrella and a second cat, which is too dense.
    masked = value_of(made["matching_rate_1.0"], "masked_noun_latents", 1)
    assert (masked["value"], masked["n"]) == (0.25, 4)
    assert result["max_image_share"] == 0.5
    items = pq.read_table(made["matching_rate_1.0"].file("items.parquet")).to_pylist()
    assert items[1]["image_id"] == "image_1"
    assert items[1]["latents"] == [1]
    assert items[1]["labels"] == ["dog"]
    assert items[1]["tokens"] == [4]
    assert items[1]["named"] == [True]


def test_localization_of_planted_latents(made: dict[str, Any]) -> None:
    game = value_of(made["localization_1.0"], "pointing_game", 1)
    assert (game["value"], game["n"]) == (1.0, 6)
    assert game["chance"] == pytest.approx(1 / 9)
    assert value_of(made["localization_1.0"], "auroc", 2, of="mask")["value"] == 1.0
    assert value_of(made["localization_1.0"], "iou_active", 2, of="box")["value"] == 1.0
    beside = value_of(made["localization_0.0"], "pointing_game", None)
    assert (beside["value"], beside["n"]) == (0.0, 6)
    # Silent in half of the images (.5), on one wrong patch of eight in the others (7 / 16).
    expected = (0.5 + 7 / 16) / 2
    boxes = value_of(made["localization_0.0"], "auroc", 1, of="box")
    assert boxes["value"] == pytest.approx(expected)
    plays = pq.read_table(made["localization_1.0"].file("items.parquet")).to_pylist()
    assert len(plays) == 12
    assert all(play["hit"] for play in plays)


def test_planted_latents_without_masks(made: dict[str, Any]) -> None:
    """The dense "cat" fires everywhere, then grass, then the object's own latent."""
    measured = made["matching_rate_1.0"]
    rates = {
        of: value_of(measured, "matching_rate", 1, k=1, of=of)["value"]
        for of in (None, "no_frequency_mask", "no_density_mask", "unmasked")
    }
    # Each mask alone hides the dense latent, which is frequent, too; unmasked it says "cat".
    assert rates == {
        None: 1.0,
        "no_frequency_mask": 0.0,
        "no_density_mask": 1.0,
        "unmasked": pytest.approx(1 / 3),
    }
    curve = {
        row["of"]: row["value"]
        for row in read_rows(measured)
        if row["metric"] == "matching_by_mask" and row["layer"] == 1
    }
    # The object's own latent fires in a third of the images; k is 3.
    assert curve == {"0.02": 0, "0.05": 0, "0.1": 0, "0.3": 0, "1": 1}
    # Grass and the dense one hide two of five latents, and nearly all of the activation.
    either = value_of(measured, "masked_latents", 1)
    assert (either["value"], either["n"]) == (0.4, 5)
    assert value_of(measured, "masked_latents", 1, of="density")["value"] == 0.2
    own = sum(2.0 + i for i in range(6))
    hidden = value_of(measured, "masked_activation", 1)
    assert hidden["value"] == pytest.approx(6 * 9 * 17 / (6 * 9 * 17 + own))
    # The unmasked top latents are the dense cat at the first token, grass, the own one.
    game = value_of(made["localization_1.0"], "pointing_game", 1, of="unmasked")
    assert game["n"] == 6 + 2  # two images with a cat have the dense latent, too
    assert game["value"] == pytest.approx((6 + 1) / 8)  # image 0 has its cat at the first token


def test_the_frequency_mask_is_estimated_on_the_images_that_are_given(
    made: dict[str, Any],
) -> None:
    root = made["root"]
    other = publish(root, "latents", "others", lambda w: write_latents(w, 1.0, grass=False))
    inputs = {"latents": made["latents_1.0"], "mask_latents": other}
    inputs |= {"labels": made["labels"], "records": made["records"]}
    order = MatchingSettings.model_validate({"mask": MASK}).model_dump(mode="json")
    matched = run(root, matching_rate, "others", order, **inputs)
    result = read_result(matched)
    assert (result["mask_images"], result["n_mask_images"]) == ("validation", 6)
    # Grass is in no image that the mask sees: it is ranked first in all that are measured.
    assert value_of(matched, "matching_rate", 1, k=1)["value"] == 0.0
    assert value_of(matched, "matching_rate", 1, k=3)["value"] == 1.0
    shares = {
        by: value_of(matched, "masked_latents", 1, of=by)["value"]
        for by in ("frequency", "density", None)
    }
    assert shares == {"frequency": 0.2, "density": 0.2, None: 0.2}
    own = read_result(made["matching_rate_1.0"])
    assert (own["mask_images"], own["n_mask_images"]) == ("evaluated", 6)
    order = LocalizationSettings.model_validate({"mask": MASK}).model_dump(mode="json")
    located = run(root, localization, "others", order, features=made["features"], **inputs)
    assert read_result(located)["mask_images"] == "validation"
    assert value_of(located, "pointing_game", 1)["n"] == 6


def report_settings(**changed: Any) -> dict[str, Any]:
    point = {"encoder": "dino", "llm": "gemma", "seed": 0}
    stages = ("reconstruction", "matching_rate", "localization")
    points = [point | {"sae_weight": weight} for weight in (0.0, 1.0)]
    return {
        "report": ReportSettings().model_dump(mode="json"),
        "name": "planted",
        "points": [each | {"metric": stage} for each in points for stage in stages],
        "checks": [{"llm": "gemma"}] * 2,
        "curves": points,
        "latents": points,
        "labels": [{"llm": "gemma"}] * 2,
        "features": [{"encoder": "dino"}],
    } | changed


def report_inputs(made: dict[str, Any]) -> dict[str, Any]:
    stages = ("reconstruction", "matching_rate", "localization")
    return {
        "metrics": [made[f"{stage}_{weight}"] for weight in (0.0, 1.0) for stage in stages],
        "checks": made["checks"],
        "projectors": [made["curve_0.0"], made["curve_1.0"]],
        "latents": [made["latents_0.0"], made["latents_1.0"]],
        "labels": made["labels"],
        "features": [made["features"]],
        "records": made["records"],
        "world": made["world"],
    }


@pytest.fixture(scope="module")
def report_artifact(made: dict[str, Any]) -> Artifact:
    return run(made["root"], report, "first", report_settings(), **report_inputs(made))


def test_report_has_every_file_and_the_exact_columns(report_artifact: Artifact) -> None:
    names = set(report_artifact.checksums)
    pictures = (
        "matching_rate",
        "matching_masks",
        "reconstruction_fvu",
        "reconstruction_l0",
        "localization",
        "heatmaps_dino_gemma",
        "training",
    )
    wanted = {f"figures/{name}.{kind}" for name in pictures for kind in ("png", "svg")}
    assert names == wanted | {"summary.csv", "summary.parquet", "summary.md", "headline.txt"}
    header = report_artifact.file("summary.csv").read_text().splitlines()[0]
    assert header == (
        "metric,of,set,k,encoder,llm,sae_weight,seed,control,method,layer,token_kind,"
        "value,ci_low,ci_high,chance,n"
    )
    table = pq.read_table(report_artifact.file("summary.parquet"))
    assert table.column_names == header.split(",")
    text = report_artifact.file("summary.csv").read_text().splitlines()
    assert table.num_rows == len(text) - 1


@pytest.mark.parametrize(("planted", "left"), [(1.0, 0.0), (0.0, 0.5)])
def test_report_tells_an_effect_of_scale_from_one_of_direction(
    made: dict[str, Any], planted: float, left: float
) -> None:
    """The baseline in the norm of the term reads as the term does, or as the baseline does."""
    settings, inputs = report_settings(), report_inputs(made)
    control = {"encoder": "dino", "llm": "gemma", "seed": 0, "sae_weight": 1.0}
    place = control | {"metric": "matching_rate", "control": "norm_matched"}
    settings["points"] = [*settings["points"], place]
    inputs["metrics"] = [*inputs["metrics"], made[f"matching_rate_{planted}"]]
    artifact = run(made["root"], report, f"controls{planted}", settings, **inputs)
    rows = pq.read_table(artifact.file("summary.parquet")).to_pylist()
    gains = {
        (row["of"], row["seed"]): row for row in rows if row["metric"] == "matching_difference"
    }
    assert set(gains) == {(name, s) for name in ("as_run", "norm_matched") for s in (0, None)}
    assert gains["as_run", 0]["value"] == 0.5
    assert gains["norm_matched", 0]["value"] == left
    assert gains["norm_matched", None]["n"] == 6
    # Figures of controls stand apart from those of their points.
    of_control = [row for row in rows if row["control"] == "norm_matched"]
    assert {row["metric"] for row in of_control} >= {"matching_rate"}
    text = artifact.file("summary.md").read_text()
    assert "What the SAE term adds to the matching rate" in text
    assert "| norm\\_matched | 1 |" in text or "| norm_matched | 1 |" in text


def test_report_compares_with_and_without(report_artifact: Artifact) -> None:
    text = report_artifact.file("summary.md").read_text()
    assert "8.00" in text  # .8 / .1
    assert "more than 50 % of the images" in text
    assert "among them 2 of the 8 latents" in text
    assert "![Where named latents fire" in text


def test_report_is_the_same_bytes_again(made: dict[str, Any], report_artifact: Artifact) -> None:
    again = run(made["root"], report, "again", report_settings(), **report_inputs(made))
    assert again.digest == report_artifact.digest


def test_groups_of_images_are_measured_and_reported_apart(made: dict[str, Any]) -> None:
    """At weight 0 the latents of every second image fire, beside its object."""
    root = made["root"]
    records = [
        replace(record, group="odd" if i % 2 else "even")
        for i, record in enumerate(planted_records())
    ]
    table = publish(
        root, "records", "grouped", lambda w: void(write_records(w / "records.parquet", records))
    )
    inputs = {"latents": made["latents_0.0"], "labels": made["labels"], "records": table}
    order = MatchingSettings.model_validate({"mask": MASK}).model_dump(mode="json")
    matched = run(root, matching_rate, "grouped", order, **inputs)
    rates = {name: value_of(matched, "matching_rate", None, k=3, set=name) for name in GROUPS}
    assert {name: (row["value"], row["n"]) for name, row in rates.items()} == {
        None: (0.5, 6),
        "odd": (1.0, 3),
        "even": (0.0, 3),
    }
    order = LocalizationSettings.model_validate({"mask": MASK}).model_dump(mode="json")
    located = run(root, localization, "grouped", order, features=made["features"], **inputs)
    games = {name: value_of(located, "pointing_game", None, set=name) for name in GROUPS}
    assert [games[name]["n"] for name in GROUPS] == [6, 6, 0]
    point = {"encoder": "dino", "llm": "gemma", "sae_weight": 0.0, "seed": 0}
    places = ("checks", "curves", "latents", "labels", "features")
    settings = report_settings(
        points=[point | {"metric": stage} for stage in ("matching_rate", "localization")],
        **{key: [] for key in places},
    )
    reported = run(root, report, "grouped", settings, metrics=[matched, located])
    rows = pq.read_table(reported.file("summary.parquet")).to_pylist()
    assert {row["set"] for row in rows} == set(GROUPS)
    text = reported.file("summary.md").read_text()
    (odd,) = (line for line in text.splitlines() if line.startswith("| odd |"))
    assert "1.000" in odd
    # The other tables are of all images.
    assert "| dino | gemma | 0 | 0.500 |" in text
    assert "Groups of images" in reported.file("headline.txt").read_text()


def test_report_of_a_run_with_few_metrics(made: dict[str, Any]) -> None:
    none = dict.fromkeys(("checks", "curves", "latents", "labels", "features"), ())
    settings = report_settings(points=report_settings()["points"][:1], **none)
    small = run(made["root"], report, "small", settings, metrics=[made["reconstruction_0.0"]])
    assert "summary.md" in small.checksums
    assert not any("heatmaps" in name for name in small.checksums)


def test_summary_is_published_and_stale_figures_go(
    report_artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.png").write_bytes(b"x")
    (tmp_path / "figures" / "notes.txt").write_text("mine")
    shown = publish_summary(report_artifact.path, tmp_path)
    assert "FVU, times lower" in shown
    assert shown.isascii() or str(tmp_path) in shown
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "matching_rate.png" in names
    assert "notes.txt" in names
    assert "old.png" not in names
    for name in ("summary.csv", "summary.md", "summary.parquet"):
        copied = (tmp_path / name).read_bytes()
        assert copied == (report_artifact.path / name).read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_an_incomplete_report_is_not_published(report_artifact: Artifact, tmp_path: Path) -> None:
    broken = tmp_path / "report"
    shutil.copytree(report_artifact.path, broken)
    (broken / "summary.md").unlink()
    with pytest.raises(UserError, match=r"summary\.md is missing"):
        publish_summary(broken, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_labels_of_another_dictionary_are_a_user_error(made: dict[str, Any]) -> None:
    other = publish(
        made["root"],
        "label_latents",
        "other",
        lambda w: write_label_table(w, 1, ["cat", "dog"]),
    )
    with pytest.raises(UserError, match=r"labels 2 latents.*has 6"):
        run(
            made["root"],
            matching_rate,
            "bad",
            MatchingSettings().model_dump(mode="json"),
            latents=made["latents_1.0"],
            labels=[other, made["labels"][0]],
            records=made["records"],
        )


def test_labels_of_another_sae_are_a_user_error_even_of_equal_size(made: dict[str, Any]) -> None:
    other = publish(
        made["root"],
        "label_latents",
        "foreign",
        lambda work: write_label_table(work, 0),
        {"sae": "another digest"},
    )
    with pytest.raises(UserError, match="labels another SAE than the latents were read with"):
        run(
            made["root"],
            matching_rate,
            "foreign_labels",
            {},
            latents=made["latents_1.0"],
            labels=[other, made["labels"][1]],
            records=made["records"],
        )


def test_a_layer_without_labels_is_a_user_error(made: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="layer 1 has latents but no labels"):
        run(
            made["root"],
            matching_rate,
            "bad2",
            MatchingSettings().model_dump(mode="json"),
            latents=made["latents_1.0"],
            labels=[made["labels"][0]],
            records=made["records"],
        )


def test_records_of_other_images_are_a_user_error(made: dict[str, Any]) -> None:
    few = publish(
        made["root"],
        "records",
        "few",
        lambda w: void(write_records(w / "records.parquet", planted_records()[:2])),
    )
    with pytest.raises(UserError, match="no image 'image_2'"):
        run(
            made["root"],
            localization,
            "bad3",
            LocalizationSettings().model_dump(mode="json"),
            latents=made["latents_1.0"],
            labels=made["labels"],
            records=few,
            features=made["features"],
        )
