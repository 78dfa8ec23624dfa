"""Damage of an edit against a forward pass by hand: one sequence at a time, hooks of transformers'
own model, words found by the tokenizer's offsets."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from planted_words import NOUNS, QUESTION, edit, find, read
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vista.data.records import read_records
from vista.interventions.damage import UneditedAnswers, answer_logits, divergence
from vista.interventions.edits import Concept, RowEdit, stream_edits
from vista.interventions.generation import TokenSum, untouched_tokens
from vista.language.model import LanguageModel
from vista.store.features import FeatureReader

D, N_PATCHES = 16, 5
TOUCHED = re.compile(r"(?<!\w)(?:umbrellas?|café)(?!\w)")


def bytes_tokenizer() -> Any:
    """A token a byte: every word has several tokens, an accent has two."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<bos>", "<eos>", *alphabet])}
    whole = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=whole, bos_token="<bos>", eos_token="<eos>")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    tokenizer = bytes_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LanguageModel(LlamaForCausalLM(config), tokenizer)


def ids_of(model: LanguageModel, text: str) -> list[int]:
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def log_probabilities(
    model: LanguageModel,
    visual_pd: Tensor,
    question: list[int],
    answer: list[int],
    added: dict[int, Tensor],
) -> Tensor:
    """[n, v] for each token of the answer: one whole sequence, without a cache. `added` [p, d] is
    added to the visual tokens after each block."""
    before = [model.tokenizer.bos_token_id] + [1] * len(visual_pd) + question
    at = slice(1, 1 + len(visual_pd))

    def write(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        h = (args[0] if args else kwargs["hidden_states"]).clone()
        h[0, at] = visual_pd
        return ((h, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": h})

    def change(more_pd: Tensor) -> Any:
        def hook(_: Any, __: Any, output: Any) -> Any:
            h = (output[0] if isinstance(output, tuple) else output).clone()
            h[0, at] += more_pd
            return (h, *output[1:]) if isinstance(output, tuple) else h

        return hook

    layers = model.model.model.layers
    handles = [layers[0].register_forward_pre_hook(write, with_kwargs=True)]
    handles += [layers[block].register_forward_hook(change(x)) for block, x in added.items()]
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([before + answer])).logits[0]
    for handle in handles:
        handle.remove()
    return logits[len(before) - 1 : -1].double().log_softmax(-1)


ANSWERS = ("a red umbrella at a café", "umbrellas and umbrellastand")


def outside_of_words(model: LanguageModel, text: str) -> list[bool]:
    """Which tokens count, by the offsets that the tokenizer gives for the text."""
    offsets = model.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    spans = [match.span() for match in TOUCHED.finditer(text)]
    return [not any(a < high and b > low for low, high in spans) for a, b in offsets]


@pytest.fixture(scope="module")
def cases(model: LanguageModel) -> dict[str, Any]:
    """Two images, each unedited, without effect, weakly and strongly edited."""
    generator = torch.Generator().manual_seed(1)
    visual_ipd = torch.randn(2, N_PATCHES, D, generator=generator)
    source, target = torch.nn.functional.normalize(torch.randn(2, D, generator=generator), dim=-1)
    patches = [torch.tensor([p in (1, 3 + i) for p in range(N_PATCHES)]) for i in (0, 1)]
    edits: list[RowEdit | None] = []
    added: list[dict[int, Tensor]] = []
    for i in (0, 1):
        for c in (None, 0.0, 0.5, 20.0):
            if c is None:
                edits.append(None)
                added.append({})
                continue
            pair = Concept(source), Concept(target)
            edits.append(RowEdit("remove_add", c, patches[i], *pair, blocks=(0, 2)))
            moved_pd = patches[i][:, None] * c * (target - source)
            added.append({0: moved_pd, 2: moved_pd})
    images = [0] * 4 + [1] * 4
    question = ids_of(model, "what is it?")
    prompt = [0] + [1] * N_PATCHES + question
    reading = model.read(
        torch.tensor([prompt] * len(edits)), visual_ipd[images], stream_edits(edits, 1)
    )
    return {
        "reading": reading,
        "images": images,
        "edits": edits,
        "added": added,
        "visual": visual_ipd,
        "question": question,
        "answers": [ids_of(model, text) for text in ANSWERS],
    }


def damages(model: LanguageModel, cases: dict[str, Any]) -> list[TokenSum]:
    # The answers of edited rows are not read.
    unedited = [edit is None for edit in cases["edits"]]
    answers = [
        cases["answers"][image] if plain else [5]
        for image, plain in zip(cases["images"], unedited, strict=True)
    ]
    touched = [TOUCHED] * len(unedited)
    compared = UneditedAnswers(model.tokenizer)
    return compared.damage(cases["reading"], cases["images"], unedited, answers, touched)


def test_damage_equals_a_forward_pass_by_hand(model: LanguageModel, cases: dict[str, Any]) -> None:
    made = damages(model, cases)
    for row, (image, added) in enumerate(zip(cases["images"], cases["added"], strict=True)):
        ids, visual_pd = cases["answers"][image], cases["visual"][image]
        assert len(ids) == len(ANSWERS[image].encode())
        log_p, log_q = (
            log_probabilities(model, visual_pd, cases["question"], ids, edit)
            for edit in ({}, added)
        )
        kl_n = (log_p.exp() * (log_p - log_q)).sum(-1)
        counts = torch.tensor(outside_of_words(model, ANSWERS[image]))
        assert made[row].tokens == int(counts.sum())
        assert made[row].nats == pytest.approx(float(kl_n[counts].sum()), rel=1e-3, abs=1e-9)
    # By hand: 24 characters and one byte more, less "umbrella" and "café" (five bytes).
    assert [made[row].tokens for row in (0, 4)] == [25 - 8 - 5, len(ANSWERS[1]) - 9]


def test_no_edit_and_a_coefficient_of_0_do_exactly_none(
    model: LanguageModel, cases: dict[str, Any]
) -> None:
    made = [damage.nats for damage in damages(model, cases)]
    for plain, nothing, weak, strong in (made[:4], made[4:]):
        assert plain == nothing == 0.0
        assert 0 < weak < strong


def test_rows_of_a_later_batch_know_their_unedited_row(
    model: LanguageModel, cases: dict[str, Any]
) -> None:
    together = damages(model, cases)
    compared = UneditedAnswers(model.tokenizer)
    rows = []
    prompt = cases["reading"].ids_bt[:1]
    for image, edit_ in zip(cases["images"], cases["edits"], strict=True):
        reading = model.read(prompt, cases["visual"][image][None], stream_edits([edit_], 1))
        answers = [cases["answers"][image]]
        rows += compared.damage(reading, [image], [edit_ is None], answers, [TOUCHED])
    for alone, one in zip(rows, together, strict=True):
        assert alone.tokens == one.tokens
        assert alone.nats == pytest.approx(one.nats, rel=1e-4, abs=1e-9)
    with pytest.raises(KeyError):
        UneditedAnswers(model.tokenizer).damage(reading, [7], [False], [[5]], [TOUCHED])


def test_logits_are_kept_of_one_image_and_damages_are_exact(
    model: LanguageModel, cases: dict[str, Any]
) -> None:
    """In the model's format: as exact as all log-probabilities in float64, as they are computed
    here, at half of the memory, and no more of it for more images."""
    compared = UneditedAnswers(model.tokenizer)
    images, edits, reading = cases["images"], cases["edits"], cases["reading"]
    ids = [cases["answers"][image] for image in images]
    unedited = [edit is None for edit in edits]
    made = compared.damage(reading, images, unedited, ids, [TOUCHED] * len(ids))
    (kept,) = compared._by_image.values()
    assert kept.logits_nv.dtype == reading.logits_bv.dtype == torch.float32
    assert len(kept.logits_nv) == made[-1].tokens
    log_p = [logits_nv.double().log_softmax(-1) for logits_nv in answer_logits(reading, ids)]
    for row, image in enumerate(images):
        plain = log_p[images.index(image)]
        kl_n = (plain.exp() * (plain - log_p[row])).sum(-1)
        counts = torch.tensor(outside_of_words(model, ANSWERS[image]))
        assert made[row].nats == pytest.approx(float(kl_n[counts].sum()), abs=1e-6)
    order = [0, 4, 1]  # Back to the first image after the second.
    with pytest.raises(KeyError):
        for row in order:
            compared.damage(
                model.read(reading.ids_bt[:1], cases["visual"][images[row]][None], None),
                [images[row]],
                [unedited[row]],
                [ids[row]],
                [TOUCHED],
            )


def test_answers_of_all_lengths_and_none(model: LanguageModel, cases: dict[str, Any]) -> None:
    reading = cases["reading"]
    lengths = [3, 0, 1, 7, 0, 2, 1, 1]
    logits = answer_logits(reading, [list(range(5, 5 + n)) for n in lengths])
    assert [len(logits_nv) for logits_nv in logits] == lengths
    assert torch.equal(logits[2][0], reading.logits_bv[2])
    assert [len(none) for none in answer_logits(reading, [[]] * 8)] == [0] * 8
    empty = UneditedAnswers(model.tokenizer)
    assert (
        empty.damage(reading, [0] * 8, [True] + [False] * 7, [[]] * 8, [TOUCHED] * 8)
        == [TokenSum(0.0, 0)] * 8
    )


def test_divergence_by_hand() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.5, 0.25])
    log_p, log_q = torch.tensor(np.stack([p, p])).log(), torch.tensor(np.stack([q, p])).log()
    assert divergence(log_p, log_q + 3).tolist() == pytest.approx([0.5 * np.log(2), 0.0])


def test_words_of_several_tokens_are_left_out_whole(model: LanguageModel) -> None:
    text = "Café au café, umbrellastand"
    kept = untouched_tokens(model.tokenizer, ids_of(model, text), TOUCHED)
    # The pattern is of lower case: the first word stays, the second one goes with both bytes of é.
    left = "".join("x" if keep else "." for keep in kept)
    assert left == "x" * len("Café au ".encode()) + "....." + "x" * len(", umbrellastand")


def test_the_table_holds_the_damage_of_the_unedited_caption(made: dict[str, Any]) -> None:
    found, coefficients = find(made, "latent"), (0.5, 5.0)
    rows, _ = edit(made, found, task="replace", how="remove_add", coefficients=coefficients)
    llm = LanguageModel.load(made["llm"].folder("model"))
    directions = read(found)
    direction_of = dict(
        zip(directions.names, torch.from_numpy(directions.direction_cd), strict=True)
    )
    has = {concept.concept: concept.found for concept in directions.concepts}
    table = read_records(made["records"].file("records.parquet"))
    row_of = {record.image_id: i for i, record in enumerate(table)}
    reader = FeatureReader(made["features"].store("features.zarr"))
    question = llm.prompts([QUESTION], 0)[0][1:]
    plain = {row["image_id"]: row for row in rows if row["variant"] == "none"}
    checked = 0
    for row in rows:
        caption = plain[row["image_id"]]["caption"]
        words = caption.split()
        counts = [word not in (row["source"], row["target"]) for word in words]
        assert row["damage_tokens"] == sum(counts)
        if row["variant"] != "object" or not row["found"]:
            assert row["damage_sum"] == 0 or row["found"]
            continue
        assert has[row["source"]] and has[row["target"]]
        i = row_of[row["image_id"]]
        features_pv = torch.from_numpy(reader.read([i])[0].astype(np.float32))
        number = int(row["image_id"].split("_")[1])
        moved_d = row["coefficient"] * (direction_of[row["target"]] - direction_of[row["source"]])
        moved_pd = torch.zeros_like(features_pv)
        moved_pd[3 * (number % 3) : 3 * (number % 3) + 3] = moved_d
        ids = llm.tokenizer(caption, add_special_tokens=False)["input_ids"]
        log_p, log_q = (
            log_probabilities(llm, features_pv, question, ids, added)
            for added in ({}, {0: moved_pd})
        )
        kl_n = (log_p.exp() * (log_p - log_q)).sum(-1)
        expected = float(kl_n[torch.tensor(counts)].sum())
        assert row["damage_sum"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        checked += 1
    assert checked > 10
    assert set(NOUNS) & {word for row in plain.values() for word in row["caption"].split()}
