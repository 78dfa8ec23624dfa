"""Referring segmentation: scores by hand, and a planted run whose figures are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray

from vista.config.report import ReportSettings
from vista.data.expressions import FILE, Expression, Kind, write_expressions
from vista.data.geometry import ImageGeometry
from vista.data.masks import encode_mask
from vista.data.records import Box, Object, Record, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.engine.plan import load_plan
from vista.errors import UserError
from vista.judges.kinds.lexical import LexicalJudge
from vista.metrics.referring_segmentation import METRIC, stage
from vista.metrics.referring_segmentation.maps import (
    NamedLatents,
    activation_scales,
    latents_of_terms,
    named_terms,
    permuted,
    terms,
    word_entries,
)
from vista.metrics.referring_segmentation.masks import (
    Overlap,
    Target,
    best_on_grid,
    candidate_thresholds,
    choose_threshold,
    interpolated,
    overlaps,
)
from vista.metrics.referring_segmentation.measure import Expressions, referring_segmentation
from vista.metrics.referring_segmentation.report import SHOWN
from vista.metrics.referring_segmentation.scores import MethodScores, ReferringResult
from vista.metrics.results import read_figures, read_result
from vista.metrics.word_readout import LayerWords
from vista.report.groups_section import groups_section
from vista.report.shown import Measured
from vista.report.table import LongTable
from vista.sae.label_table import LatentLabels, write_labels
from vista.store.by_latent import Entries
from vista.store.latents import LatentWriter

SQUARE = ImageGeometry(8, 8, 8, 2)  # 16 patches of 2 x 2 px
ROOT = Path(__file__).parents[3]


def target(rows: slice, columns: slice, geometry: ImageGeometry = SQUARE) -> Target:
    mask = np.zeros((geometry.height, geometry.width), dtype=bool)
    mask[rows, columns] = True
    return Target(geometry, encode_mask(mask))


NOTHING = target(slice(0), slice(0))


def test_interpolation_puts_values_at_the_centres_of_patches() -> None:
    map_p = np.arange(16.0)
    found = interpolated(map_p, SQUARE)
    # Pixel centres lie a quarter of a patch beside the centres of patches; the border is level.
    assert found[0, 0] == 0
    assert found[0, 1] == pytest.approx(0.25)
    assert found[0, 2] == pytest.approx(0.75)
    assert found[1, 0] == pytest.approx(1.0)
    assert found[7, 7] == 15
    # A wide image that is padded: one patch row of its input is above it.
    wide = ImageGeometry(8, 4, 8, 2)
    found = interpolated(map_p, wide)
    assert found.shape == (4, 8)
    assert found[0, 0] == pytest.approx(3.0)
    # What a crop cuts off is not predicted.
    cropped = interpolated(np.ones(16), ImageGeometry(16, 8, 8, 2, "crop"))
    assert (cropped[:, :4] == 0).all()
    assert (cropped[:, 4:12] == 1).all()
    assert (cropped[:, 12:] == 0).all()


def test_iou_by_hand_and_of_empty_masks() -> None:
    truth = target(slice(0, 4), slice(0, 4))
    map_p = np.zeros(16)
    map_p[:4] = 1.0  # the first row of patches: at a threshold of .5 the first two rows of pixels
    found = overlaps(
        [truth, NOTHING, NOTHING, truth],
        {"m": np.array([map_p, map_p * 0, map_p, map_p * 0])},
        {"m": 0.5},
    )["m"]
    assert found.intersection_x.tolist() == [8, 0, 0, 0]
    assert found.union_x.tolist() == [16 + 16 - 8, 0, 16, 16]
    assert found.iou_x.tolist() == [8 / 24, 1.0, 0.0, 0.0]
    # A pixel at the threshold is not predicted.
    assert Overlap(np.zeros(1), np.zeros(1)).iou_x.tolist() == [1.0]
    flat = overlaps([truth], {"m": np.full((1, 16), 0.5)}, {"m": 0.5})["m"]
    assert flat.union_x.tolist() == [16]


def test_the_best_mask_of_whole_patches() -> None:
    # 3 x 2 px: one whole patch and half of one below it.
    half = target(slice(0, 3), slice(0, 2))
    # Both patches: 6 / 8; the whole one alone: 4 / 6.
    assert best_on_grid([half]).iou_x.tolist() == [6 / 8]
    # A pixel more in a third patch is not worth the patch: 4 / 5 beats 5 / 8.
    mask = np.zeros((8, 8), dtype=bool)
    mask[:2, :2] = mask[0, 2] = True
    assert best_on_grid([Target(SQUARE, encode_mask(mask))]).iou_x.tolist() == [4 / 5]
    assert best_on_grid([NOTHING]).iou_x.tolist() == [1.0]
    every = [p for p in range(2**16) if p < 256]  # all choices of the first two rows of patches
    rng = np.random.default_rng(0)
    for _ in range(5):
        truth = np.zeros((8, 8), dtype=bool)
        truth[:4] = rng.random((4, 8)) < 0.5
        best = 0.0
        for choice in every:
            rc = np.array([choice >> i & 1 for i in range(8)], dtype=bool).reshape(2, 4)
            mask = np.zeros((8, 8), dtype=bool)
            mask[:4] = rc.repeat(2, axis=0).repeat(2, axis=1)
            best = max(best, (mask & truth).sum() / (mask | truth).sum())
        assert best_on_grid([Target(SQUARE, encode_mask(truth))]).iou_x[0] == pytest.approx(best)


def test_the_threshold_has_the_largest_mean_iou() -> None:
    truth = target(slice(0, 4), slice(0, 4))
    map_p = np.zeros((1, 16))
    map_p[0, [0, 1, 4, 5]] = 0.9
    map_p[0, [10, 11, 14, 15]] = 0.3
    chosen = choose_threshold([truth], map_p, 32)
    assert 0.3 <= chosen.value < 0.9
    assert chosen.mean_iou > 0.7
    assert choose_threshold([truth], map_p * 0, 32).value == 0
    level = np.full((1, 16), 0.6)
    assert candidate_thresholds([truth], level, 4).tolist() == [0.0, pytest.approx(0.6)]
    with pytest.raises(ValueError, match="needs expressions"):
        choose_threshold([], map_p[:0], 32)


def expressions(targets: list[Target], kinds: list[Kind]) -> Expressions:
    return Expressions(np.arange(len(targets)), kinds, targets)


def run_measure(
    validation: Expressions, test: Expressions, fitted: dict[Any, Any], maps: dict[Any, Any]
) -> tuple[ReferringResult, dict[Any, NDArray[np.float64]]]:
    return referring_segmentation(
        validation,
        test,
        fitted,
        maps,
        judge_name="lexical",
        named={0: 1.0},
        thresholds=32,
        mask_cover=0.5,
        seed=0,
        resamples=20,
        level=0.95,
    )


def measured(
    validation: NDArray[Any], test: NDArray[Any], targets: list[Target], kinds: list[Kind]
) -> tuple[ReferringResult, dict[Any, NDArray[np.float64]]]:
    own = expressions(targets, kinds)
    maps = {("latents", 0): test, ("permuted", 0): test[::-1]}
    return run_measure(own, own, {("latents", 0): validation}, maps)


def scores(result: ReferringResult, method: str, layer: int | None = 0) -> MethodScores:
    return next(s for s in result.scores if (s.method, s.layer) == (method, layer))


def test_giou_ciou_and_precision_against_numbers_by_hand() -> None:
    # Large and small object, exactly predicted and half predicted; and no object, nothing there.
    targets = [target(slice(0, 8), slice(0, 8)), target(slice(0, 2), slice(0, 4)), NOTHING]
    maps = np.zeros((3, 16))
    maps[0] = 1.0
    maps[1, :4] = 1.0
    result, iou = measured(maps, maps, targets, ["no_place", "no_place", "none"])
    latents = scores(result, "latents")
    # A quarter of the value reaches the row of pixels beside the patches; cut there, 2 of 8 rows
    # are predicted, where 2 x 4 of their 2 x 8 px are meant.
    assert latents.threshold == 0.25
    assert iou["latents", 0].tolist() == [1.0, 8 / 16, 1.0]
    named, none, every = latents.kinds
    assert (named.kind, none.kind, every.kind) == ("no_place", "none", "all")
    assert named.giou.value == pytest.approx((1 + 8 / 16) / 2)
    assert named.ciou.value == pytest.approx((64 + 8) / (64 + 16))
    assert {p: e.value for p, e in named.precision.items()} == {50: 1.0, 70: 0.5, 90: 0.5}
    assert none.giou.value == 1.0
    assert none.ciou.value is None  # 0 of 0 pixels
    # Of patches the whole image is no question; the other one: 2 of 4 strongest.
    assert named.auroc.n == 1
    assert named.auroc.value == pytest.approx((12 + 2 / 2) / 14)
    assert named.pointing.value == 1.0
    assert none.auroc.n == 0
    # Permuted: the maps in the opposite order, at the same threshold.
    other = scores(result, "permuted").kinds
    assert other[0].giou.value == pytest.approx((0 + 8 / 16) / 2)
    assert named.giou.chance == other[0].giou.value
    assert other[1].giou.value == 0.0  # something where nothing is
    assert scores(result, "best_patches", None).kinds[0].giou.value == 1.0
    # All expressions together, as published: no object counts 1 in gIoU, and no pixel in cIoU.
    assert every.giou.value == pytest.approx((1 + 8 / 16 + 1) / 3)
    assert every.ciou.value == pytest.approx((64 + 8) / (64 + 16))
    assert (every.giou.n, every.auroc.n) == (3, 1)
    assert other[2].ciou.value == pytest.approx(8 / (64 + 16 + 64))
    gains = every.gains["permuted"]
    assert gains["giou"].value == pytest.approx(2.5 / 3 - 0.5 / 3)
    assert gains["ciou"].value == pytest.approx(72 / 80 - 8 / 144)
    assert (gains["giou"].chance, gains["giou"].n) == (0, 3)


def test_gains_are_paired_over_images_and_of_the_chosen_layers() -> None:
    rng = np.random.default_rng(0)
    targets = [target(slice(0, 2 * h), slice(0, 4)) for h in rng.integers(1, 5, size=60)]
    maps = rng.random((60, 16))
    better = np.array([t.cover() for t in targets])
    own = expressions(targets, ["place"] * 60)
    fitted: dict[Any, NDArray[Any]] = {
        ("latents", 0): better,
        ("latents", 1): maps,
        ("logit_lens", 0): maps * 0,
        ("logit_lens", 1): maps,
    }
    result = run_measure(own, own, fitted, fitted | {("permuted", 0): maps})
    # The same maps: no difference in any resample, however much the images differ.
    [place, every] = scores(result[0], "latents", 1).kinds
    same = place.gains["logit_lens"]["giou"]
    assert (place.giou.ci_high or 0) - (place.giou.ci_low or 0) > 0.01
    assert (same.value, same.ci_low, same.ci_high) == (0, 0, 0)
    assert every.gains == place.gains
    # Without a layer each side is read on its own: latents on 0, the logit lens on 1.
    assert result[0].chosen == {"latents": 0, "logit_lens": 1}
    at_best = scores(result[0], "latents", None).kinds[0]
    other = scores(result[0], "logit_lens", 1).kinds[0]
    gain = at_best.gains["logit_lens"]["giou"]
    assert gain.value == pytest.approx((at_best.giou.value or 0) - (other.giou.value or 0))
    assert (gain.ci_low or 0) > 0
    assert not other.gains
    rows = [f for f in result[0].figures() if f.metric == "referring_giou_gain" and f.of == "all"]
    assert {(f.method, f.layer) for f in rows if f.layer is None} == {
        ("permuted", None),
        ("logit_lens", None),
        ("mean_mask", None),
    }


def test_the_logit_lens_has_the_level_of_its_own_permuted_expressions() -> None:
    targets = [target(slice(0, 4), slice(0, 4)), target(slice(4, 8), slice(4, 8))]
    maps = np.array([t.cover() for t in targets])
    own = expressions(targets, ["place"] * 2)
    lens: Any = ("logit_lens", 0)
    other: Any = ("logit_lens_permuted", 0)
    result, _ = run_measure(own, own, {lens: maps}, {lens: maps, other: maps[::-1]})
    for layer in (0, None):
        read = scores(result, "logit_lens", layer).kinds[0].giou
        assert (read.value or 0) > 0.5
        assert read.chance == scores(result, "logit_lens_permuted", layer).kinds[0].giou.value
        assert (read.chance or 0) < 0.1


def test_groups_of_images_are_measured_by_themselves() -> None:
    targets = [target(slice(0, 8), slice(0, 4)), target(slice(0, 4), slice(0, 8)), NOTHING, NOTHING]
    maps = np.array([targets[0].cover(), 1 - targets[1].cover(), np.zeros(16), np.ones(16)])
    kinds: list[Kind] = ["place", "place", "none", "none"]
    groups = ["testA", "testB", "testA", None]
    own = Expressions(np.arange(4), kinds, targets, groups)
    result, _ = run_measure(own, own, {("latents", 0): maps}, {("latents", 0): maps})
    whole = scores(result, "latents", None)
    first, second = whole.groups["testA"], whole.groups["testB"]
    assert [(part.kind, part.giou.n) for part in first] == [("place", 1), ("none", 1), ("all", 2)]
    assert [(part.kind, part.giou.n) for part in second] == [("place", 1), ("all", 1)]
    assert first[0].auroc.value == 1.0
    assert second[0].auroc.value == 0.0
    assert first[1].giou.value == 1.0
    assert not scores(result, "latents", 0).groups
    rows = {
        f.set: f.value
        for f in result.figures()
        if (f.metric, f.of, f.method, f.layer) == ("referring_auroc", "place", None, None)
    }
    assert rows == {None: 0.5, "testA": 1.0, "testB": 0.0}


def test_the_threshold_is_that_of_validation_images_alone() -> None:
    targets = [target(slice(0, 4), slice(0, 4))]
    validation, test = np.zeros((1, 16)), np.zeros((1, 16))
    validation[0, [0, 1, 4, 5]], validation[0, 10:] = 4.0, 3.0
    test[0, [0, 1, 4, 5]], test[0, 10:] = 0.4, 0.3
    own, _ = measured(test, test, targets, ["place"])
    held, iou = measured(validation, test, targets, ["place"])
    assert (scores(own, "latents").kinds[0].giou.value or 0) > 0.7
    # No pixel of the measured image reaches it, however well another one would do there.
    threshold = scores(held, "latents").threshold
    assert threshold == scores(held, "permuted").threshold
    assert (threshold or 0) >= 2.9
    assert iou["latents", 0].tolist() == [0.0]


def test_terms_and_latents_of_terms() -> None:
    assert terms("the red cup on the left, a red one") == ("red cup", "red", "cup", "left")
    # Phrases have three words at most, and none that names nothing.
    assert terms("a large red hot dog") == (
        *("large red hot", "large red", "large", "red hot dog", "red hot", "red", "hot dog"),
        *("hot", "dog"),
    )
    labels = ["cup", "cups and mugs", None, "red", " ", "category"]
    found = latents_of_terms(labels, ["cup", "red", "dog"], LexicalJudge().judge)
    assert found == {"cup": [0, 1], "red": [3]}
    assert latents_of_terms(labels, [], LexicalJudge().judge) == {}


def test_labels_of_several_words_are_found_and_win_over_their_words() -> None:
    labels = ["teddy bear", "bear", "stop signs", "dog", "hot dog", "cell phone", "dog", "red cups"]
    texts = {
        "the brown teddy bear": ["teddy bear"],
        "a bear by a teddy bear": ["bear", "teddy bear"],
        "stop sign on the left": ["stop sign"],
        "hot dogs and a dog": ["hot dogs", "dog"],
        "his cell phone": ["cell phone"],
        "a red cup": ["red cup"],
        "the cup": ["cup"],
        "no palm tree": [],
    }
    wanted = {term for text in texts for term in terms(text)}
    found = latents_of_terms(labels, wanted, LexicalJudge().judge)
    assert {text: list(named_terms(text, found)) for text in texts} == texts
    assert found["teddy bear"] == [0]
    assert found["stop sign"] == [2]
    assert found["hot dogs"] == [4]
    assert found["cell phone"] == [5]
    # A bear is no teddy bear, nor a dog a hot dog.
    assert (found["bear"], found["dog"]) == ([1], [3, 6])
    # That one expression is about a red cup hides the label from no other one.
    assert found["red cup"] == found["cup"] == [7]


def entries_of(values: dict[int, list[tuple[int, int, float]]]) -> Callable[[int], Entries]:
    def entries(latent: int) -> Entries:
        rows = values.get(latent, [])
        return Entries(*(np.array([row[i] for row in rows], t) for i, t in enumerate("IIf")))

    return entries


def test_a_map_is_the_largest_activation_over_its_percentile() -> None:
    fit = entries_of({0: [(0, 0, v / 10) for v in range(101)], 1: [(0, 0, 1.0)], 2: []})
    scales = activation_scales(fit, [0, 1, 2, 1], 99)
    # Of values above 0 alone; a latent that never fires has no scale.
    assert scales == {0: pytest.approx(np.percentile(np.arange(1, 101) / 10, 99)), 1: 1.0}
    here = entries_of({0: [(1, 2, 9.901)], 1: [(1, 2, 0.5), (1, 3, 0.25)], 2: [(1, 0, 7.0)]})
    named = NamedLatents({"cup": [0, 2], "red": [1]}, scales)
    words = [("red", "cup"), ("red",), ("blue",), ("red", "cup")]
    maps = named.maps(here, words, np.array([1, 1, 1, 0]), 2, 4)
    assert maps == pytest.approx(
        np.array([[0, 0, 1, 0.25], [0, 0, 0.5, 0.25], [0, 0, 0, 0], [0, 0, 0, 0]]), abs=1e-3
    )


def test_words_of_patches_are_read_as_latents() -> None:
    word = np.array([[[1, 2], [2, 3]], [[3, 1], [1, 2]]], dtype=np.int32)
    strength = np.array([[[0.5, 0.4], [0.3, 0.2]], [[0.9, 0.1], [0.6, 0.3]]], dtype=np.float32)
    found = word_entries(LayerWords(word, strength))(1)
    assert found.image.tolist() == [0, 1, 1]
    assert found.token.tolist() == [0, 0, 1]
    assert found.value.tolist() == pytest.approx([0.5, 0.1, 0.6])
    assert len(word_entries(LayerWords(word, strength))(7).value) == 0


def test_permuted_expressions_are_of_their_kind_and_of_another_image() -> None:
    rng = np.random.default_rng(1)
    image_x = rng.integers(12, size=80)
    kinds = [str(kind) for kind in rng.choice(["place", "none"], 80)]
    other_x = permuted(kinds, image_x, 3)
    assert sorted(other_x) == list(range(80))
    assert (image_x[other_x] != image_x).all()
    assert [kinds[x] for x in other_x] == kinds
    assert permuted(["place"], np.array([0]), 0).tolist() == [0]
    # People stay among people.
    groups = ["testA" if image < 6 else "testB" for image in image_x.tolist()]
    strata = list(zip(kinds, groups, strict=True))
    other_x = permuted(strata, image_x, 3)
    assert sorted(other_x) == list(range(80))
    assert [strata[x] for x in other_x] == strata


# A planted run: images of 24 x 24 px on a grid of 3 x 3 patches, with two objects a patch each. The
# latent of a noun fires on its patch; the last latent has no label. Half of the images of a split
# are in either group.
NOUNS = ["teddy bear", "bear", "star", "cup", "sun", "moon", "boat", "tree"]
N, N_VALIDATION = 48, 24


def patch_mask(patch: int) -> NDArray[np.bool_]:
    mask = np.zeros((24, 24), dtype=bool)
    y, x = divmod(patch, 3)
    mask[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = True
    return mask


def contents(i: int) -> list[tuple[int, int]]:
    """Noun and patch of both objects."""
    rng = np.random.default_rng(i)
    return list(zip(rng.permutation(8)[:2].tolist(), rng.permutation(9)[:2].tolist(), strict=True))


def publish(root: Path, name: str, write: Callable[[Path], object], **inputs: Any) -> Artifact:
    with publishing(root, name, "node", Provenance(name, {}, inputs, {}, {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / name / "node")


def write_latents(work: Path, images: range) -> None:
    ids = [f"i{i}" for i in images]
    writer = LatentWriter(work / "latents.zarr", ids, (3, 3), {1: 9}, {"image": 9}, k=2)
    shape = (len(images), 9)
    writer.set_valid("image", 0, np.ones(shape, dtype=bool))
    index, value = np.zeros((*shape, 2), np.uint16), np.zeros((*shape, 2), np.float16)
    nnz = np.zeros(shape, np.uint16)
    for row, i in enumerate(images):
        for noun, patch in contents(i):
            index[row, patch, 0], value[row, patch, 0], nnz[row, patch] = noun, 2.0 + noun, 1
    zeros = np.zeros(shape, np.float32)
    writer.write("image", 0, 1, index, value, nnz, zeros, zeros)
    writer.finish(1, "image", np.zeros(4))
    writer.close()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, dict[str, Any]]:
    root = tmp_path_factory.mktemp("planted")
    records, items = [], []
    for i in range(N):
        split = "validation" if i < N_VALIDATION else "test"
        boxes = [(NOUNS[noun], patch_mask(patch)) for noun, patch in contents(i)]
        things = tuple(Object(n, Box(0, 0, 8, 8), encode_mask(mask)) for n, mask in boxes)
        group = "testA" if i % 2 else "testB"
        records.append(Record(f"i{i}", split, f"{i}.png", 24, 24, objects=things, group=group))
        for name, mask in boxes:
            items.append(Expression(f"i{i}", f"the {name}", 1, encode_mask(mask)))
            items.append(Expression(f"i{i}", f"the {name} at left", 1, encode_mask(mask)))
        both = encode_mask(boxes[0][1] | boxes[1][1])
        items.append(Expression(f"i{i}", f"the {boxes[0][0]} and the {boxes[1][0]}", 2, both))
        absent = next(n for n in NOUNS[i % 8 :] + NOUNS if n not in dict(boxes))
        items.append(Expression(f"i{i}", f"a {absent}", 0, encode_mask(patch_mask(0) & False)))
    even = np.full(9, 0.5, np.float32)
    labels = LatentLabels(1, "sae", 9, (*NOUNS, None), even, even, ((),) * 9)
    geometry = '{"size": 24, "patch": 8, "fit": "pad"}'
    parts: dict[str, Any] = {
        "records": publish(
            root, "records", lambda w: write_records(w / "records.parquet", records)
        ),
        "expressions": publish(root, "expressions", lambda w: write_expressions(w / FILE, items)),
        "features": publish(root, "features", lambda w: (w / "geometry.json").write_text(geometry)),
        "labels": [
            publish(
                root,
                "label_latents",
                lambda w: write_labels(w / "labels.parquet", labels),
                sae="digest",
            )
        ],
        "latents": publish(
            root, "latents", lambda w: write_latents(w, range(N_VALIDATION, N)), saes=["digest"]
        ),
        "validation_latents": publish(
            root, "validation", lambda w: write_latents(w, range(N_VALIDATION)), saes=["digest"]
        ),
        "projector": publish(root, "projector", lambda w: (w / "none").write_text("")),
    }
    order = {
        "llm": {"source": {"kind": "standin", "family": "llama"}},
        "referring_segmentation": {"logit_lens": False, "bootstrap": {"resamples": 50}},
    }

    def write(work: Path) -> None:
        stage.run(Job("referring_segmentation", order, parts, work))

    return publish(root, "referring_segmentation", write), parts


def test_planted_latents_find_what_is_meant_and_permuted_expressions_do_not(
    planted: tuple[Artifact, dict[str, Any]],
) -> None:
    result = read_result(planted[0])
    by_method = {(s["method"], s["layer"]): s for s in result["scores"]}
    assert (result["n_images"], result["n_expressions"], result["n_validation"]) == (24, 144, 144)
    assert result["named"] == {"1": 1.0}
    latents = by_method["latents", 1]
    kinds = {part["kind"]: part for part in latents["kinds"]}
    assert list(kinds) == ["no_place", "place", "several", "none", "all"]
    for name in ("no_place", "place", "several"):
        assert kinds[name]["auroc"]["value"] == kinds[name]["pointing"]["value"] == 1.0
        # Interpolation rounds a patch's corners.
        assert kinds[name]["giou"]["value"] > 0.8
    assert kinds["none"]["giou"]["value"] == 1.0
    permuted_, mean = by_method["permuted", 1]["kinds"][0], by_method["mean_mask", None]["kinds"][0]
    # Nothing of the image is left: no more than the mean mask knows.
    assert permuted_["giou"]["value"] <= mean["giou"]["value"] + 0.1
    assert abs(permuted_["auroc"]["value"] - 0.5) < 0.15
    assert kinds["no_place"]["giou"]["chance"] == permuted_["giou"]["value"]
    assert mean["giou"]["value"] < 0.3
    best = by_method["best_patches", None]["kinds"]
    assert [part["giou"]["value"] for part in best] == [1.0] * 5
    assert best[0]["giou"]["value"] >= kinds["no_place"]["giou"]["value"]
    gain = kinds["all"]["gains"]["permuted"]["giou"]
    assert gain["ci_low"] > 0.3
    assert gain["n"] == 144


def test_rows_items_and_section_of_the_planted_run(
    planted: tuple[Artifact, dict[str, Any]],
) -> None:
    artifact, _ = planted
    items = pq.read_table(artifact.file("items.parquet")).to_pylist()
    assert len(items) == 144 * 4
    assert {row["method"] for row in items} == {"latents", "permuted", "mean_mask", "best_patches"}
    point = {"encoder": "e", "llm": "m", "sae_weight": 1.0, "seed": 0}
    table = LongTable(read_figures(artifact, **point))
    keys = [figure.key for figure in table.figures]
    assert len(keys) == len(set(keys))
    # The report holds figures of groups apart, for every metric that says that it has them.
    assert METRIC.groups
    parts = [LongTable(f for f in table.figures if (f.set is None) == whole) for whole in (1, 0)]
    measured_ = Measured(parts[0], ReportSettings(least_n=10), groups=parts[1])
    [section] = SHOWN.sections(measured_)
    assert not groups_section(parts[1], 3).grids[0].rows
    # RefCOCO+'s kind leads; all methods of it, then the layers.
    assert section.grids[0].header[4] == "no word of place"
    methods = ["labelled latents", "permuted expressions", "mean mask", "best whole patches"]
    assert [row[3:5] for row in section.grids[0].rows] == [
        [group, method] for group in ("–", "testA", "testB") for method in methods
    ]
    assert [one.header[4] for one in section.grids[:5]][-1] == "all kinds"
    # Kinds, differences, layers.
    assert len(section.grids) == 7
    n = {(row[3], row[5]): row[-1] for row in section.grids[5].rows if row[4] == "all kinds"}
    assert n == {
        (group, rival): "144" if group == "–" else "72"
        for group in ("–", "testA", "testB")
        for rival in ("permuted expressions", "mean mask")
    }
    assert section.grids[-1].rows[0][3] == "1"


def config(tmp_path: Path, **changes: Any) -> Path:
    content = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    content |= {"metrics": {"referring_segmentation": {}}, **changes}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_plan_of_a_drawn_world_and_of_refcoco(tmp_path: Path) -> None:
    for own in (
        {},
        {
            "data": {
                "kind": "refcoco",
                "images": "i",
                "instances": "instances.json",
                "references": ["refs.json"],
            },
            "pretraining": {"kind": "drawn"},
        },
    ):
        nodes = load_plan(config(tmp_path, **own)).nodes.values()
        found = [node for node in nodes if node.stage == "referring_segmentation"]
        assert found
        made = {node.inputs["expressions"].id for node in found}  # type: ignore[union-attr]
        assert len(made) == 1
        expressions_node = found[0].inputs["expressions"]
        assert expressions_node.inputs["records"].stage == "records"  # type: ignore[union-attr]
        if own:
            assert expressions_node.files == ("instances.json", "refs.json")  # type: ignore[union-attr]
        for node in found:
            first, second = node.inputs["latents"], node.inputs["validation_latents"]
            assert second.settings["latents"]["split"] == "validation"  # type: ignore[union-attr]
            assert first.settings["latents"]["split"] == "test"  # type: ignore[union-attr]


def test_data_without_expressions_or_validation_images_are_refused(tmp_path: Path) -> None:
    folder = {"kind": "folder", "images": "i"}
    with pytest.raises(UserError, match="kind 'folder' have no referring expressions"):
        load_plan(config(tmp_path, data=folder, pretraining={"kind": "drawn"}))
    with pytest.raises(UserError, match="chooses its threshold on the validation split"):
        load_plan(config(tmp_path, latents={"split": "validation"}))
