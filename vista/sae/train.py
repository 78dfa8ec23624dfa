"""Train an SAE with sae_lens' own trainer: on a language model's residual stream, or any batches.

The activations of some documents are cached once and fed to `sae_lens.SAETrainer` as an iterator,
so that no second model loader, no hub and no logger come into play. The trainer scales activations
to a mean norm of sqrt(d) while it trains (`expected_average_only_in`), which makes one learning
rate fit every layer, and folds the scale into the weights at the end: the saved SAE reads the raw
stream. `vista.sae.vision_train` feeds the same loop with an encoder's patch features.

What is saved is sae_lens' inference format; BatchTopK and its Matryoshka form are saved as
`jumprelu` with the threshold that they learnt (arXiv 2412.06410). Decoder rows have unit norm, so
that the activations of two latents compare.

Shape legend: n token, d width of the residual stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vista.config.sae import SaeRecipe, TrainSaeSettings
from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.progress import progress
from vista.sae.activations import TextBatch, text_activations
from vista.sae.trainers import fit_of

_SCALE_BATCHES = 16  # batches from which the mean norm is estimated
CURVE = ("step", "loss", "mse", "l0", "dead_share")
_CURVE_EVERY = 20


def train_sae(
    llm: LanguageModel,
    texts: Sequence[str],
    layer: int,
    settings: TrainSaeSettings,
    folder: Path,
) -> dict[str, list[float]]:
    """Train an SAE after block `layer` and save it in `folder` as sae_lens does.

    Documents are read in random order until `settings.tokens` text tokens are cached
    ([n, d] float32 in memory). The same texts, settings, seed and thread count give the same bytes.
    Returns the curve: one list for each name in CURVE. Raises UserError where there is no text.
    """
    rng = np.random.default_rng(settings.seed)
    shuffled = [texts[i] for i in rng.permutation(len(texts))]
    batches = text_activations(llm, shuffled, layer, settings.text, settings.tokens)
    return train_on(batches, layer, settings, rng, folder)


def train_on(
    batches: Iterable[TextBatch],
    layer: int,
    settings: TrainSaeSettings,
    rng: np.random.Generator,
    folder: Path,
) -> dict[str, list[float]]:
    """Train an SAE on the tokens of `batches`, which are held in memory; see `train_sae`."""
    stream_nd, ids_n = _hold(batches, settings.tokens)
    if not torch.isfinite(stream_nd).all():
        raise UserError(
            f"the residual stream after block {layer} holds NaN or infinity; load the language "
            "model with dtype float32 or bfloat16"
        )
    new = NewSae(
        settings.architecture,
        stream_nd.shape[1],
        settings.d_sae,
        name=f"SAE at layer {layer}",
        options=sparsity_options(settings.architecture, settings),
        metadata={
            "hook_name": f"blocks.{layer}.hook_resid_post",
            "hf_hook_name": f"model.layers.{layer}",
            "prepend_bos": True,
            "context_size": settings.text.max_length,
        },
    )
    size = settings.batch_tokens
    drawn = balanced_batches(stream_nd, ids_n, settings.token_balance, size, rng)
    return fit_sae(new, drawn, size, settings, rng, folder, str(stream_nd.device))


def _hold(batches: Iterable[TextBatch], tokens: int) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """Residual stream [n, d] and ids [n] of the first `tokens` tokens."""
    read = list(progress(batches, desc="activations", unit="batch"))
    # Back in the order of the documents, which are read sorted by length.
    places_n = np.sort(np.concatenate([batch.place_n for batch in read]))[:tokens]
    stream_nd = read[0].stream_nd.new_empty(len(places_n), read[0].stream_nd.shape[1])
    ids_n = np.empty(len(places_n), dtype=np.int64)
    while read:
        batch = read.pop()
        batch = batch.rows(torch.from_numpy(batch.place_n <= places_n[-1]))
        at_n = np.searchsorted(places_n, batch.place_n)
        stream_nd[torch.from_numpy(at_n)] = batch.stream_nd
        ids_n[at_n] = batch.ids_n
    return stream_nd, ids_n


def balanced_batches(
    stream_nd: torch.Tensor,
    ids_n: np.ndarray[Any, Any],
    balance: float,
    size: int,
    rng: np.random.Generator,
) -> Iterator[torch.Tensor]:
    """Endless batches [size, d], drawn with replacement, an id of count c in proportion to
    c**balance.

    A choice of data, not of objective: in text made of patch words, grounds and function words
    outnumber each noun many times, and a dictionary of few hundred latents would go to them.
    """
    _, inverse_n, count = np.unique(ids_n, return_inverse=True, return_counts=True)
    weight_n = np.power(count.astype(np.float64), balance - 1.0)[inverse_n]
    cumulative_n = np.cumsum(weight_n)
    while True:
        drawn = np.searchsorted(cumulative_n, rng.random(size) * cumulative_n[-1], side="right")
        yield stream_nd[torch.from_numpy(np.minimum(drawn, len(ids_n) - 1))]


@dataclass(frozen=True)
class NewSae:
    """An SAE to be trained: sae_lens' name of the architecture, sizes, what else its config takes.

    `metadata` is saved with it by sae_lens; `name` is the title of the progress bar.
    """

    architecture: str
    d_in: int
    d_sae: int
    name: str
    options: Mapping[str, Any]
    metadata: Mapping[str, Any]


def sparsity_options(architecture: str, recipe: SaeRecipe) -> dict[str, Any]:
    """The part of sae_lens' config that says how sparse a jumprelu or a topk SAE gets."""
    if architecture == "jumprelu":
        return {
            "jumprelu_sparsity_loss_mode": "quadratic",  # holds L0 at a target, as Gemma Scope 2
            "target_l0": recipe.k,
            "l0_coefficient": recipe.l0_weight,
            "l0_warm_up_steps": int(recipe.l0_warmup * recipe.steps),
            "jumprelu_bandwidth": recipe.bandwidth,
            "jumprelu_init_threshold": recipe.bandwidth,
        }
    return {"k": recipe.k, "aux_loss_coefficient": recipe.aux_loss}


def fit_sae(
    new: NewSae,
    batches: Iterator[torch.Tensor],
    batch_size: int,
    recipe: SaeRecipe,
    rng: np.random.Generator,
    folder: Path,
    device: str = "cpu",
) -> dict[str, list[float]]:
    """Train `new` on endless `batches` [batch_size, d] on `device`, save it in `folder`.

    The seed of the weights is drawn from `rng` before the first batch is asked for. Returns the
    curve: one list for each name in CURVE. An architecture of `vista.sae.trainers` is fitted there.
    """
    if (fit := fit_of(new.architecture)) is not None:
        return fit(new, batches, batch_size, recipe, rng, folder, device)
    from sae_lens import SAETrainer
    from sae_lens.config import SAETrainerConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        sae = _new_sae(new, device)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=recipe.steps * batch_size,
            train_batch_size_samples=batch_size,
            lr=recipe.lr,
            lr_end=recipe.lr,  # constant between warm-up and decay
            lr_warm_up_steps=int(recipe.warmup * recipe.steps),
            lr_decay_steps=int(recipe.decay * recipe.steps),
            device=device,
            dead_feature_window=recipe.dead_window,
            feature_sampling_window=recipe.steps + 1,  # one window: its statistics are saved
        ),
        sae,
        batches,
    )
    scaler = trainer.activation_scaler
    scaler.scaling_factor = _scale(batches, new.d_in)
    # Starting from the mean spares b_dec the way there: hundreds of steps at Adam's step size.
    sae.b_dec.data.copy_(mean_token(batches) * scaler.scaling_factor)
    if recipe.data_init:
        _init_from_data(sae, batches, scaler.scaling_factor)
    curve = new_curve()
    # The steps of SAETrainer.fit through its public methods, without its own progress bar.
    for step in progress(range(recipe.steps), desc=new.name, unit="step"):
        output = trainer.step(next(batches))
        trainer.n_training_steps += 1
        if step % _CURVE_EVERY == 0 or step == recipe.steps - 1:
            _record(curve, step, output, trainer)
    sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    scaler.scaling_factor = None
    trainer.set_final_sae_metadata()
    if new.architecture in ("standard", "jumprelu"):  # the topk family does it as it saves
        sae.fold_W_dec_norm()
    save_sorted(sae.save_inference_model, folder)
    return curve


def new_curve() -> dict[str, list[float]]:
    """Return an empty curve."""
    return {name: [] for name in CURVE}


def save_sorted(save: Callable[[Path], tuple[Path, Path]], folder: Path) -> None:
    """Save an SAE with a method of sae_lens, the same bytes every time.

    sae_lens walks a set of field names, so its key order changes from process to process.
    """
    _, cfg_path = save(folder)
    cfg = json.loads(cfg_path.read_text(encoding="utf-8"))
    cfg_path.write_text(json.dumps(cfg, sort_keys=True, indent=1) + "\n", encoding="utf-8")


def _new_sae(new: NewSae, device: str) -> Any:
    """A training SAE of sae_lens with random weights from torch's current seed."""
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = get_sae_training_class(new.architecture)
    config = config_class(
        d_in=new.d_in,
        d_sae=new.d_sae,
        device=device,
        normalize_activations="expected_average_only_in",
        metadata=SAEMetadata(**new.metadata),
        **new.options,
    )
    return sae_class(config)


def _scale(batches: Iterator[torch.Tensor], d_in: int) -> float:
    norms = [float(next(batches).norm(dim=-1).mean()) for _ in range(_SCALE_BATCHES)]
    return float(d_in**0.5 / np.mean(norms))


def mean_token(batches: Iterator[torch.Tensor]) -> torch.Tensor:
    """Return the mean token [d] of some batches."""
    return torch.stack([next(batches).mean(dim=0) for _ in range(_SCALE_BATCHES)]).mean(dim=0)


def _init_from_data(sae: Any, batches: Iterator[torch.Tensor], scale: float) -> None:
    """Point each latent at a token of the (balanced) data: fewer dead latents, fewer steps."""
    rows: list[torch.Tensor] = []
    while sum(map(len, rows)) < sae.cfg.d_sae:
        rows.append(next(batches))
    direction_sd = torch.cat(rows)[: sae.cfg.d_sae] * scale - sae.b_dec.data
    direction_sd /= direction_sd.norm(dim=1, keepdim=True).clamp_min(1e-8)
    sae.W_dec.data.copy_(direction_sd * sae.W_dec.data.norm(dim=1, keepdim=True))
    sae.W_enc.data.copy_(sae.W_dec.data.T)


def _record(curve: dict[str, list[float]], step: int, output: Any, trainer: Any) -> None:
    row = (
        step,
        output.loss.item(),
        output.losses["mse_loss"].item(),
        output.feature_acts.bool().float().sum(-1).mean().item(),
        trainer.dead_neurons.float().mean().item(),
    )
    for name, value in zip(CURVE, row, strict=True):
        curve[name].append(value)
