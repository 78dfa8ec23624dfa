"""Guided dictionaries: what turns a concept's direction, what is saved, what shuffling leaves.

A patch of the planted world is one of 4 ground directions and, on a third of the patches, the
direction of one of 6 nouns that WordNet knows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from vista.config.encoders import CheckpointEncoder, EncoderSettings
from vista.config.guided import GuideSettings
from vista.config.vision_sae import LabelVisionSettings, TrainVisionSaeSettings, VisionSaeEntry
from vista.data.records import Box, Object, Record, write_records
from vista.data.wordnet import load_wordnet
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs.concepts import annotate, chosen_classes, concepts_of, synsets_of
from vista.metrics.guided_latents import stage as guided_latents
from vista.metrics.results import read_result
from vista.sae.convert import from_folder
from vista.sae.defined import FILE, Concept, read_defined
from vista.sae.guided import (
    Guide,
    GuidedConfig,
    GuidedSae,
    annotation_loss,
    forced,
    is_a_loss,
)
from vista.sae.label_table import read_labels
from vista.sae.neutral import load_sae
from vista.stages import label_guided_latents, train_guided_sae, train_vision_sae
from vista.store.features import FeatureWriter

D, GRID, IMAGES = 16, 3, 240
NOUNS = ("cat", "cow", "cup", "drum", "horse", "key")
SMALL = TrainVisionSaeSettings(d_sae=24, k=2, steps=150, batch_patches=256, lr=1e-2)


def module(**settings: Any) -> GuidedSae:
    """An SAE in training for three concepts, with random weights."""
    nothing = torch.zeros(0, 3), torch.zeros(0, D), torch.zeros(0)
    pairs = torch.tensor([[0, 1]])
    guide = Guide(GuideSettings(**settings), torch.full((3,), 0.2), pairs, *nothing, started=True)
    sae = GuidedSae(GuidedConfig(d_in=D, d_sae=20, k=4, guide=guide))
    generator = torch.Generator().manual_seed(0)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return sae


def tokens(n: int = 64) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(1))


def losses(sae: GuidedSae, x_nd: torch.Tensor) -> dict[str, torch.Tensor]:
    from sae_lens.saes.sae import TrainStepInput

    sae.guide.truth_nm = (x_nd[:, :3] > 0).to(torch.int8)
    step = TrainStepInput(
        x_nd, {}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
    )
    return dict(sae.training_forward_pass(step).losses)


def test_reconstruction_stretches_a_concept_but_does_not_turn_it() -> None:
    sae = module()
    losses(sae, tokens())["mse_loss"].backward()
    assert sae.W_pred.grad is None and sae.b_pred.grad is None
    assert sae.r_pred.grad is not None and sae.r_pred.grad.any()
    assert sae.W_enc.grad is not None
    assert not sae.W_enc.grad[:, :3].any() and sae.W_enc.grad[:, 3:].any()


def test_annotation_and_is_a_turn_it() -> None:
    for name in ("annotation", "is_a"):
        sae = module()
        losses(sae, tokens())[name].backward()
        assert sae.W_pred.grad is not None and sae.W_pred.grad[:, :2].abs().sum() > 0
        assert sae.r_pred.grad is None
        # The SAE's centre is that of reconstruction.
        assert sae.b_dec.grad is None or not sae.b_dec.grad.any()


def test_a_defined_column_is_the_predictors_times_exp_r() -> None:
    sae = module()
    torch.testing.assert_close(sae.encoder()[:, :3], sae.W_pred * torch.exp(sae.r_pred))
    torch.testing.assert_close(sae.encoder()[:, 3:], sae.W_enc[:, 3:])


def test_topk_is_over_defined_and_free_latents_together() -> None:
    sae = module()
    sae.b_enc.data += 20.0
    z_ns, pre_ns = sae.encode_with_hidden_pre(tokens())
    assert ((z_ns > 0).sum(dim=1) == 4).all()
    kept = pre_ns.topk(4, dim=1).indices.sort(dim=1).values
    torch.testing.assert_close(z_ns.nonzero()[:, 1].reshape(-1, 4), kept)
    assert (kept < 3).any() and (kept >= 3).any()


def test_the_saved_sae_has_the_same_activations(tmp_path: Path) -> None:
    sae, scale = module(), 0.37
    sae.cfg.normalize_activations = "expected_average_only_in"
    before_ns = sae.encode(tokens() * scale)
    probability_nm = sae.predict(tokens() * scale)
    sae.fold_activation_norm_scaling_factor(scale)
    torch.testing.assert_close(sae.predict(tokens()), probability_nm)
    sae.save_inference_model(tmp_path)
    saved = from_folder(tmp_path, 0)
    assert saved.config.architecture == "topk" and saved.config.k == 4
    # Activations are in the scale of the features now.
    torch.testing.assert_close(saved.encode(tokens()), before_ns / scale, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(saved(tokens()), sae(tokens()), rtol=1e-4, atol=1e-4)


def test_forced_activation_raises_what_is_predicted_to_the_mean_of_the_free() -> None:
    pre_ns = torch.tensor([[-3.0, 5.0, -3.0, 1.0, 2.0, 3.0]])
    predicted_nm = torch.tensor([[True, True, False]])
    expected = torch.tensor([[2.0, 5.0, -3.0, 1.0, 2.0, 3.0]])
    torch.testing.assert_close(forced(pre_ns, predicted_nm), expected)
    plain, lifted = module(), module(forced=True)
    x_nd = tokens()
    before, after = (sae.encode_with_hidden_pre(x_nd)[1] for sae in (plain, lifted))
    assert not torch.equal(before[:, :3], after[:, :3])
    torch.testing.assert_close(before[:, 3:], after[:, 3:])


def test_defined_latents_start_at_the_mean_of_their_concept() -> None:
    sae, x_nd = module(), tokens()
    truth_um = torch.tensor([[-1, -1, -1], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.int8)
    empty = torch.zeros(4, D), torch.zeros(4)
    sae.guide = Guide(GuideSettings(), sae.guide.share_m, sae.guide.pairs_e2, truth_um, *empty)
    kind_n = torch.arange(64) % 4
    for part in (slice(0, 30), slice(30, 64)):
        sae.guide.read(x_nd[part], kind_n[part])
    without = sae.W_dec[2].clone()
    sae.start()
    for latent, kinds in ((0, (1, 2)), (1, (2,))):
        mean_d = x_nd[[int(kind) in kinds for kind in kind_n]].mean(dim=0) - x_nd.mean(dim=0)
        for found_d in (sae.W_dec[latent], sae.W_pred[:, latent]):
            assert float(torch.cosine_similarity(found_d.detach(), mean_d, dim=0)) == pytest.approx(
                1, abs=1e-4
            )
    # No token had the third.
    assert torch.equal(sae.W_dec[2], without) and not sae.W_pred[:, 2].any()


def test_losses() -> None:
    logit_nm = torch.tensor([[0.0, 2.0], [1.0, -1.0], [3.0, 3.0]])
    truth_nm = torch.tensor([[1, -1], [0, 1], [-1, -1]])
    terms = [np.log(2), np.log1p(np.e), np.log1p(np.e)]
    assert float(annotation_loss(logit_nm, truth_nm)) == pytest.approx(sum(terms) / 2)
    assert not float(annotation_loss(logit_nm, torch.full((3, 2), -1)))
    # Of the three tokens only the second has a child likelier than its parent.
    gap = 1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(1))
    assert float(is_a_loss(logit_nm, torch.tensor([[0, 1]]))) == pytest.approx(gap / 3)
    assert not float(is_a_loss(logit_nm, torch.empty(0, 2, dtype=torch.int64)))


def defined_by(classes: tuple[str, ...], left_out: tuple[str, ...] = ()) -> dict[str, Concept]:
    wordnet = load_wordnet(None)
    synset_of = synsets_of([*classes, *left_out], {}, wordnet, "guide")
    concepts = concepts_of(classes, left_out, synset_of, wordnet, hypernyms=True)
    assert [concept.name for concept in concepts[: len(classes)]] == list(classes)
    for concept in concepts:
        assert all(set(concept.classes) < set(concepts[c].classes) for c in concept.above)
    return {concept.name: concept for concept in concepts}


def test_concepts_are_classes_and_what_wordnet_has_above_several() -> None:
    concepts = defined_by(("cat", "cow", "cup", "horse"))
    names = list(concepts)
    ungulate, placental = names[4:]
    assert set(concepts[ungulate].classes) == {"cow", "horse"}
    assert set(concepts[placental].classes) == {"cat", "cow", "horse"}
    # Only the next ones: a cow is a kind of what is above through `ungulate`.
    assert concepts["cow"].above == (4,) and concepts["cat"].above == (5,)
    assert concepts[ungulate].above == (5,) and concepts["cup"].above == ()


def test_a_left_out_class_is_no_concept_and_unknown_to_those_above_it() -> None:
    concepts = defined_by(("cat", "cow", "cup"), left_out=("horse",))
    assert "horse" not in concepts
    (above,) = list(concepts)[3:]
    assert concepts[above].classes == ("cat", "cow") and concepts[above].unknown == ("horse",)
    shown = [{"cow"}, {"horse"}, {"horse", "cat"}, set()]
    annotation = annotate(list(concepts.values()), np.arange(1), 4, lambda _: lambda p: shown[p])
    rows = annotation.concepts_um[annotation.kind_bp[0]]
    assert rows[:, 3].tolist() == [1, -1, 1, 0]
    assert rows[:, 0].tolist() == [0, 0, 1, 0]
    assert annotation.patches().tolist() == [1, 1, 0, 2]


def test_shuffling_permutes_annotated_patches_alone() -> None:
    concepts = [Concept("a", None, ("a",))]
    annotation = annotate(
        concepts, np.arange(40), 1, lambda b: lambda _: {"a"} if b % 3 else set(), set(range(30))
    )
    shuffled = annotation.shuffled(np.random.default_rng(0))
    assert shuffled.patches().tolist() == annotation.patches().tolist() == [20]
    assert not shuffled.kind_bp[30:].any() and (shuffled.kind_bp[:30] > 0).all()
    assert (shuffled.kind_bp != annotation.kind_bp).any()


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match="`guide` defines latents of topk"):
        VisionSaeEntry(train=TrainVisionSaeSettings(architecture="standard"), guide=GuideSettings())
    with pytest.raises(UserError, match=r"guide\.concepts names 'dog'"):
        chosen_classes(GuideSettings(concepts=("dog",)), {"cat"}, 0, "guide")
    with pytest.raises(UserError, match=r"guide\.left_out is 2 of 2"):
        chosen_classes(GuideSettings(left_out=2), {"cat", "cow"}, 0, "guide")
    with pytest.raises(UserError, match=r"senses gives 'cat' the synset n00000001"):
        synsets_of(["cat"], {"cat": "n00000001"}, load_wordnet(None), "guide")


def publish(root: Path, stage: str, write: Callable[[Path], Any], settings: Any = None) -> Artifact:
    node = f"n{len(list(root.glob(f'{stage}/*')))}"
    with publishing(root, stage, node, Provenance(stage, settings or {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / node)


def run(root: Path, stage: Any, settings: dict[str, Any], **inputs: Any) -> Artifact:
    name = stage.__name__.rsplit(".", 1)[1]
    return publish(root, name, lambda work: stage.run(Job(name, settings, inputs, work)), settings)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def inputs(root: Path) -> dict[str, Artifact]:
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.standard_normal((D, D)))[0].astype(np.float32)
    ground = rows[rng.integers(6, 10, (IMAGES, 9))]
    noun = rng.integers(0, len(NOUNS), (IMAGES, 9))
    shown = rng.random((IMAGES, 9)) < 1 / 3
    x = 3 * ground + 4 * rows[noun] * shown[..., None] + rows[-1]
    x += 0.1 * rng.standard_normal(x.shape)

    def record(b: int) -> Record:
        objects = [
            Object(NOUNS[noun[b, p]], Box(8.0 * (p % GRID), 8.0 * (p // GRID), 8.0, 8.0), None)
            for p in np.flatnonzero(shown[b]).tolist()
        ]
        split = ("train", "train", "train", "validation", "test")[b % 5]
        return Record(f"i{b}", split, f"{b}.png", 24, 24, objects=tuple(objects))

    def write_features(work: Path) -> None:
        names = [f"i{b}" for b in range(IMAGES)]
        writer = FeatureWriter(work / "features.zarr", names, (GRID, GRID), D, shard=64)
        for shard in range(writer.shards):
            writer.write_shard(shard, x[writer.shard_images(shard)].astype(np.float16))
        writer.close()
        (work / "geometry.json").write_text('{"fit": "pad", "patch": 8, "size": 24}')

    source = CheckpointEncoder(kind="checkpoint", path="somewhere", family="clip")
    encoder = {"encoder": EncoderSettings(source=source, layer=3).model_dump()}
    records = [record(b) for b in range(IMAGES)]
    return {
        "features": publish(root, "features", write_features, encoder),
        "records": publish(
            root, "records", lambda work: write_records(work / "records.parquet", records)
        ),
    }


def order(**guide: Any) -> dict[str, Any]:
    # Of the two latents that a patch may have, one is its ground's: no room for a hypernym's.
    settings = GuideSettings(left_out=1, hypernyms=False, **guide).model_dump()
    return {"sae": SMALL.model_dump(), "guide": settings, "name": "x-guided"}


@pytest.fixture(scope="module")
def guided(root: Path, inputs: dict[str, Artifact]) -> Artifact:
    return run(root, train_guided_sae, order(), **inputs)


@pytest.fixture(scope="module")
def result(root: Path, inputs: dict[str, Artifact], guided: Artifact) -> dict[str, Any]:
    plain = run(root, train_vision_sae, {"sae": SMALL.model_dump(), "name": "x"}, **inputs)
    shuffled = run(root, train_guided_sae, order(shuffle_labels=True), **inputs)
    settings = {"max_patches": 600, "bootstrap": {"resamples": 100}}
    saes = {"sae": guided, "check": guided, "plain": plain, "shuffled": shuffled}
    return read_result(run(root, guided_latents, settings, **saes, **inputs))


def test_defined_latents_find_their_concept_and_shuffled_ones_fall_to_chance(
    result: dict[str, Any],
) -> None:
    auroc = {name: figure["value"] for name, figure in result["auroc"].items()}
    assert auroc["defined"] > 0.95 and auroc["probe"] > 0.98
    assert abs(auroc["shuffled"] - 0.5) < 0.08 and abs(auroc["shuffled_pre"] - 0.5) < 0.15
    f1 = result["f1"]
    assert f1["defined"]["value"] > 0.9
    assert f1["shuffled"]["value"] < f1["shuffled"]["chance"] + 0.1
    assert result["left_out"] == 1 and result["left_out_auroc"]["guided"]["value"] > 0.9
    assert abs(result["variance_difference"]["value"]) < 0.05


def test_the_stage_writes_which_latents_are_defined(guided: Artifact) -> None:
    sae = load_sae(guided.path)
    defined = read_defined(guided.file(FILE), sae.config.d_sae)
    assert len(defined.left_out) == 1 and defined.left_out[0] in NOUNS
    names = [concept.name for concept in defined.concepts]
    assert names == [name for name in NOUNS if name not in defined.left_out]
    assert not defined.pairs and min(defined.patches) > 10
    with pytest.raises(UserError, match="not the concepts of a guided dictionary"):
        read_defined(guided.file(FILE), len(names) - 1)


def test_labels_are_the_concepts_and_no_free_latent_has_one(
    root: Path, inputs: dict[str, Artifact], guided: Artifact
) -> None:
    settings = {"labels": LabelVisionSettings(top_k=4).model_dump()}
    found = run(root, label_guided_latents, settings, sae=guided, **inputs)
    labels = read_labels(found.file("labels.parquet"))
    defined = read_defined(guided.file(FILE), 24)
    names = [concept.name for concept in defined.concepts]
    assert list(labels.label_s[: len(names)]) == names
    assert not set(labels.label_s[len(names) :]) & set(names)
    assert labels.share_s[: len(names)].min() > 0.7
    assert pq.read_table(found.file("top.parquet")).num_rows
