"""A pipeline of two training steps: its stream is read and edited, its noise is fixed, its folder
is checked; and the stages run on it from prompts to figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from vista.config.diffusion import TEMPLATES, AttributeSettings, PromptSettings, SteeringSettings
from vista.config.pipeline import PipelineSettings, StandinPipeline
from vista.config.vision_sae import LabelVisionSettings
from vista.data.glyphs import GlyphLibrary
from vista.data.records import Record, read_records, write_records
from vista.diffusion.attributes import (
    drawn_attributes,
    in_templates,
    value_in,
    with_value,
    words_of,
)
from vista.diffusion.edits import ablate_latent, add_direction
from vista.diffusion.pipeline import Sample, TextToImage, load_pipeline
from vista.diffusion.probes import pooled
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs import pipeline as diffusion_inputs
from vista.inputs.pipeline import Prompts, read_prompts
from vista.metrics.attribute_discovery import stage as attribute_discovery
from vista.metrics.attribute_discovery.measure import one_a_name, ranked
from vista.metrics.attribute_discovery.stage import steer_all
from vista.metrics.diffusion_steering import stage as diffusion_steering
from vista.metrics.diffusion_steering.bench import Bench
from vista.metrics.diffusion_steering.measure import (
    LATENT,
    PROMPT,
    RANDOM,
    RANDOM_LATENT,
)
from vista.metrics.discovery import Proposal
from vista.metrics.results import read_result
from vista.metrics.selectivity import selectivity
from vista.sae.label_table import FILE, LatentLabels, write_labels
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.stages import label_vision_latents, prompt_features, train_diffusion
from vista.stages.prompt_features import prompt_records
from vista.standins.diffusion import train_standin_pipeline
from vista.store.features import FeatureReader, FeatureWriter

COLOURS = (("a", "red"), ("an", "orange"), ("a", "blue"))
CAPTIONS = [
    f"{article} {colour} {noun} on {ground} ."
    for noun in ("cat", "cup", "sun")
    for article, colour in COLOURS
    for ground in ("sand", "water")
]
SETTINGS = PipelineSettings(steps=2, batch_size=2)


def train(out: Path) -> Path:
    torch.set_num_threads(1)
    recipe = StandinPipeline(
        image_size=16,
        autoencoder_channels=8,
        autoencoder_sizes=2,
        latent_channels=2,
        autoencoder_steps=2,
        autoencoder_batch=4,
        channels=(8,),
        text_width=8,
        heads=2,
        steps=2,
        batch_size=4,
    )
    images = np.random.default_rng(0).integers(0, 255, (18, 16, 16, 3), dtype=np.uint8)
    curve = train_standin_pipeline(recipe, images, CAPTIONS, out)
    assert curve["part"] == ["autoencoder"] * 2 + ["denoiser"] * 2
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("pipeline") / "model")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> TextToImage:
    return load_pipeline(folder, SETTINGS, layer=0)


def made(pipeline: TextToImage, *samples: Sample) -> Any:
    return np.concatenate(list(pipeline.images(samples)))


def test_training_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = train(tmp_path / "again")
    files = [path.relative_to(again) for path in again.rglob("*") if path.is_file()]
    assert Path("unet/diffusion_pytorch_model.safetensors") in files
    assert [
        file for file in files if (again / file).read_bytes() != (folder / file).read_bytes()
    ] == []


def test_words_are_the_prompts_own(pipeline: TextToImage) -> None:
    words = pipeline.words(["a red cat", CAPTIONS[0]])
    assert words.tolist() == [[False, *[True] * 3, *[False] * 4], [False, *[True] * 6, False]]


def test_the_stream_is_that_after_the_block(pipeline: TextToImage, folder: Path) -> None:
    later = load_pipeline(folder, SETTINGS, layer=1)
    model, ids = pipeline._pipeline.text_encoder, pipeline._pipeline.tokenizer
    told = ids(CAPTIONS[:2], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = model(told, output_hidden_states=True).hidden_states
    torch.testing.assert_close(pipeline.stream(CAPTIONS[:2]), hidden[1])
    assert not torch.equal(later.stream(CAPTIONS[:2]), hidden[1])


def test_images_depend_on_prompt_seed_and_edit_alone(pipeline: TextToImage) -> None:
    plain = [Sample(CAPTIONS[0], 1), Sample(CAPTIONS[1], 2), Sample(CAPTIONS[0], 1)]
    first = made(pipeline, *plain)
    # Neither on the others of the batch nor on the place in it.
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(made(pipeline, *plain[1:])[0], first[1])
    nothing = Sample(CAPTIONS[0], 1, lambda x_td: torch.zeros_like(x_td))
    np.testing.assert_array_equal(made(pipeline, nothing)[0], first[0])
    strong = Sample(CAPTIONS[0], 1, add_direction(torch.eye(8)[0], 50.0))
    edited = made(pipeline, strong, plain[1])
    assert (edited[0] != first[0]).any()
    np.testing.assert_array_equal(edited[1], first[1])


def test_an_edit_reaches_words_only_and_leaves_no_trace(pipeline: TextToImage) -> None:
    seen: list[Any] = []

    def look(x_td: Any) -> Any:
        seen.append(x_td)
        return torch.ones_like(x_td)

    before = pipeline.stream(["a red cat"])
    made(pipeline, Sample("a red cat", 0, look))
    torch.testing.assert_close(seen[0], before[0, 1:4])
    torch.testing.assert_close(pipeline.stream(["a red cat"]), before)


def test_edits_are_as_long_as_told() -> None:
    weights = {
        "W_enc": torch.eye(2),
        "W_dec": torch.tensor([[3.0, 4.0], [1.0, 0.0]]),
        "b_dec": torch.zeros(2),
        "b_enc": torch.zeros(2),
    }
    sae = SparseAutoencoder(SaeConfig("standard", 2, 2, layer=0, name="planted"), weights)
    x_td = torch.tensor([[2.0, 1.0], [-1.0, 1.0]])
    added = add_direction(torch.tensor([0.0, 7.0]), 1.5)(x_td)
    torch.testing.assert_close(added, torch.tensor([[0.0, 1.5]] * 2))
    # What does not fire is not taken out.
    torch.testing.assert_close(
        ablate_latent(sae, 0)(x_td), torch.tensor([[-6.0, -8.0], [0.0, 0.0]])
    )
    control = ablate_latent(sae, 0, torch.tensor([0.0, 2.0]))(x_td)
    torch.testing.assert_close(control, torch.tensor([[0.0, -10.0], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("part", "becomes", "complaint"),
    [
        ("text_encoder", None, "the pipeline has no text encoder; choose"),
        ("unet", None, "has no unet"),
        ("text_encoder_2", ["transformers", "CLIPTextModel"], "several text encoders"),
        ("unet", ["unet.my_own", "Mine"], "needs code from 'unet.my_own'"),
    ],
)
def test_other_pipelines_are_refused(
    folder: Path, tmp_path: Path, part: str, becomes: Any, complaint: str
) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index[part] = becomes or [None, None]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=complaint):
        load_pipeline(tmp_path, SETTINGS, 0)


def test_pickles_and_missing_blocks_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"layer 2 does not exist; .* 0\.\.1"):
        load_pipeline(folder, SETTINGS, 2)
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")):
        copy = shutil.copytree(folder, tmp_path / part)
        (weights,) = (copy / part).glob("*.safetensors")
        torch.save(load_file(weights), copy / part / f"{name}.bin")
        weights.unlink()
        with pytest.raises(UserError, match="safetensors weights"):
            load_pipeline(copy, SETTINGS, 0)
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(UserError, match="tokenizer is missing; give the whole pipeline"):
        load_pipeline(copy, SETTINGS, 0)


def test_a_pipeline_that_edits_images_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "unet" / "config.json").read_text()) | {"in_channels": 5}
    unet = UNet2DConditionModel.from_config(config)
    unet.save_pretrained(copy / "unet")
    with pytest.raises(UserError, match="reads 5 channels of images with 2"):
        load_pipeline(copy, SETTINGS, 0)


def test_values_are_words_of_a_text() -> None:
    colours = ("blue", "orange", "red")
    assert value_in("A Red cat.", colours) == "red"
    assert value_in("a scarred cat", colours) is None
    assert value_in("a red and a blue cat", colours) is None
    assert with_value("a red cat at a redwood", colours, "orange") == "an orange cat at a redwood"
    assert with_value("an orange cat", colours, "blue") == "a blue cat"
    assert with_value("cat on sand", ("sand", "water"), "water") == "cat on water"


def test_prompts_are_named_by_words_that_not_most_have() -> None:
    (one, *_) = prompt_records({"train": CAPTIONS[:4], "test": CAPTIONS[4:6]}, 0.5)
    # "cat" and "on" are in all, "a" in four of six.
    assert one.categories == ("red", "sand")
    assert (one.split, one.captions) == ("train", (CAPTIONS[0],))


def test_latents_that_vary_are_ranked_and_named_once() -> None:
    written = np.zeros((10, 6), np.float32)
    written[:, 0] = np.arange(10) + 1  # fires always
    written[:4, 1] = 1
    written[:1, 2] = 9  # fires too seldom
    written[:3, 3] = 2
    written[:3, 4:] = 3
    auroc = np.array([1, 0.9, 1, 0.9, np.nan, 0.7])
    # 3 varies more than 1; 4 has no name.
    found = ranked(written, auroc, (0.2, 0.5))
    assert found.tolist() == [3, 1, 5]
    labels = ["a", "red", "c", "red", None, "blue"]
    assert one_a_name(found, labels, 9) == [3, 5]
    assert one_a_name(found, labels, 1) == [3]


def publish(root: Path, stage: str, write: Callable[[Path], Any]) -> Artifact:
    node = f"n{len(list(root.glob(f'{stage}/*')))}"
    with publishing(root, stage, node, Provenance(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / node)


def run(root: Path, stage: Any, settings: dict[str, Any], **inputs: Artifact) -> Artifact:
    name = stage.__name__.rsplit(".", 1)[1]
    return publish(root, name, lambda work: stage.run(Job(name, settings, dict(inputs), work)))


def prompt_settings(prompts: PromptSettings) -> dict[str, Any]:
    return {
        "encoder": {"source": {"kind": "standin", "family": "clip"}, "layer": 0},
        "pipeline": SETTINGS.model_dump(),
        "prompts": prompts.model_dump(),
    }


class Quadrants:
    """An encoder whose patches are an image's quadrants and whose channels are their colours."""

    size, grid, mean_colour, resample = 16, (2, 2), (0, 0, 0), Image.Resampling.BICUBIC

    def encode(self, images_bhwc: Any) -> torch.Tensor:
        x = torch.from_numpy(images_bhwc).float().reshape(-1, 2, 8, 2, 8, 3)
        return x.mean(dim=(2, 4)).flatten(1, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def inputs(root: Path, folder: Path) -> dict[str, Artifact]:
    """All that the stages around the pipeline read, but for a real SAE and real images."""
    pipeline = publish(root, "train_diffusion", lambda w: shutil.copytree(folder, w / "model"))
    lines = root / "prompts.txt"
    # Every third caption: each split has all colours and grounds.
    order = [CAPTIONS[i] for first in range(3) for i in range(first, 18, 3)]
    lines.write_text("\n".join([*order, order[0], ""]))
    settings = prompt_settings(PromptSettings(file=str(lines), split_sizes=(6, 6, 6)))
    records = [
        Record(str(i), "train" if i < 18 else "test", str(i), 16, 16, captions=(CAPTIONS[i % 18],))
        for i in range(36)
    ]
    shown = publish(root, "records", lambda w: write_records(w / "records.parquet", records))
    prompts = run(root, prompt_features, settings, pipeline=pipeline, records=shown)
    rng = np.random.default_rng(0)
    encoder, size = torch.from_numpy(rng.normal(0, 1, (8, 12)).astype(np.float32)), 12
    weights = {
        "W_enc": encoder,
        "W_dec": encoder.T / encoder.norm(dim=0)[:, None],
        "b_dec": torch.zeros(8),
        "b_enc": torch.zeros(size),
    }
    planted = SparseAutoencoder(SaeConfig("standard", 8, size, layer=0, name="planted"), weights)
    sae = publish(root, "train_vision_sae", lambda work: save_sae(work, planted))
    by_image = {
        "labels": LabelVisionSettings(by="image", min_share=0.1).model_dump(),
        "sae": {"device": "cpu"},
    }
    labels = run(root, label_vision_latents, by_image, features=prompts, records=prompts, sae=sae)

    def write_features(work: Path) -> None:
        writer = FeatureWriter(work / "features.zarr", [str(i) for i in range(36)], (2, 2), 3)
        writer.write_shard(0, rng.uniform(0, 255, (36, 4, 3)).astype(np.float16))
        writer.close()

    return {
        "pipeline": pipeline,
        "prompts": prompts,
        "sae": sae,
        "labels": labels,
        "features": publish(root, "features", write_features),
        "records": shown,
    }


OWN: dict[str, Any] = {
    "pipeline": PipelineSettings(steps=2, batch_size=64).model_dump(),
    "layer": 0,
    "encoder": {"source": {"kind": "standin", "family": "clip"}},
    "attributes": {"colour": ["red", "orange", "blue"], "ground": ["sand", "water"]},
    "probe": {"regularisation": 1.0, "iterations": 20},
}


def test_prompts_stand_where_images_do(inputs: dict[str, Artifact], pipeline: TextToImage) -> None:
    features = FeatureReader(inputs["prompts"].store("features.zarr"))
    records = read_records(inputs["prompts"].file("records.parquet"))
    texts = [record.captions[0] for record in records]
    # The begin token is no word, and neither is the end.
    assert features.shape == (18, 6, 8)
    expected = pipeline.stream(texts)[:, 1:7]
    np.testing.assert_allclose(features.read(range(18)), expected, atol=2e-3)
    assert sorted(texts) == sorted(CAPTIONS)
    assert [len(records.rows_of(split)) for split in ("train", "validation", "test")] == [6] * 3


def test_what_there_is_too_little_of_is_named(
    root: Path, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    (lines := tmp_path / "few.txt").write_text("a red cat\na blue cat\na red cat\n")
    few = PromptSettings(file=str(lines), split_sizes=(1, 1, 1))
    settings = prompt_settings(few)
    with pytest.raises(UserError, match=r"few\.txt hold none for split 'test'"):
        read = {role: inputs[role] for role in ("pipeline", "records")}
        run(root, prompt_features, settings, **read)
    images = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="need a caption each"):
        train_standin_pipeline(StandinPipeline(), images, ["a cat", ""], tmp_path)
    with pytest.raises(UserError, match="2 images are fewer than the batch of 32"):
        train_standin_pipeline(StandinPipeline(), images, ["a cat", "a cat"], tmp_path)


def test_a_short_prompt_is_its_words_again(
    root: Path, inputs: dict[str, Artifact], pipeline: TextToImage, tmp_path: Path
) -> None:
    (lines := tmp_path / "lines.txt").write_text("a red cat on sand .\na red cat\na blue cat\n")
    own = PromptSettings(file=str(lines), split_sizes=(1, 1, 1))
    settings = prompt_settings(own)
    read = {role: inputs[role] for role in ("pipeline", "records")}
    short = run(root, prompt_features, settings, **read)
    found = FeatureReader(short.store("features.zarr")).read([1])[0]
    words = pipeline.stream(["a red cat"])[0, 1:4]
    np.testing.assert_allclose(found, np.concatenate([words, words]), atol=2e-3)


def test_pipeline_and_prompts_are_of_one_text(
    root: Path, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[str] = []

    def learn(_settings: Any, _pixels: Any, captions: list[str], _out: Path) -> dict[str, Any]:
        learnt.extend(captions)
        return {}

    monkeypatch.setattr("vista.standins.diffusion.train_standin_pipeline", learn)
    monkeypatch.setattr(train_diffusion, "read_images", lambda *_: None)
    monkeypatch.setattr(train_diffusion, "image_files", lambda *_: None)
    splits = ("train", "validation", "test")
    told = [
        Record(f"{split}{i}", split, "", 16, 16, captions=(caption,))
        for split in splits
        for i, caption in enumerate(CAPTIONS)
    ]
    records = publish(root, "records", lambda w: write_records(w / "records.parquet", told))
    templates = ["{}", "show me {}", "{} today", "we see {}"]
    settings = {"recipe": StandinPipeline().model_dump(), "templates": templates}
    run(root, train_diffusion, settings, records=records)
    own = PromptSettings(templates=tuple(templates))
    settings = prompt_settings(own)
    prompts = run(root, prompt_features, settings, pipeline=inputs["pipeline"], records=records)
    found = read_records(prompts.file("records.parquet"))
    texts = {s: [r.captions[0] for r in found.select(found.rows_of(s))] for s in splits}
    assert texts["train"] == learnt == in_templates(CAPTIONS, templates, "train")
    assert learnt != CAPTIONS
    assert not set(texts["test"]) & {*texts["train"], *texts["validation"]}


def test_an_attribute_without_a_word_in_held_out_captions_is_named(
    root: Path, inputs: dict[str, Artifact]
) -> None:
    own = {**OWN, "attributes": {"colour": ["red", "blue"], "noun": ["cat", "cup"]}}
    told = ["a red cat", "a blue cup"] * 9 + ["a red sun"] * 18
    records = [
        Record(str(i), "train" if i < 18 else "test", str(i), 16, 16, captions=(text,))
        for i, text in enumerate(told)
    ]
    other = publish(root, "records", lambda w: write_records(w / "records.parquet", records))
    with pytest.raises(UserError, match=r"attributes\.noun: no caption of split 'test'"):
        order = diffusion_inputs.PipelineOrder.model_validate(own)
        read = diffusion_inputs.PipelineInputs(**{**inputs, "records": other})
        diffusion_inputs.Judge(order, read)


def test_steering_from_prompts_to_figures(
    root: Path, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusion_inputs, "load_vision_encoder", lambda *_: Quadrants())
    steering = SteeringSettings(targets=2, coefficients=(1.0, 8.0), development=2, test=3)
    own = {**OWN, "steering": steering.model_dump()}
    done, again = (run(root, diffusion_steering, own, **inputs) for _ in range(2))
    assert done.digest == again.digest
    assert {"grids/colour.png", "grids/ground.png"} <= set(done.checksums)
    items = pq.read_table(done.file("items.parquet")).to_pylist()
    tried = {}
    for item in items:
        if item["split"] == "validation" and item["target"] == "blue":
            edit = (item["method"], round(item["coefficient"], 6))
            tried.setdefault(edit, []).append((item["prompt"], item["before_colour"]))
    methods = (LATENT, RANDOM, RANDOM_LATENT)
    assert set(tried) == {(PROMPT, 0)} | {(m, c) for m in methods for c in (1, 8)}
    # The same unedited images for all, of prompts that tell another colour.
    assert len({tuple(found) for found in tried.values()}) == 1
    assert all("blue" not in text for text, _ in tried[PROMPT, 0])
    ablated = [item for item in items if item["kind"] == "ablate"]
    assert all(item["target"] in item["prompt"] for item in ablated)
    prompts = read_prompts(inputs["prompts"], inputs["sae"])
    rows = prompts.rows["validation"]
    for target in pq.read_table(done.file("targets.parquet")).to_pylist():
        told = np.array([[target["target"] in prompts.text[row]] for row in rows])
        auroc = selectivity(prompts.score_ns[rows], told)[:, 0]
        assert target["auroc"] == auroc.max() == auroc[target["latent"]]
        assert target["random_latent"] != target["latent"]
    assert {each["method"] for each in read_result(done)["methods"]} == {*methods, PROMPT}


def test_discovery_from_prompts_to_figures(
    root: Path, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusion_inputs, "load_vision_encoder", lambda *_: Quadrants())
    names = ("red", "sand", "cat", None, "red", "blue") * 2
    empty = np.zeros(len(names), np.float32)
    known = LatentLabels(0, "planted", 1, names, empty, empty, ((),) * len(names))
    labels = publish(root, "label_vision_latents", lambda w: write_labels(w / FILE, known))
    settings = AttributeSettings(proposals=3, max_share=1.0, prompts=2)
    own = {**OWN, "discovery": settings.model_dump()}
    done = run(root, attribute_discovery, own, **{**inputs, "labels": labels})
    items = pq.read_table(done.file("items.parquet")).to_pylist()
    assert [item["proposed"] for item in items] == [True] * 3 + [False] * 3
    for part in (items[:3], items[3:]):
        assert len({item["name"] for item in part} - {None}) == 3
        assert all(names[item["latent"]] == item["name"] for item in part)
    told = {word for words in OWN["attributes"].values() for word in words}
    # All were added to prompts, the proposals beside a random direction; what a probe knows has a
    # gain.
    assert not any(np.isnan(item["change"]) for item in items)
    assert [np.isnan(item["random_change"]) for item in items] == [False] * 3 + [True] * 3
    assert [not np.isnan(item["gain"]) for item in items] == [i["name"] in told for i in items]
    assert {item["name"] in told for item in items} == {True, False}


def test_whatever_value_an_added_latent_brings_about_is_its_change() -> None:
    class Look:
        """Edits along the first axis make images red, along the second every other one bottom."""

        attributes = MappingProxyType({"colour": ("blue", "red"), "row": ("bottom", "top")})

        def look(self, _: Any, samples: list[Sample]) -> tuple[list[Any], dict[str, Any]]:
            zero = torch.zeros(1, 2)
            edits = [each.edit(zero)[0].tolist() if each.edit else (0, 0) for each in samples]
            low = [
                y > 1 and int(each.prompt[-1]) % 2
                for (_, y), each in zip(edits, samples, strict=True)
            ]
            return [], {
                "colour": np.array(["red" if x > 1 else "blue" for x, _ in edits]),
                "row": np.array(["bottom" if each else "top" for each in low]),
            }

    weights = {"W_enc": torch.eye(2), "W_dec": 3 * torch.eye(2)} | {
        name: torch.zeros(2) for name in ("b_dec", "b_enc")
    }
    sae = SparseAutoencoder(SaeConfig("standard", 2, 2, layer=0, name="planted"), weights)
    text = ["a red 1", "a blue 2", "show a blue 3", "show a red 4"]
    prompts = Prompts(text, {"test": np.arange(4)}, np.zeros((4, 2), np.float32), sae)
    pipeline: Any = SimpleNamespace(
        stream=lambda texts: torch.full((len(texts), 1, 2), 2.0),
        words=lambda texts: torch.ones(len(texts), 1, dtype=torch.bool),
    )
    found, random = steer_all(
        [Proposal(0, "red", 1.0), Proposal(1, "show", 1.0), Proposal(1, "a", 1.0)],
        [Proposal(1, "blue", 1.0)],
        pipeline,
        prompts,
        Look(),  # type: ignore[arg-type]
        AttributeSettings(coefficient=1.0, prompts=2),
    )
    # Of the first two prompts without the name: 2 and 3, 1 and 2, none; 1 and 4.
    assert [each.change for each in (*found[:2], *random)] == [1, 0.5, 0.5]
    assert (found[0].gain, random[0].gain) == (1, 0)
    assert found[0].random_change in (0, 0.5, 1)
    assert np.isnan([found[1].gain, random[0].random_change, found[2].change]).all()


def test_templates_are_around_a_caption_and_before_its_full_stop() -> None:
    captions = [*CAPTIONS, "a star", ""] * 5
    told = in_templates(captions, TEMPLATES, "train")
    assert told == in_templates(captions, TEMPLATES, "train")
    assert told != in_templates(captions, TEMPLATES, "test")
    assert {"we see a star", "a star for fun"} <= {
        *in_templates(["a star"] * 99, TEMPLATES, "test")
    }
    for caption, text in zip(captions, told, strict=True):
        assert caption.removesuffix(" .") in text
        assert text.endswith(" .") == caption.endswith(" .")
        assert bool(text) == bool(caption)
    # Else a probe that knows a word of theirs would judge them.
    drawn = drawn_attributes(GlyphLibrary().nouns).values()
    assert not {word for words in drawn for word in words} & set(words_of(" ".join(TEMPLATES)))


def test_adherence_leaves_out_what_no_prompt_tells() -> None:
    judge: Any = SimpleNamespace(attributes={"colour": ("blue", "red"), "row": ("bottom", "top")})
    prompts = Prompts(["a red cat"], {}, np.zeros((1, 1), np.float32), None)  # type: ignore[arg-type]
    bench = Bench(None, prompts, judge, 0)  # type: ignore[arg-type]
    bench._plain[0] = (np.zeros(1, np.uint8), {"colour": "red", "row": "top"})
    assert list(bench.adherence()) == ["colour"]


def test_quarters_tell_places_and_the_maximum_what_is_small() -> None:
    x = np.zeros((1, 9, 1))
    x[0, 2] = 3  # right, in the first of three rows
    np.testing.assert_array_equal(pooled(x, (3, 3)), [[0, 1.5, 0, 0, 3]])
    np.testing.assert_array_equal(pooled(x[:, 2:3], (1, 1)), [[3, 3]])
