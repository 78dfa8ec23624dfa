"""Splices in random models of two families against passes by hand, and the stage.

By hand: one sample at a time, so without padding, with hooks on the transformers model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from vista.config.language import LanguageSettings, StandinLlm
from vista.data.records import Record, Turn, read_records, write_records
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.inputs.text_control import control_batch
from vista.inputs.visual_tokens import read_visual_tokens
from vista.language.model import LanguageModel
from vista.language.prompt import IGNORED
from vista.metrics.results import read_result
from vista.metrics.spliced_loss import SplicedLossSettings
from vista.metrics.spliced_loss import stage as spliced_loss
from vista.metrics.spliced_loss.measure import KindLosses, kind_figures
from vista.metrics.spliced_loss.splice import (
    Losses,
    Samples,
    mean_streams,
    of_images,
    of_text,
    replaced,
    spliced_losses,
)
from vista.projector.module import make_projector, save_projector
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae
from vista.standins.llm import build_model, build_tokenizer
from vista.store.features import FeatureWriter

D, BLOCKS, N_VISUAL, WIDTH = 32, 3, 4, 8
TURNS = [
    (Turn("describe the scene .", "a red cat at left ."),),
    (Turn("what ?", "a blue dog on the grass at right ."),),
    (Turn("what is at left ?", "sand ."), Turn("what color ?", "yellow")),
]
LINES = [f"{turn.question} {turn.answer}" for turns in TURNS for turn in turns]
# One batch, and the mean over a layer's stream, of which each value is another.
MEANS = {layer: torch.linspace(-1, 2, D) + layer for layer in range(BLOCKS)}


def source(family: Any) -> StandinLlm:
    return StandinLlm(family=family, d_model=D, n_blocks=BLOCKS, n_heads=2, d_mlp=32, seed=1)


@pytest.fixture(scope="module", params=["gemma2", "llama"])
def llm(request: pytest.FixtureRequest) -> LanguageModel:
    tokenizer = build_tokenizer(LINES)
    return LanguageModel(build_model(source(request.param), tokenizer), tokenizer)


def sae(layer: int, kind: str) -> SparseAutoencoder:
    """An SAE of 2 d latents: random, the identity, or one that always answers the mean or zero."""
    config = SaeConfig("standard", D, 2 * D, layer, kind)
    generator = torch.Generator().manual_seed(layer)
    shapes = config.weight_shapes()
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    if kind == "identity":
        # relu(x) - relu(-x) = x, bit for bit.
        eye = torch.eye(D)
        weights |= {"W_enc": torch.cat([eye, -eye], 1), "W_dec": torch.cat([eye, -eye])}
    elif kind == "mean":
        weights["b_dec"] = MEANS[layer]
    elif kind == "random":
        weights = {n: 0.3 * torch.randn(s, generator=generator) for n, s in shapes.items()}
    return SparseAutoencoder(config, weights)


def visual_tokens() -> Tensor:
    return torch.randn(len(TURNS), N_VISUAL, D, generator=torch.Generator().manual_seed(3))


def with_image(llm: LanguageModel) -> Samples:
    return of_images(llm, llm.batch([t[:1] for t in TURNS], N_VISUAL, 64), visual_tokens())


def records(split: str = "test") -> list[Record]:
    return [Record(f"{split}{i}", split, "", 8, 8, turns=turns) for i, turns in enumerate(TURNS)]


def as_text(llm: LanguageModel) -> Samples:
    return of_text(llm, control_batch(llm, records(), 64))


def losses(llm: LanguageModel, samples: Samples, kind: str) -> Losses:
    return spliced_losses(llm, {x: sae(x, kind) for x in range(BLOCKS)}, MEANS, samples)


@torch.no_grad()
def by_hand(
    llm: LanguageModel,
    ids: list[int],
    scored_from: int,
    at: slice,
    visual_pd: Tensor | None = None,
    block: int | None = None,
    change: Callable[[Tensor], Tensor] | None = None,
) -> tuple[float, Tensor]:
    """Nats over the tokens from `scored_from` on, and the stream after `block`, of one sample with
    the stream at positions `at` changed there; by hooks alone."""
    handles, kept = [], []

    def put(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        stream = (args[0] if args else kwargs["hidden_states"]).clone()
        stream[0, at] = visual_pd
        return ((stream, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": stream})

    def after(_: Any, __: Any, output: Any) -> Any:
        stream = output[0] if isinstance(output, tuple) else output
        assert change is not None
        new = stream.clone()
        for t in range(*at.indices(stream.shape[1])):
            new[0, t] = change(stream[0, t])
        kept.append(new)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    blocks = llm.model.model.layers
    if visual_pd is not None:
        handles.append(blocks[0].register_forward_pre_hook(put, with_kwargs=True))
    if block is not None:
        handles.append(blocks[block].register_forward_hook(after))
    try:
        logits = llm.model(input_ids=torch.tensor([ids])).logits[0].double()
    finally:
        for handle in handles:
            handle.remove()
    log_p = logits.log_softmax(-1)
    nats = -sum(float(log_p[t - 1, ids[t]]) for t in range(scored_from, len(ids)))
    return nats, kept[0] if kept else logits


def samples_by_hand(llm: LanguageModel, kind: str) -> list[dict[str, Any]]:
    """Ids of each sample, where its score and its replaced tokens begin and end."""
    tokenizer, bos = llm.tokenizer, llm.tokenizer.bos_token_id

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    found = []
    for i, (turn, *_) in enumerate(TURNS):
        if kind == "image":
            before = [bos, *[tokenizer.pad_token_id] * N_VISUAL, *ids(turn.question)]
            answer = [*ids(turn.answer), tokenizer.eos_token_id]
            found.append(
                {
                    "ids": before + answer,
                    "scored_from": len(before),
                    "at": slice(1, 1 + N_VISUAL),
                    "visual_pd": visual_tokens()[i],
                }
            )
        else:
            text = [bos, *ids(turn.answer)]
            found.append({"ids": text, "scored_from": 2, "at": slice(1, len(text))})
    return found


@pytest.mark.parametrize("kind", ["image", "control"])
def test_splices_are_those_of_hooks_on_the_model(llm: LanguageModel, kind: str) -> None:
    found = losses(llm, {"image": with_image, "control": as_text}[kind](llm), "random")
    samples = samples_by_hand(llm, kind)
    clean = [by_hand(llm, **sample)[0] for sample in samples]
    assert found.clean_b.tolist() == pytest.approx(clean, rel=1e-5)
    assert found.tokens_b.tolist() == [len(s["ids"]) - s["scored_from"] for s in samples]
    assert list(found.layers) == list(range(BLOCKS))
    for layer in range(BLOCKS):
        own = sae(layer, "random")
        changes: dict[str, Callable[[Tensor], Tensor]] = {
            "spliced": lambda x, own=own: own(x[None])[0],  # type: ignore[misc]
            "mean": lambda x, layer=layer: MEANS[layer],  # type: ignore[misc]
            "zero": torch.zeros_like,
        }
        for name, change in changes.items():
            expected = [by_hand(llm, **s, block=layer, change=change)[0] for s in samples]
            assert found.layers[layer][name].tolist() == pytest.approx(expected, rel=1e-5)
            if layer + 1 < BLOCKS:
                # A block too late is another figure.
                late = [by_hand(llm, **s, block=layer + 1, change=change)[0] for s in samples]
                assert late != pytest.approx(expected, rel=2e-5)


@torch.no_grad()
def with_costly_answers(llm: LanguageModel, samples: Samples, layers: range) -> Samples:
    """The samples with the answers that lose most by any ablation: an untrained model may gain by
    one on the given answers."""
    batch = samples.batch

    def log_p(edits: dict[int, Any] | None) -> Tensor:
        logits_btv = llm.forward(
            batch.input_ids,
            batch.attention_mask,
            visual=samples.visual_bpd,
            visual_start=batch.visual_start,
            edits=edits,
        ).logits
        assert logits_btv is not None
        return logits_btv[:, :-1].log_softmax(-1)

    clean = log_p(None)
    lost = [
        clean - log_p({layer: replaced(samples.mask_bt, lambda x, to=to: to)})  # type: ignore[misc]
        for layer in layers
        for to in (MEANS[layer], torch.zeros(D))
    ]
    labels_bt = batch.labels.clone()
    scored_bt = labels_bt[:, 1:] != IGNORED
    labels_bt[:, 1:][scored_bt] = torch.stack(lost).amin(0).argmax(-1)[scored_bt]
    return replace(samples, batch=replace(batch, labels=labels_bt))


@pytest.mark.parametrize("kind", ["image", "control"])
def test_known_saes_recover_all_or_nothing(llm: LanguageModel, kind: str) -> None:
    read = {"image": with_image, "control": as_text}[kind]
    # After the last block visual tokens are read no more.
    useful = range(BLOCKS - 1 if kind == "image" else BLOCKS)
    samples = with_costly_answers(llm, read(llm), useful)
    for of, name in (("identity", "clean"), ("mean", "mean"), ("zero", "zero")):
        found = losses(llm, samples, of)
        columns = {x: {n: b.numpy() for n, b in part.items()} for x, part in found.layers.items()}
        for part in found.layers.values():
            assert torch.equal(part["spliced"], found.clean_b if of == "identity" else part[name])
        shares = kind_figures(
            KindLosses(found.tokens_b.numpy(), found.clean_b.numpy(), columns),
            kind,
            min_ablation_cost=1e-3,
            seed=0,
            resamples=20,
            level=0.9,
        )
        for layer in useful:
            for ablation, recovered in shares.layers[layer].recovered.items():
                assert recovered.undefined is None
                if of in ("identity", ablation):
                    assert recovered.share.value == (1.0 if of == "identity" else 0.0)


@torch.no_grad()
def test_only_visual_tokens_are_changed(llm: LanguageModel) -> None:
    samples = with_image(llm)
    batch, here = samples.batch, slice(1, 1 + N_VISUAL)

    def stream(layer: int, **edits: Any) -> Tensor:
        return llm.forward(
            batch.input_ids,
            batch.attention_mask,
            visual=samples.visual_bpd,
            visual_start=batch.visual_start,
            taps=[layer],
            **edits,
        ).taps[layer]

    for layer in range(BLOCKS):
        before = stream(layer)
        own = sae(layer, "random")
        after = stream(layer, edits={layer: replaced(samples.mask_bt, own)})
        torch.testing.assert_close(after[:, here], own(before[:, here]))
        for rest in (slice(0, 1), slice(1 + N_VISUAL, None)):
            assert torch.equal(after[:, rest], before[:, rest])
        assert not torch.equal(after[:, here], before[:, here])


def test_after_the_last_block_visual_tokens_no_longer_matter(llm: LanguageModel) -> None:
    image, control = (losses(llm, read(llm), "random") for read in (with_image, as_text))
    last = BLOCKS - 1
    for name in ("spliced", "mean", "zero"):
        assert torch.equal(image.layers[last][name], image.clean_b)
        assert not torch.equal(control.layers[last][name], control.clean_b)


def test_samples_of_a_batch_do_not_change_each_other(llm: LanguageModel) -> None:
    for kind in ("image", "control"):
        whole = losses(llm, {"image": with_image, "control": as_text}[kind](llm), "random")
        for i, turns in enumerate(TURNS):
            if kind == "image":
                one = of_images(llm, llm.batch([turns[:1]], N_VISUAL, 64), visual_tokens()[[i]])
            else:
                one = of_text(llm, control_batch(llm, [records()[i]], 64))
            alone = losses(llm, one, "random")
            for layer in range(BLOCKS):
                for name, loss_b in alone.layers[layer].items():
                    assert float(whole.layers[layer][name][i]) == pytest.approx(
                        float(loss_b[0]), rel=1e-5
                    )


@torch.no_grad()
def test_the_mean_is_over_the_masked_tokens_of_all_batches(llm: LanguageModel) -> None:
    text, image = as_text(llm), with_image(llm)
    means = mean_streams(llm, range(BLOCKS), [image, image, text])
    sums, count = torch.zeros(BLOCKS, D), 0
    for kind in ("image", "image", "control"):
        for sample in samples_by_hand(llm, kind):
            for layer in range(BLOCKS):
                _, stream = by_hand(llm, **sample, block=layer, change=lambda x: x)
                sums[layer] += stream[0, sample["at"]].sum(0)
            count += len(range(*sample["at"].indices(len(sample["ids"]))))
    for layer in range(BLOCKS):
        torch.testing.assert_close(means[layer], sums[layer] / count, rtol=1e-4, atol=1e-5)
    empty = Samples(text.batch, torch.zeros_like(text.mask_bt))
    with pytest.raises(ValueError, match="no token"):
        mean_streams(llm, [0], [empty])


def test_the_text_control_scores_no_first_token(llm: LanguageModel) -> None:
    batch = control_batch(llm, [*records(), Record("caption", "test", "", 8, 8, ("a cat",))], 64)
    assert batch.visual_start == 1
    assert batch.attention_mask.sum(1).tolist() == [7, 10, 3, 3]
    assert batch.text_mask.sum(1).tolist() == [6, 9, 2, 2]
    assert torch.bincount(batch.target_sample).tolist() == [5, 8, 1, 1]
    assert batch.targets.tolist() == [
        token for row in batch.input_ids.tolist() for token in row[2:] if token
    ]


# The stage.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("artifacts")
    tokenizer = build_tokenizer(LINES)
    model = build_model(source("llama"), tokenizer)
    silent = Record("silent", "test", "", 8, 8)
    images = [*records("validation"), *records(), silent]

    def write_llm(work: Path) -> None:
        model.save_pretrained(work / "model")
        tokenizer.save_pretrained(work / "model")

    def write_features(work: Path) -> None:
        rng = np.random.default_rng(0)
        ids = [record.image_id for record in images]
        writer = FeatureWriter(work / "features.zarr", ids, (2, 2), WIDTH)
        writer.write_shard(0, rng.normal(size=(len(ids), N_VISUAL, WIDTH)).astype(np.float32))
        writer.close()

    def write_projector(work: Path) -> None:
        projector: Any = make_projector("linear", WIDTH, D, 0)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            projector.layers[0].weight.copy_(20 * torch.randn(D, WIDTH, generator=generator))
        save_projector(work, projector)

    return {
        "llm": publish(root, "train_llm", write_llm),
        "records": publish(
            root, "records", lambda work: write_records(work / "records.parquet", images)
        ),
        "features": publish(root, "features", write_features),
        "projector": publish(root, "train_projector", write_projector),
        "saes": [
            publish(root, f"sae{x}", lambda work, x=x: save_sae(work, sae(x, "random")))  # type: ignore[misc]
            for x in (0, 2)
        ],
    }


def publish(root: Path, stage: str, write: Callable[[Path], Any]) -> Artifact:
    with publishing(root, stage, "node", Provenance(stage, {}, {}, {}, {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "node")


def run(made: dict[str, Any], folder: Path, **changes: Any) -> Artifact:
    llm = LanguageSettings(source=source("llama")).model_dump(mode="json")
    llm["source"] = {"kind": "standin", "family": "llama"}
    own = SplicedLossSettings(**changes).model_dump(mode="json")
    order = {"llm": llm, "spliced_loss": own}
    return publish(
        folder, "spliced_loss", lambda work: spliced_loss.run(Job("n", order, made, work))
    )


def test_the_stage_scores_each_split_with_the_mean_of_the_other(
    made: dict[str, Any], tmp_path: Path
) -> None:
    artifact = run(made, tmp_path / "a")
    items = pq.read_table(artifact.file("items.parquet")).to_pylist()
    # The image without an answer is left out.
    keys = [(row["token_kind"], row["layer"], row["image_id"]) for row in items]
    assert keys == [
        (kind, layer, f"test{i}")
        for kind in ("image", "control")
        for layer in (0, 2)
        for i in range(3)
    ]
    llm = LanguageModel.load(made["llm"].folder("model"))
    table = read_records(made["records"].file("records.parquet"))
    visual = read_visual_tokens(made["projector"], made["features"], table, llm)
    image = spliced_loss.readers(visual, table, 64)["image"]
    with torch.no_grad():
        means = mean_streams(llm, [0, 2], [image(table.rows_of("validation"))])
        saes = {layer: sae(layer, "random") for layer in (0, 2)}
        expected = spliced_losses(llm, saes, means, image(table.rows_of("test")[:3]))
    by_layer = {row["layer"]: [] for row in items}  # type: ignore[var-annotated]
    for row in items[:6]:
        by_layer[row["layer"]].append(row)
    for layer, rows in by_layer.items():
        for name in ("spliced", "mean", "zero"):
            assert [row[f"{name}_sum"] for row in rows] == pytest.approx(
                expected.layers[layer][name].tolist(), rel=1e-5
            )
        assert [row["clean_sum"] for row in rows] == pytest.approx(expected.clean_b.tolist())
    result = read_result(artifact)
    assert (result["mean_split"], result["n_mean_images"]) == ("validation", 3)
    part = result["kinds"][0]
    entropy = part["layers"][0]["mean"]["value"]
    total = sum(row["mean_sum"] for row in by_layer[0])
    assert entropy == pytest.approx(total / sum(row["tokens"] for row in by_layer[0]))
    # After the last block nothing is lost: no share, and the reason.
    last = part["layers"][1]["recovered"]["mean"]
    assert last["share"]["value"] is None
    assert "less than min_ablation_cost" in last["undefined"]


def test_the_size_of_a_batch_changes_no_figure(made: dict[str, Any], tmp_path: Path) -> None:
    tables = [
        pq.read_table(run(made, tmp_path / str(size), batch_size=size).file("items.parquet"))
        for size in (1, 2, 64)
    ]
    for other in tables[:-1]:
        for name in ("clean_sum", "spliced_sum", "mean_sum", "zero_sum"):
            assert other[name].to_pylist() == pytest.approx(tables[-1][name].to_pylist(), rel=1e-5)


def test_splits_without_images_or_answers_are_refused(made: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"spliced_loss\.mean_split 'train': the data has no image"):
        run(made, tmp_path, mean_split="train")
    with pytest.raises(UserError, match=r"spliced_loss\.split 'train': .* reference answer"):
        run(made, tmp_path, split="train")


def test_images_of_the_mean_are_spread_over_their_split() -> None:
    assert spliced_loss.spread_evenly(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert spliced_loss.spread_evenly(np.arange(3), 4).tolist() == [0, 1, 2]
    assert spliced_loss.spread_evenly(np.arange(5), 1).tolist() == [0]
