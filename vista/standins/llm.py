"""Small language models that can read an image, trained on the text corpus of the drawn world.

A document is fields separated by tabs: opening words, one for each patch of an imagined image (this
field may be missing), then question, answer, question, answer, ... A model trained on it learns to
answer from whatever stands between BOS and the question, which is where visual tokens go later.

The models are plain `LlamaForCausalLM` and `Gemma2ForCausalLM` with a word-level tokenizer, so all
that follows takes the code path of real checkpoints. Only their first weights are unusual; see
`initialise`.

Shape suffixes: b document, t token, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vista.config.language import StandinLlm
from vista.errors import UserError
from vista.progress import progress

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
# Question and answer as they stand, each answer closed by EOS.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ ' ' }}"
    "{% endfor %}"
)
# Wavelengths of the rotary positions up to 2 pi x this: documents have some seventy tokens, and the
# usual 10,000 would leave most dimensions of a small head constant over them.
ROPE_THETA = 100.0


def build_tokenizer(texts: Sequence[str]) -> Any:
    """A `PreTrainedTokenizerFast` with one token for each word of `texts`, in alphabetic order."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    lower, split = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words = sorted(
        {
            word
            for line in set(texts)
            for word, _ in split.pre_tokenize_str(lower.normalize_str(line))
        }
    )
    if not words:
        raise UserError("the text corpus has no words; check the file behind `text`")
    vocabulary = {word: i for i, word in enumerate([PAD, BOS, EOS, UNK, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = lower
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    make: Any = PreTrainedTokenizerFast
    fast = make(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def split_document(text: str) -> tuple[str, list[str]]:
    """Opening words ("" if there are none) and the turns "question answer" of one document.

    A text without tabs is one turn.
    """
    fields = text.split("\t")
    if len(fields) == 1:
        return "", fields
    opening = fields.pop(0) if len(fields) % 2 else ""
    return opening, [" ".join(pair) for pair in zip(fields[::2], fields[1::2], strict=True)]


@dataclass(frozen=True)
class Document:
    """Token ids of a document and the weight of the loss on each."""

    ids: list[int]
    weights: list[float]


def encode_documents(tokenizer: Any, texts: Sequence[str], settings: StandinLlm) -> list[Document]:
    """BOS, opening words, then each turn with EOS after it, as `vista.language.prompt` lays out."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    split = [split_document(text) for text in texts]
    flat = [part for opening, turns in split for part in (opening, *turns)]
    tokens = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    documents = []
    for _, turns in split:
        opening = next(tokens)
        ids = [bos, *opening]
        weights = [0.0] + [settings.opening_weight] * len(opening)
        for _ in turns:
            turn = [*next(tokens), eos]
            ids += turn
            weights += [1.0] * len(turn)
        documents.append(Document(ids[: settings.max_length], weights[: settings.max_length]))
    return documents


def build_model(settings: StandinLlm, tokenizer: Any) -> Any:
    """An untrained model of the family, its first weights drawn from `settings.seed` alone."""
    from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": settings.d_model,
        "intermediate_size": settings.d_mlp,
        "num_hidden_layers": settings.n_blocks,
        "num_attention_heads": settings.n_heads,
        "num_key_value_heads": settings.n_heads,
        "head_dim": settings.d_model // settings.n_heads,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if settings.family == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**shared))
    else:
        model = Gemma2ForCausalLM(
            Gemma2Config(
                **shared,
                query_pre_attn_scalar=settings.d_model // settings.n_heads,
                sliding_window=512,
            )
        )
    initialise(model, settings)
    return model


@torch.no_grad()
def initialise(model: Any, settings: StandinLlm) -> None:
    """First weights that let a small model learn to copy words within a minute.

    * Each block's value and output matrices start as an orthogonal matrix and its transpose, so
      attention adds what it looks at, as in trained transformers (mimetic initialisation,
      Trockman and Kolter, 2023, arXiv 2305.09828; there with the sign seen in vision models).
      With the usual small noise, copying a noun was not learnt in the time there is.
    * Token embeddings enter block 0 with unit variance. With the usual 0.02 the blocks drown them,
      and no dictionary can tell nouns apart in the residual stream. The final norm starts small
      instead, so that the tied head begins with even odds.
    * Gemma's norms after attention and MLP start below 1, for the same reason.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    gemma = settings.family == "gemma2"
    # Gemma multiplies embeddings by sqrt(d_model), and its norms scale by 1 + weight.
    scale, one = (settings.d_model**0.5, 1.0) if gemma else (1.0, 0.0)
    for name, weight in model.named_parameters():
        if name.endswith("embed_tokens.weight"):
            weight.normal_(0, 1 / scale, generator=generator)
            weight[model.config.pad_token_id] = 0
        elif name == "model.norm.weight":
            weight.fill_(0.05 * scale - one)
        elif "post_attention_layernorm" in name or "post_feedforward_layernorm" in name:
            weight.fill_(0.3 - one if gemma else 1.0)
        elif weight.ndim == 1:
            weight.fill_(1.0 - one)
        else:
            weight.normal_(0, 0.02, generator=generator)
    for block in model.model.layers:
        square = torch.empty(settings.d_model, settings.d_model)
        nn.init.orthogonal_(square, generator=generator)
        block.self_attn.v_proj.weight.copy_(square)
        block.self_attn.o_proj.weight.copy_(square.T)


@torch.no_grad()
def scale_stream(model: Any, factor: float) -> None:
    """Multiply the residual stream of a stand-in by `factor`, at every layer, in place.

    All that is added to the stream is scaled (embeddings, what attention and MLP write) and the
    final norm makes up for the tied head, so the logits stay as they are. The norms' epsilon is
    not scaled: the stream must stay far above 1e-3.
    """
    gemma = model.config.model_type == "gemma2"
    one = 1.0 if gemma else 0.0  # Gemma's norms scale by 1 + weight
    model.model.embed_tokens.weight.mul_(factor)
    model.model.norm.weight.copy_((model.model.norm.weight + one) / factor - one)
    for block in model.model.layers:
        if gemma:
            for norm in (block.post_attention_layernorm, block.post_feedforward_layernorm):
                norm.weight.copy_((norm.weight + one) * factor - one)
        else:
            block.self_attn.o_proj.weight.mul_(factor)
            block.mlp.down_proj.weight.mul_(factor)


def batches(
    documents: Sequence[Document], batch_size: int, steps: int, seed: int
) -> Iterator[list[Document]]:
    """Batches of documents of similar length, so that little is computed on padding."""
    generator = np.random.default_rng(seed)
    span = batch_size * 8
    step = 0
    while True:
        order = generator.permutation(len(documents))
        for start in range(0, len(order), span):
            near = sorted(order[start : start + span], key=lambda i: len(documents[i].ids))
            groups = [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
            for group in generator.permutation(len(groups)):
                if step == steps:
                    return
                step += 1
                yield [documents[i] for i in groups[group]]


def weighted_loss(model: Any, documents: Sequence[Document], pad: int) -> tuple[Tensor, Tensor]:
    """Sum of weighted nats over the tokens of some documents, and the sum of the weights."""
    t = max(len(document.ids) for document in documents)
    ids_bt = torch.tensor([d.ids + [pad] * (t - len(d.ids)) for d in documents])
    weights_bt = torch.tensor([d.weights + [0.0] * (t - len(d.weights)) for d in documents])
    # No attention mask: padding is on the right, where a causal model does not see it.
    logits_btv = model(input_ids=ids_bt, use_cache=False).logits
    loss_bt = functional.cross_entropy(
        logits_btv[:, :-1].flatten(0, 1), ids_bt[:, 1:].flatten(), reduction="none"
    ).view(len(documents), -1)
    weights_bt = weights_bt[:, 1:]
    return (loss_bt * weights_bt).sum(), weights_bt.sum()


def train_standin_llm(
    settings: StandinLlm,
    texts: Sequence[str],
    out: Path,
    heldout: Sequence[str] = (),
) -> dict[str, list[float]]:
    """Train a stand-in and save model and tokenizer to `out` with `save_pretrained`.

    Args:
        texts: documents to learn from; the vocabulary is theirs.
        heldout: documents for the second column of the curve.

    Returns:
        The learning curve: columns step, train_loss (mean since the last row) and heldout_loss,
        in nats a token, opening words weighted as in training.

    Raises:
        UserError: the corpus is empty.
    """
    from transformers.utils.logging import disable_progress_bar

    tokenizer = build_tokenizer(texts)
    documents = encode_documents(tokenizer, texts, settings)
    judged = encode_documents(tokenizer, heldout, settings)[:256]
    model = build_model(settings, tokenizer).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(settings))
    pad = tokenizer.pad_token_id
    curve: dict[str, list[float]] = {"step": [], "train_loss": [], "heldout_loss": []}
    since: list[float] = []
    every = max(1, settings.steps // 20)
    stream = batches(documents, settings.batch_size, settings.steps, settings.seed)
    for step, batch in enumerate(progress(stream, total=settings.steps, desc="llm", unit="step")):
        total, weight = weighted_loss(model, batch, pad)
        loss = total / weight
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        since.append(loss.item())
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            curve["step"].append(step + 1)
            curve["train_loss"].append(float(np.mean(since)))
            curve["heldout_loss"].append(_mean_loss(model, judged, pad))
            since = []
    disable_progress_bar()  # type: ignore[no-untyped-call]
    scale_stream(model, settings.stream_scale)
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return curve


@torch.no_grad()
def _mean_loss(model: Any, documents: Sequence[Document], pad: int) -> float:
    parts = [weighted_loss(model, documents[i : i + 64], pad) for i in range(0, len(documents), 64)]
    if not parts:
        return float("nan")
    return float(cast(Tensor, sum(p[0] for p in parts)) / cast(Tensor, sum(p[1] for p in parts)))


def _schedule(settings: StandinLlm) -> Any:
    """Factor of the learning rate at each step: a linear rise, then a cosine to 0."""
    rise = max(1, round(settings.warmup * settings.steps))

    def factor(step: int) -> float:
        return (
            min(1.0, (step + 1) / rise) * 0.5 * (1 + float(np.cos(np.pi * step / settings.steps)))
        )

    return factor
