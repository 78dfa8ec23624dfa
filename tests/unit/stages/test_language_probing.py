"""shared_latents and the readouts by words on a planted world: nine patches, an object on one.

The language model is untrained: its embeddings outweigh what its blocks add, so that the head reads
at a visual token the word whose embedding was planted there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.long_table import read_rows
from vista.config.language import LanguageSettings, StandinLlm
from vista.config.report import ReportSettings
from vista.config.text_index import TextIndexSettings
from vista.data.records import (
    Box,
    Object,
    Record,
    Turn,
    encode_mask,
    read_records,
    write_records,
    write_text,
)
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job, roles
from vista.errors import UserError
from vista.language.words import vocabulary
from vista.metrics.embedding_lens import EmbeddingLensSettings
from vista.metrics.embedding_lens import stage as embedding_lens
from vista.metrics.latent_lens import LatentLensSettings
from vista.metrics.latent_lens import stage as latent_lens
from vista.metrics.logit_lens import LogitLensSettings
from vista.metrics.logit_lens import stage as logit_lens
from vista.metrics.pseudo_images import PseudoImagesSettings
from vista.metrics.pseudo_images import stage as pseudo_images
from vista.metrics.pseudo_images.report import pseudo_images_section
from vista.metrics.results import read_result
from vista.metrics.shared_latents import SharedLatentsSettings
from vista.metrics.shared_latents import stage as shared_latents
from vista.metrics.visual_words import VisualWordsReadoutSettings
from vista.metrics.visual_words import stage as visual_words
from vista.report.contents import all_notes
from vista.report.shown import Measured, MetricPlace
from vista.report.table import LongTable
from vista.stages import index_text
from vista.store.features import FeatureWriter
from vista.store.latents import LatentWriter

NOUNS = ("anchor", "cat", "dog")
CAPTION = "the {} is on the grass"
WORD = 1  # its place in the caption
N = 12
SOURCE = StandinLlm(family="llama", d_model=64, n_blocks=2, n_heads=2, d_mlp=32, seed=1)


def noun(image: int) -> str:
    return NOUNS[image % 3]


def place(image: int) -> int:
    return image * 5 % 9


def records() -> list[Record]:
    found = []
    for i in range(N):
        y, x = divmod(place(i), 3)
        mask = np.zeros((24, 24), dtype=bool)
        mask[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = True
        # The box is larger than the object: only masks are right.
        thing = Object(noun(i), Box(0.0, 0.0, 24.0, 24.0), encode_mask(mask))
        captions = (CAPTION.format(noun(i)),)
        found.append(Record(f"i{i}", "test", f"i{i}.png", 24, 24, captions, objects=(thing,)))
    # One of a concept of its own: too rare.
    thing = Object("umbrella", Box(0.0, 0.0, 8.0, 8.0))
    captions = ("the umbrella",)
    return [*found, Record("i12", "test", "i12.png", 24, 24, captions, objects=(thing,))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    import torch

    from vista.language.model import LanguageModel
    from vista.projector.module import make_projector, save_projector
    from vista.standins.llm import build_model, build_tokenizer

    root = tmp_path_factory.mktemp("artifacts")

    def publish(stage: str, write: Callable[[Path], Any]) -> Artifact:
        with publishing(root, stage, "node", Provenance(stage, {}, {}, "code", {})) as work:
            assert work is not None
            write(work)
        return open_artifact(root / stage / "node")

    def write_llm(work: Path) -> None:
        tokenizer = build_tokenizer([CAPTION, " ".join(NOUNS), "umbrella cats"])
        torch.manual_seed(0)
        build_model(SOURCE, tokenizer).save_pretrained(work / "model")
        tokenizer.save_pretrained(work / "model")

    llm = publish("train_llm", write_llm)
    model = LanguageModel.load(llm.folder("model"))

    def write_features(work: Path) -> None:
        words = [["grass"] * 9 for _ in range(N + 1)]
        for i in range(N):
            words[i][place(i)] = noun(i)
        ids = model.tokenizer([" ".join(row) for row in words], add_special_tokens=False)
        stream_bpd = 100 * model.embed(torch.tensor(ids["input_ids"])).numpy()
        writer = FeatureWriter(
            work / "features.zarr", [f"i{i}" for i in range(N + 1)], (3, 3), model.d_model
        )
        writer.write_shard(0, stream_bpd)
        writer.close()
        (work / "geometry.json").write_text('{"fit": "pad", "patch": 8, "size": 24}')

    def write_projector(work: Path) -> None:
        projector = make_projector("linear", model.d_model, model.d_model, 0)
        with torch.no_grad():
            projector.layers[0].weight.copy_(torch.eye(model.d_model))
            projector.layers[0].bias.zero_()
        save_projector(work, projector)

    return {
        "llm": llm,
        "records": publish(
            "records", lambda work: write_records(work / "records.parquet", records())
        ),
        "features": publish("features", write_features),
        "projector": publish("train_projector", write_projector),
        "latents": publish("latents", lambda work: write_latents(work, n_text=6)),
        "cut": publish("cut_latents", lambda work: write_latents(work, n_text=7)),
    }


def write_latents(work: Path, n_text: int) -> None:
    """Latent c is of noun c, in both kinds of tokens at layer 0; on the images of layer 1 it is of
    the next noun. Latent 3 fires everywhere."""
    kinds = {"image": 9, "text": 1, "control": n_text}
    writer = LatentWriter(
        work / "latents.zarr", [f"i{i}" for i in range(N + 1)], (3, 3), {0: 5, 1: 5}, kinds, k=2
    )
    for kind, tokens in kinds.items():
        valid = np.ones((N + 1, tokens), dtype=bool)
        if kind == "control":
            valid[N, 2:] = False
        writer.set_valid(kind, 0, valid)
        for layer in (0, 1):
            index = np.zeros((N + 1, tokens, 2), dtype=np.uint16)
            value = np.zeros((N + 1, tokens, 2), dtype=np.float16)
            index[..., 0], value[..., 0] = 3, 1.0
            nnz = np.ones((N + 1, tokens), dtype=np.uint16)
            if kind != "text":
                for i in range(N):
                    at = place(i) if kind == "image" else WORD
                    shift = layer if kind == "image" else 0
                    index[i, at, 1], value[i, at, 1], nnz[i, at] = (i + shift) % 3, 2.0, 2
            flat = np.ones((N + 1, tokens), dtype=np.float32)
            writer.write(kind, 0, layer, index, value, nnz, flat, flat)
            writer.finish(layer, kind, np.ones(4))
    writer.close()


def run(made: dict[str, Artifact], tmp_path: Path, stage: Any, own: Any, **more: Any) -> Artifact:
    name = stage.__name__.removesuffix(".stage").rsplit(".", 1)[1]
    llm = LanguageSettings(source=SOURCE).model_dump(mode="json")
    llm["source"] = {"kind": "standin", "family": "llama"}
    settings = {"llm": llm, name: own.model_dump(mode="json"), **more}
    with publishing(tmp_path, name, "n", Provenance(name, {}, {}, "code", {})) as work:
        assert work is not None
        inputs = {role: made[role] for role in roles(stage.run.inputs_type) if role in made}
        stage.run(Job("n", settings, inputs, work))
    return open_artifact(tmp_path / name / "n")


def read_index(made: dict[str, Artifact], tmp_path: Path, **more: Any) -> Artifact:
    """Index a text in which the grass stands in many places, the nouns at the same one."""
    own = TextIndexSettings(layers=(0, 1), skip_first=0, **more)
    documents = [CAPTION.format(name) for name in (*NOUNS, *NOUNS)]
    with publishing(tmp_path, "text", "n", Provenance("text", {}, {}, "code", {})) as work:
        assert work is not None
        write_text(work / "text.parquet", {"train": documents, "heldout": []})
    inputs = {"llm": made["llm"], "text": open_artifact(tmp_path / "text" / "n")}
    llm = LanguageSettings(source=SOURCE).model_dump(mode="json")
    llm["source"] = {"kind": "standin", "family": "llama"}
    settings = {"llm": llm, "index": own.model_dump(mode="json")}
    with publishing(tmp_path, "index_text", "n", Provenance("i", {}, {}, "code", {})) as work:
        assert work is not None
        index_text.run(Job("n", settings, inputs, work))
    return open_artifact(tmp_path / "index_text" / "n")


def test_shared_latents_fire_on_the_word_and_on_the_patch(
    made: dict[str, Artifact], tmp_path: Path
) -> None:
    own = SharedLatentsSettings(min_images=4)
    artifact = run(made, tmp_path, shared_latents, own)
    result = read_result(artifact)
    assert (result["n_concepts"], result["n_too_rare"]) == (3, 1)
    by_layer = {part["layer"]: part for part in result["layers"]}
    assert by_layer[0]["shared"]["value"] == by_layer[0]["transfer"]["value"] == 1
    assert by_layer[0]["shared"]["chance"] == 0
    assert by_layer[1]["shared"]["value"] == 0
    # Each word's latent is that of the next noun's patches: one of two other concepts.
    assert by_layer[1]["shared"]["chance"] == 0.5
    assert by_layer[1]["on_images"]["value"] == 1
    items = pq.read_table(artifact.file("items.parquet")).to_pylist()
    assert [(row["concept"], row["shared"]) for row in items if row["layer"] == 0] == [
        (name, c) for c, name in enumerate(NOUNS)
    ]
    # On images a latent of another noun is silent on all patches of this one.
    off = [row["image_auroc"] for row in items if row["layer"] == 1]
    assert max(off) < 0.5
    assert [row["shared"] for row in items if row["layer"] == 1] == [None] * 3
    with pytest.raises(UserError, match="min_images 5: 0 concepts"):
        run(made, tmp_path / "rare", shared_latents, SharedLatentsSettings(min_images=5))


def test_the_longest_name_takes_all_tokens_of_its_words_and_no_other() -> None:
    text = "Dogs eat a hot  dog"
    spans = [(0, 4), (5, 8), (9, 10), (11, 13), (13, 16), (16, 19)]  # "hot" in two pieces

    def tokenizer(texts: list[str], **_: Any) -> dict[str, Any]:
        return {"offset_mapping": [spans for _ in texts]}

    valid = np.array([[True] * 7, [True] * 2 + [False] * 5])
    # The second text was cut after two tokens.
    latents: Any = SimpleNamespace(kinds={"control": 7}, valid=lambda _: valid[:, :6])
    shown = [Record(f"i{i}", "test", "", 8, 8, (text,)) for i in range(2)]
    token_m, concept_m = shared_latents._word_tokens(tokenizer, latents, shown, ["dog", "hot dog"])
    pairs = list(zip(token_m.tolist(), concept_m.tolist(), strict=True))
    assert pairs == [(0, 0), (3, 1), (4, 1), (5, 1), (7, 0)]


def test_latents_of_another_tokenizer_are_refused(
    made: dict[str, Artifact], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="image i0 has 6 tokens, its latents 7"):
        run({**made, "latents": made["cut"]}, tmp_path, shared_latents, SharedLatentsSettings())


def test_the_lens_reads_the_planted_words(made: dict[str, Artifact], tmp_path: Path) -> None:
    # The grass is the likeliest word of a patch everywhere, so it does not speak for an image.
    own = LogitLensSettings(ks=(1, 3), max_image_share=0.5, batch_size=5)
    artifact = run(made, tmp_path, logit_lens, own, layers=[0, 1])
    rows = [row for row in read_rows(artifact) if row["of"] is None]
    value = {(row["metric"], row["k"], row["layer"]): row for row in rows}
    for layer in (0, 1):
        named = value["lens_patches_named", 1, layer]
        # The umbrella's patch shows grass.
        assert (named["value"], named["n"]) == (pytest.approx(12 / 13), 13)
        assert named["chance"] == pytest.approx(12 / 13 * 3 / 12)
        assert value["lens_matching_rate", 1, layer]["value"] == pytest.approx(12 / 13)
    result = read_result(artifact)
    assert (result["n_categories"], result["n_one_token"]) == (4, 4)
    place_of_lens = MetricPlace(metric="logit_lens", llm="small")
    measured = Measured(LongTable([]), ReportSettings(), [(place_of_lens, artifact)])
    (note,) = all_notes(measured)
    assert note.startswith("Logit lens: 4 of 4 object names are one token of small;")
    items = pq.read_table(artifact.file("items.parquet")).to_pylist()
    for row in items:
        image = int(row["image_id"][1:])
        expected = ["grass"] * 9
        if image < N:
            expected[place(image)] = noun(image)
        assert row["words"] == expected


@pytest.mark.parametrize("name", ["embedding_lens", "latent_lens"])
def test_the_nearest_words_are_the_planted_ones(
    made: dict[str, Artifact], tmp_path: Path, name: str
) -> None:
    """A visual token is 100 times the word's embedding: near by its direction, not by a distance or
    a product. What attention adds in the blocks is small beside it."""
    stages = {"embedding_lens": embedding_lens, "latent_lens": latent_lens}
    kinds = {"embedding_lens": EmbeddingLensSettings, "latent_lens": LatentLensSettings}
    index = read_index(made, tmp_path)
    own = kinds[name](ks=(1, 3), max_image_share=0.5, batch_size=5)
    artifact = run({**made, "index": index}, tmp_path, stages[name], own, layers=[0, 1])
    rows = read_rows(artifact)
    assert {row["method"] for row in rows} == {name}
    value = {(row["metric"], row["k"], row["layer"]): row for row in rows if row["of"] is None}
    for layer in (-1, 0, 1):
        named = value["lens_patches_named", 1, layer]
        assert (named["value"], named["n"]) == (pytest.approx(12 / 13), 13)
        assert value["lens_matching_rate", 1, layer]["value"] == pytest.approx(12 / 13)
    # With grass, which is nearest somewhere in all images, only rivals of equal cosine are left.
    (all_words,) = [
        row
        for row in rows
        if (row["metric"], row["of"], row["layer"]) == ("lens_eligible_words", "unmasked", 0)
    ]
    assert all_words["value"] == 1
    items = pq.read_table(artifact.file("items.parquet")).to_pylist()
    assert [row["layer"] for row in items] == [layer for layer in (-1, 0, 1) for _ in range(N + 1)]
    for row in items:
        image = int(row["image_id"][1:])
        expected = ["grass"] * 9
        if image < N:
            expected[place(image)] = noun(image)
            if name == "latent_lens":
                assert row["contexts"][place(image)] == f"the {noun(image)}"
                assert set(row["index_layers"]) <= {0, 1}
        assert row["words"] == expected


@pytest.fixture(scope="module")
def headed(made: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The planted world with answers, and a projector whose head knows each embedding."""
    import torch

    from vista.language.model import LanguageModel
    from vista.projector.module import load_projector, save_projector
    from vista.projector.visual_words import save_head

    root = tmp_path_factory.mktemp("headed")
    model = LanguageModel.load(made["llm"].folder("model"))
    embedding_vd = model.model.get_input_embeddings().weight.detach()
    head = torch.nn.Linear(model.d_model, len(embedding_vd), bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.linalg.pinv(embedding_vd).T)

    def write_projector(work: Path) -> None:
        width = model.d_model
        save_projector(work, load_projector(made["projector"].path, d_vision=width, d_model=width))
        save_head(work, head)

    def write_answers(work: Path) -> None:
        rows = [replace(r, turns=(Turn("the", r.captions[0]),)) for r in records()]
        write_records(work / "records.parquet", rows)

    found: dict[str, Any] = {**made, "model": model}
    for role, write in (("projector", write_projector), ("records", write_answers)):
        with publishing(root, role, "node", Provenance(role, {}, {}, "code", {})) as work:
            assert work is not None
            write(work)
        found[role] = open_artifact(root / role / "node")
    return found


def test_the_head_reads_the_planted_words_of_visual_tokens(
    made: dict[str, Artifact], headed: dict[str, Any], tmp_path: Path
) -> None:
    own = VisualWordsReadoutSettings(ks=(1, 3), max_image_share=0.5, batch_size=5)
    artifact = run(headed, tmp_path, visual_words, own)
    rows = [row for row in read_rows(artifact) if row["of"] is None]
    assert {(row["method"], row["layer"]) for row in rows} == {("visual_words", -1)}
    value = {(row["metric"], row["k"]): row for row in rows}
    assert value["lens_patches_named", 1]["value"] == pytest.approx(12 / 13)
    for row in pq.read_table(artifact.file("items.parquet")).to_pylist()[:N]:
        image = int(row["image_id"][1:])
        assert [p for p, word in enumerate(row["words"]) if word == noun(image)] == [place(image)]
        assert min(row["strengths"]) > 0.999
    with pytest.raises(UserError, match=r"visual_words\.safetensors: not the head"):
        run(made, tmp_path / "none", visual_words, own)


def test_a_pseudo_image_is_the_text_of_the_words_that_the_head_reads(
    headed: dict[str, Any], tmp_path: Path
) -> None:
    """The visual tokens are 100 times the embedding of a word, the pseudo image is that word."""
    import torch

    from vista.language.loss import sample_cross_entropy

    artifact = run(headed, tmp_path, pseudo_images, PseudoImagesSettings(batch_size=5))
    model, table = headed["model"], pq.read_table(artifact.file("items.parquet")).to_pylist()
    shown = read_records(headed["records"].file("records.parquet"))
    for row, record in zip(table[:3], shown, strict=False):
        image = int(row["image_id"][1:])
        words = ["grass"] * 9
        words[place(image)] = noun(image)
        ids = model.tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
        batch = model.batch([record.turns], 9, 512)
        for factor, name in ((1, "words"), (100, "visual")):
            logits = model.forward(
                batch.input_ids,
                batch.attention_mask,
                visual=factor * model.embed(torch.tensor([ids])),
                visual_start=batch.visual_start,
                logits_at=batch.predict_mask,
            ).logits
            nats_b, tokens_b = sample_cross_entropy(logits, batch)
            assert row[f"{name}_sum"] == pytest.approx(float(nats_b.detach()), rel=1e-2), name
            assert row["tokens"] == int(tokens_b)
    columns = {name: sum(row[name] for row in table) for name in table[0] if name != "image_id"}
    figure = {(row["metric"], row["of"]): row for row in read_rows(artifact)}
    words = figure["pseudo_image_cross_entropy", "expected words"]
    assert words["value"] == pytest.approx(columns["words_sum"] / columns["tokens"])
    assert words["chance"] == pytest.approx(columns["other_words_sum"] / columns["tokens"])
    difference = columns["words_sum"] - columns["visual_sum"]
    cost = figure["pseudo_image_cost", None]
    assert cost["value"] == pytest.approx(difference / columns["tokens"])
    assert (cost["n"], cost["chance"]) == (N + 1, None)
    grid = pseudo_images_section(LongTable(())).grids[0]
    assert grid.rows == []


def test_a_readout_does_not_depend_on_its_batches(
    made: dict[str, Artifact], tmp_path: Path
) -> None:
    index = read_index(made, tmp_path)
    by_size = []
    for size in (1, 13):
        own = LatentLensSettings(ks=(1, 3), batch_size=size)
        inputs = {**made, "index": index}
        artifact = run(inputs, tmp_path / str(size), latent_lens, own, layers=[1])
        by_size.append(read_rows(artifact))
    assert by_size[0] == by_size[1]


def test_more_words_than_there_are_vectors_are_refused(
    made: dict[str, Artifact], tmp_path: Path
) -> None:
    index = read_index(made, tmp_path)
    with pytest.raises(UserError, match=r"latent_lens\.ks: 30 words are read of a patch, but only"):
        own = LatentLensSettings(ks=(30,))
        run({**made, "index": index}, tmp_path, latent_lens, own, layers=[0])


def test_words_differ_by_more_than_case_and_spaces() -> None:
    class Tokenizer:
        def batch_decode(self, ids: list[list[int]], skip_special_tokens: bool) -> list[str]:
            return [["", " cat", "Cat", "dog", " "][i] for (i,) in ids]

    words, word_v = vocabulary(Tokenizer(), 5)
    assert words == ["", "cat", "dog"]
    assert word_v.tolist() == [0, 1, 1, 2, 0]


def test_a_word_is_as_likely_as_all_its_tokens() -> None:
    import torch

    words, word_v = ["", "cat", "dog", "sky"], np.array([0, 1, 1, 2, 3])
    # Tokens without a text are likeliest, then "dog"; "cat" has two tokens that add up to more.
    probability_bpv = torch.tensor([[[0.5, 0.15, 0.1, 0.2, 0.05], [0.0, 0.05, 0.05, 0.3, 0.6]]])
    found = logit_lens.likeliest(lambda x: x, probability_bpv.log(), words, word_v, 2)
    assert found.word_bpk.tolist() == [[[1, 2], [3, 2]]]
    np.testing.assert_allclose(found.strength_bpk, [[[0.25, 0.2], [0.6, 0.3]]], rtol=1e-5)
