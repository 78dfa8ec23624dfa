"""Maps of encoders that give a patch several tokens: means over the frames of a clip, and tokens of
several encoders apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from vista.data.expressions import FILE, Expression, write_expressions
from vista.data.masks import encode_mask
from vista.data.records import Box, Object, Record, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs.maps import (
    LatentMaps,
    entries_over_frames,
    mean_over_frames,
    read_map_grid,
    salient_tokens,
)
from vista.metrics.localization import stage as localization
from vista.metrics.ranking import Ranked
from vista.metrics.referring_segmentation import stage as referring
from vista.metrics.results import read_result
from vista.report.heatmaps import _maps_of
from vista.sae.label_table import LatentLabels, write_labels
from vista.store.latents import Entries, LatentReader, LatentWriter

# Images of 2 x 2 patches, two tokens a patch. On its patch the latent of a cat has 6 at both
# tokens; on the patch before it 9 at one, and 8 times the stream's squared norm at the other.
IMAGES, TOKENS, CAT = 12, 8, 1
STEADY, ONCE = 6.0, 9.0


def cat_patch(i: int) -> int:
    return i % 4


def mask_of(patch: int) -> Any:
    mask, (y, x) = np.zeros((16, 16), dtype=bool), divmod(patch, 2)
    mask[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = True
    return mask


def planted(steady: float = STEADY) -> tuple[Any, Any, Any, Any]:
    """Index and value of latents [b, t, 1], their number [b, t], and squared norms [b, t]."""
    index, value = (np.zeros((IMAGES, TOKENS, 1), kind) for kind in (np.uint16, np.float16))
    nnz, norm2 = np.zeros((IMAGES, TOKENS), np.uint16), np.ones((IMAGES, TOKENS), np.float32)
    for i in range(IMAGES):
        right, wrong = cat_patch(i), (cat_patch(i) - 1) % 4
        for token, activation in (
            (2 * right, steady),
            (2 * right + 1, steady),
            (2 * wrong + i % 2, ONCE),
        ):
            index[i, token], value[i, token], nnz[i, token] = CAT, activation, 1
        norm2[i, [2 * right, 2 * right + 1, 2 * wrong]] = 5, 5, 8
    return index, value, nnz, norm2


def write_latents(work: Path, ids: list[str]) -> None:
    index, value, nnz, norm2 = planted()
    writer = LatentWriter(work / "latents.zarr", ids, (2, 4), {1: 3}, {"image": TOKENS}, k=1)
    writer.set_valid("image", 0, np.ones((IMAGES, TOKENS), dtype=bool))
    writer.write("image", 0, 1, index, value, nnz, np.zeros_like(norm2), norm2)
    writer.finish(1, "image", np.zeros(4))
    writer.close()


def publish(root: Path, name: str, write: Callable[[Path], object], **inputs: Any) -> Artifact:
    with publishing(root, name, "node", Provenance(name, {}, inputs, {}, {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / name / "node")


def features(root: Path, name: str, **more: Any) -> Artifact:
    text = json.dumps({"size": 16, "patch": 8, "fit": "pad", **more})
    return publish(root, name, lambda work: (work / "geometry.json").write_text(text))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Inputs of the metrics; features of a clip, and of two encoders that were interleaved."""
    root = tmp_path_factory.mktemp("frames")
    records, items = [], []
    ids: dict[str, list[str]] = {"validation": [], "test": []}
    for split, names in ids.items():
        for i in range(IMAGES):
            patch = cat_patch(i)
            y, x = divmod(patch, 2)
            cat = Object("cat", Box(8.0 * x, 8.0 * y, 8.0, 8.0), encode_mask(mask_of(patch)))
            names.append(f"{split}{i}")
            records.append(Record(names[-1], split, f"{i}.png", 16, 16, objects=(cat,)))
            items.append(Expression(names[-1], "the cat", 1, encode_mask(mask_of(patch))))
    even = np.full(3, 0.001, np.float32)
    labels = LatentLabels(1, "sae", 9, ("grass", "cat", None), even, even, ((),) * 3)
    inputs = {"saes": ["digest"]}
    return {
        "root": root,
        "clip": features(root, "clip", per_patch=2, frames=2),
        "interleaved": features(root, "interleaved", per_patch=2),
        "records": publish(
            root, "records", lambda w: write_records(w / "records.parquet", records)
        ),
        "expressions": publish(root, "expressions", lambda w: write_expressions(w / FILE, items)),
        "labels": [
            publish(
                root,
                "label_latents",
                lambda w: write_labels(w / "labels.parquet", labels),
                sae="digest",
            )
        ],
        "latents": publish(root, "latents", lambda w: write_latents(w, ids["test"]), **inputs),
        "validation_latents": publish(
            root, "validation", lambda w: write_latents(w, ids["validation"]), **inputs
        ),
        "projector": publish(root, "projector", lambda w: (w / "none").write_text("")),
    }


def run(made: dict[str, Any], kind: str, stage: Any, order: Any, *names: str) -> Artifact:
    inputs = {name: made[name] for name in ("records", "labels", "latents", *names)}
    inputs["features"] = made[kind]

    def write(work: Path) -> None:
        stage.run(Job("node", order, inputs, work))

    return publish(made["root"], f"{stage.__name__.split('.')[-2]}_{kind}", write)


def test_localization_averages_frames_and_no_tokens_of_other_encoders(made: dict[str, Any]) -> None:
    order = {"mask": {"max_image_share": 1.0}, "bootstrap": {"resamples": 20}}
    clip, apart = (run(made, kind, localization, order) for kind in ("clip", "interleaved"))
    found, beside = read_result(clip), read_result(apart)
    # Limits of boxes and chance levels count patches where these are scored.
    assert (found["n_patches"], found["max_patches"]) == (4, 3)
    assert (beside["n_patches"], beside["max_patches"]) == (8, 6)
    for result, hits, auroc in ((found, 1.0, 1.0), (beside, 0.0, 10 / 12)):
        (layer,) = result["layers"]
        for game in (layer, layer["unmasked"]):
            assert (game["pointing"]["value"], game["pointing"]["n"]) == (hits, IMAGES)
            assert game["pointing"]["chance"] == 0.25
            # The largest norm is beside the cat at one token; of means it is on the cat.
            assert game["pointing_salient"]["value"] == hits
        for truth in layer["maps"]:
            assert truth["auroc"]["value"] == pytest.approx(auroc)
    for artifact, token in ((clip, [0, 1, 2, 3]), (apart, [6, 1, 2, 5])):
        plays = pq.read_table(artifact.file("items.parquet")).to_pylist()
        assert [play["token"] for play in plays[:4]] == token


def test_referring_maps_are_means_over_frames(made: dict[str, Any]) -> None:
    order = {
        "llm": {"source": {"kind": "standin", "family": "llama"}},
        "referring_segmentation": {"logit_lens": False, "bootstrap": {"resamples": 20}},
    }
    for kind, pointing in (("clip", 1.0), ("interleaved", 0.0)):
        artifact = run(
            made, kind, referring, order, "expressions", "validation_latents", "projector"
        )
        scores = {(s["method"], s["layer"]): s["kinds"][0] for s in read_result(artifact)["scores"]}
        latents = scores["latents", 1]
        assert (latents["pointing"]["value"], latents["pointing"]["n"]) == (pointing, IMAGES)
        assert (latents["auroc"]["value"] == 1.0) == (kind == "clip")
        assert scores["best_patches", None]["giou"]["value"] == 1.0


def test_heat_maps_show_the_mean_of_each_patch(made: dict[str, Any]) -> None:
    reader = LatentReader(made["latents"].store("latents.zarr"))
    mean_rc = _maps_of(reader, 1, 2)("test0", CAT)
    assert mean_rc.tolist() == [[STEADY, 0.0], [0.0, ONCE / 2]]
    tokens_rc = _maps_of(reader, 1, 1)("test0", CAT)
    assert tokens_rc.tolist() == [[STEADY, STEADY, 0, 0], [0, 0, ONCE, 0]]


def test_one_token_a_patch_is_read_as_it_is(made: dict[str, Any]) -> None:
    reader = LatentReader(made["latents"].store("latents.zarr"))
    entries = reader.by_latent(1, CAT)
    values = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float16)
    ranked = Ranked(np.full((IMAGES, 1), CAT), np.zeros((IMAGES, 1), int), np.ones((IMAGES, 1)))
    maps = LatentMaps(reader, 1)
    assert mean_over_frames(values, 1) is values
    assert entries_over_frames(entries, 1) is entries
    assert maps.pointed(ranked) is ranked
    assert maps.shape == reader.grid
    value_bt = planted()[1][..., 0]
    for i in range(IMAGES):
        assert maps(i, CAT).tobytes() == value_bt[i].astype(np.float64).tobytes()
    assert salient_tokens(reader, 1).tolist() == planted()[3].argmax(axis=1).tolist()


def test_sparse_and_dense_means_agree() -> None:
    rng = np.random.default_rng(0)
    value_bt = np.where(rng.random((5, 12)) < 0.4, rng.random((5, 12)), 0).astype(np.float16)
    image, token = np.nonzero(value_bt)
    entries = Entries(image.astype(np.uint32), token.astype(np.uint8), value_bt[image, token])
    over = entries_over_frames(entries, 3)
    mean_bp = np.zeros((5, 4))
    mean_bp[over.image, over.token] = over.value
    np.testing.assert_allclose(mean_bp, mean_over_frames(value_bt.astype(np.float64), 3))
    assert len(over.value) == np.count_nonzero(mean_bp)
    # By image, then patch, as the store has entries.
    assert (np.diff(over.image.astype(int) * 4 + over.token) > 0).all()
    nowhere = entries_over_frames(Entries(*(part[:0] for part in entries)), 3)
    assert len(nowhere.value) == 0


def test_frames_share_the_tokens_of_a_patch(tmp_path: Path) -> None:
    grid = read_map_grid(features(tmp_path, "both", per_patch=6, frames=3))
    assert (grid.placing["per_patch"], grid.frames) == (2, 3)
    assert read_map_grid(features(tmp_path, "still")).frames == 1
    record = Record("i", "test", "i.png", 16, 16)
    assert grid.geometry(record, (2, 12)).grid == (2, 4)
    with pytest.raises(UserError, match=r"a grid of \(2, 12\), the latents have \(2, 4\)"):
        grid.geometry(record, (2, 4))
    for frames in (4, 0, "2"):
        broken = features(tmp_path, f"broken{frames}", per_patch=6, frames=frames)
        with pytest.raises(UserError, match="expected a divisor of the 6 tokens of a patch"):
            read_map_grid(broken)
