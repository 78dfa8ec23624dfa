"""Stand-in language models: documents, tokenizer, determinism, and that they learn to read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from vista.config.language import CheckpointLlm, StandinLlm
from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.language.prompt import build_batch
from vista.standins.llm import (
    batches,
    build_model,
    build_tokenizer,
    encode_documents,
    scale_stream,
    split_document,
    train_standin_llm,
)

GROUNDS, NOUNS = ("sand", "grass"), tuple(f"thing{i}" for i in range(10))
QUESTION = "what is here ?"
FAMILIES = ("llama", "gemma2")


def _document(rng: np.random.Generator) -> str:
    """Nine opening words, three of them a noun, and the question for that noun."""
    words = np.full(9, rng.choice(GROUNDS), dtype=object)
    noun = rng.choice(NOUNS)
    words[rng.choice(9, 3, replace=False)] = noun
    return f"{' '.join(words)}\t{QUESTION}\t{noun}"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [_document(rng) for _ in range(800)]


def _settings(family: str, **changes: object) -> StandinLlm:
    small = {"d_model": 32, "n_blocks": 2, "n_heads": 2, "d_mlp": 32, "steps": 300}
    return StandinLlm.model_validate({"family": family, **small, **changes})


def test_a_document_is_opening_words_then_question_and_answer() -> None:
    assert split_document("w1 w2\tq ?\ta b") == ("w1 w2", ["q ? a b"])
    assert split_document("q ?\ta b\tq2 ?\tc") == ("", ["q ? a b", "q2 ? c"])
    assert split_document("plain words") == ("", ["plain words"])


def test_documents_are_laid_out_as_prompts_are(texts: list[str]) -> None:
    """What the model is trained on is what the projector's samples look like, image aside."""
    from vista.data.records import Turn

    tokenizer = build_tokenizer(texts)
    document = encode_documents(tokenizer, texts[:1], _settings("llama"))[0]
    noun = texts[0].split("\t")[-1]
    batch = build_batch(tokenizer, [[Turn(QUESTION, noun)]], n_visual=9, max_length=64)
    assert document.ids[10:] == batch.input_ids[0, 10:].tolist()
    assert document.ids[0] == batch.input_ids[0, 0]
    assert len(document.ids) == batch.input_ids.shape[1]
    assert document.weights == [0.0] + [0.02] * 9 + [1.0] * 6


def test_the_tokenizer_knows_words_whatever_their_case_and_spacing() -> None:
    tokenizer = build_tokenizer(["a red cat .\twhat ?"])
    ids = tokenizer("A red cat.", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "a red cat ."
    assert tokenizer("a red dog")["input_ids"][-1] == tokenizer.unk_token_id
    assert tokenizer("red</s>", add_special_tokens=False)["input_ids"][-1] == tokenizer.eos_token_id
    with pytest.raises(UserError, match="no words"):
        build_tokenizer([])


def test_every_document_comes_once_an_epoch(texts: list[str]) -> None:
    documents = encode_documents(build_tokenizer(texts), texts[:70], _settings("llama"))
    one_epoch = list(batches(documents, 8, 9, seed=1))
    assert sorted(id(d) for batch in one_epoch for d in batch) == sorted(map(id, documents))


@pytest.mark.parametrize("family", FAMILIES)
def test_first_weights_depend_on_the_seed_alone(family: str, texts: list[str]) -> None:
    tokenizer = build_tokenizer(texts)
    torch.manual_seed(1)
    first = build_model(_settings(family), tokenizer).state_dict()
    torch.manual_seed(2)
    second = build_model(_settings(family), tokenizer).state_dict()
    other = build_model(_settings(family, seed=7), tokenizer).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@pytest.mark.parametrize("family", FAMILIES)
def test_words_enter_block_0_with_unit_variance(family: str, texts: list[str]) -> None:
    """Fails with Hugging Face's own first weights, which the blocks drown."""
    tokenizer = build_tokenizer(texts)
    lm = LanguageModel(build_model(_settings(family), tokenizer), tokenizer)
    words = torch.arange(4, len(tokenizer))[None]
    assert 0.8 < float(lm.embed(words).square().mean()) < 1.2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_standin_reads_its_opening_words(
    family: str, texts: list[str], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    heldout = [_document(rng) for _ in range(100)]
    curve = train_standin_llm(_settings(family), texts, tmp_path, heldout)
    assert curve["step"][-1] == 300
    assert curve["heldout_loss"][-1] < 0.5 * curve["heldout_loss"][0]
    lm = LanguageModel.load(tmp_path)
    assert lm.model.config.model_type == family
    shown = [document.split("\t") for document in heldout]
    answers = lm.generate(None, [f"{words} {question}" for words, question, _ in shown], 4)
    named = np.mean([a == noun for a, (_, _, noun) in zip(answers, shown, strict=True)])
    assert named > 0.8
    # The same words as a stream, where the projector will write.
    ids = lm.tokenizer([words for words, _, _ in shown], add_special_tokens=False)["input_ids"]
    visual = lm.embed(torch.tensor([[lm.tokenizer.bos_token_id, *row] for row in ids]))[:, 1:]
    assert lm.generate(visual, [QUESTION] * len(shown), 4) == answers


@pytest.mark.parametrize("family", FAMILIES)
def test_two_trainings_give_the_same_bytes(family: str, texts: list[str], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    digests = []
    for run in ("one", "two"):
        train_standin_llm(_settings(family, steps=5), texts, tmp_path / run, texts[:5])
        files = sorted((tmp_path / run).iterdir())
        digests.append([(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files])
    assert digests[0] == digests[1]
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= {n for n, _ in digests[0]}


def test_settings_refuse_what_cannot_be() -> None:
    with pytest.raises(ValidationError, match="multiple of 2 x n_heads"):
        StandinLlm(family="llama", d_model=30, n_heads=4)
    with pytest.raises(ValidationError, match="either"):
        CheckpointLlm(kind="checkpoint")
    with pytest.raises(ValidationError, match="revision"):
        CheckpointLlm(kind="checkpoint", repo="google/gemma-2-2b-it")


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_scaling_the_stream_scales_every_layer_and_no_logit(family: str, texts: list[str]) -> None:
    tokenizer = build_tokenizer(texts)
    model = build_model(_settings(family), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    llm = LanguageModel(model, tokenizer)
    ids = torch.arange(4, 16)[None]
    layers = tuple(range(llm.n_blocks))
    before = llm.forward(ids, taps=layers)
    scale_stream(model, 0.25)
    after = llm.forward(ids, taps=layers)
    assert before.logits is not None
    assert after.logits is not None
    assert torch.allclose(after.logits, before.logits, atol=1e-3)
    for layer in layers:
        assert torch.allclose(after.taps[layer], 0.25 * before.taps[layer], atol=1e-3)
