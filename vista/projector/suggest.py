"""A first guess for a projector's training, from short runs compared on images not trained on."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vista.config.projector import Normalise, TrainingStage
from vista.config.suggest import SuggestSettings
from vista.language.model import LanguageModel
from vista.projector.aggregator import AggregatorShape
from vista.projector.measure import measure
from vista.projector.module import Projector, make_projector
from vista.projector.passes import Losses, TrainingData
from vista.projector.ranks import join_ranks
from vista.projector.train import train_projector
from vista.sae.neutral import SparseAutoencoder

# A projector with a GELU is not quite homogeneous: its scale is found in a few rounds.
_ROUNDS = 5
# What is kept of a run, and its name among what is measured.
_SHOWN = {
    "cross_entropy": "cross_entropy",
    "sae_error": "term",
    "fvu": "fvu",
    "l0": "l0",
    "visual_norm": "visual_norm",
}


@dataclass(frozen=True)
class Trials:
    """Models, data and settings that all runs share.

    Attributes:
        kind: Kind of the projector.
        d_vision: Width of the encoder's features.
        aggregator: Sizes of the projector's aggregator, if it has one.
        train: What the runs learn from.
        held_out: What they are compared on.
        stage: Settings of training; its learning rate and its length are replaced.
    """

    llm: LanguageModel
    saes: Mapping[int, SparseAutoencoder]
    kind: str
    d_vision: int
    train: TrainingData
    held_out: TrainingData
    stage: TrainingStage
    normalise: Normalise
    settings: SuggestSettings
    aggregator: AggregatorShape | None = None

    def fresh(self, init_scale: float) -> Projector:
        """Return a projector before training."""
        module = make_projector(
            self.kind,
            self.d_vision,
            self.llm.d_model,
            self.settings.seed,
            init_scale,
            self.aggregator,
        )
        return module.to(self.llm.device)

    def seen(self, projector: Projector) -> dict[str, float]:
        """Return what the held-out images tell of a projector."""
        ranks = join_ranks(self.llm.device)
        # What fits into memory in training fits here.
        parts = {"micro_batch": self.stage.micro_batch or self.stage.batch_size}
        stage = self.stage.model_copy(update=parts)
        losses = Losses(self.llm, self.saes, self.held_out, stage, self.normalise, ranks)
        return measure(projector, losses, np.arange(len(self.held_out.turns)))

    def trained(self, init_scale: float, lr: float, weight: float) -> dict[str, float | None]:
        """Return what the held-out images tell after a run; null where its loss was not finite."""
        projector = self.fresh(init_scale)
        stage = self.stage.model_copy(update={"lr": lr, "steps": self.settings.steps})
        found: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            try:
                train_projector(
                    projector,
                    self.llm,
                    self.saes if weight else {},
                    self.train,
                    stage,
                    sae_weight=weight,
                    seed=self.settings.seed,
                    checkpoints=Path(folder),
                    normalise=self.normalise,
                )
                found = self.seen(projector)
            except FloatingPointError:
                pass
        return {name: _finite(found.get(measure)) for name, measure in _SHOWN.items()}


def suggest(trials: Trials) -> dict[str, Any]:
    """Return a value, its reason and the runs behind it for `init_scale`, `lr` and `sae_weight`.

    `init_scale` makes visual tokens and text enter block 0 with one root mean square norm. `lr` has
    the lowest held-out cross-entropy after a run without the SAE term; where several first weights
    are tried, `init_scale` is that of the same run. `sae_weight` is the smallest at which the
    held-out FVU is below that of weight 0; without one, null.

    Each run has its settings, `cross_entropy`, `sae_error` (the SAE term, in the unit that training
    has), `fvu`, `l0` and `visual_norm` on the held-out images; those of `init_scale` are projectors
    before training, with the norms of visual tokens and text alone.
    """
    scale = _init_scale(trials)
    scales = sorted(trials.settings.init_scales) or [scale["value"]]
    runs = [
        _run(trials, init_scale, lr, 0.0)
        for init_scale in scales
        for lr in sorted(trials.settings.lrs)
    ]
    ended = [run for run in runs if run["cross_entropy"] is not None]
    best = min(ended, key=lambda run: run["cross_entropy"] or 0.0, default=None)
    if trials.settings.init_scales:
        told = f"visual tokens have the norm of text at {scale['value']:.3g} before training"
        scale |= _of_best(best, "init_scale", scales, trials)
        scale["reason"] += f"; {told}"
    rate = {**_of_best(best, "lr", sorted(trials.settings.lrs), trials), "trials": runs}
    if best is None:
        weight: dict[str, Any] = {"value": None, "reason": "no learning rate trains", "trials": []}
    else:
        weight = _sae_weight(trials, best)
    return {"init_scale": scale, "lr": rate, "sae_weight": weight}


def table(suggestion: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show a suggestion."""
    for name, part in suggestion.items():
        value = "none" if part["value"] is None else f"{part['value']:.3g}"
        yield f"{name:<11}{value:>10}  {part['reason']}"
        for trial in part["trials"]:
            cells = (f"{key} {_shown(number)}" for key, number in trial.items())
            yield f"{'':<11}{'':>10}  - {', '.join(cells)}"


def _init_scale(trials: Trials) -> dict[str, Any]:
    scale, runs = 1.0, []
    for _ in range(_ROUNDS if trials.kind != "linear" else 1):
        projector = trials.fresh(scale)
        found = replace(trials, saes={}).seen(projector)
        runs.append(
            {"init_scale": scale, **{key: found[key] for key in ("visual_norm", "text_norm")}}
        )
        scale *= (found["text_norm"] / found["visual_norm"]) ** (1 / len(projector.linears()))
    first = runs[0]
    reason = (
        f"visual tokens then have the norm of text, {first['text_norm']:.3g}; "
        f"at init_scale 1 it is {first['visual_norm']:.3g}"
    )
    return {"value": scale, "reason": reason, "trials": runs}


def _run(trials: Trials, init_scale: float, lr: float, weight: float) -> dict[str, Any]:
    """Return the settings of a run and what the held-out images tell of it."""
    settings = {"init_scale": init_scale, "lr": lr, "sae_weight": weight}
    return {**settings, **trials.trained(init_scale, lr, weight)}


def _of_best(
    best: Mapping[str, Any] | None, name: str, values: Sequence[float], trials: Trials
) -> dict[str, Any]:
    """Return a setting of the best run of those with some values of it, and the reason."""
    if best is None:
        return {"value": None, "reason": "the loss of every run was not finite"}
    reason = f"lowest cross-entropy on held-out images after {trials.settings.steps} steps"
    if len(values) > 1 and best[name] in (values[0], values[-1]):
        side = "lower" if best[name] == values[0] else "higher"
        reason += f"; it is at the edge of suggest.{name}s: try {side} ones"
    return {"value": best[name], "reason": reason}


def _sae_weight(trials: Trials, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the suggestion for the weight, from runs with the other settings of the run `plain`,
    which has weight 0."""
    init_scale, lr = plain["init_scale"], plain["lr"]
    start = trials.seen(trials.fresh(init_scale))
    equal = start["entropy_gradient"] / start["term_gradient"] if start["term_gradient"] else 0.0
    if not (math.isfinite(equal) and equal > 0):
        return {"value": None, "reason": "a gradient is 0 or not finite", "trials": []}
    weights = trials.settings.weights or [equal * x for x in trials.settings.weight_factors]
    runs = [dict(plain), *(_run(trials, init_scale, lr, weight) for weight in sorted(weights))]
    base = plain["fvu"]
    better = [
        run for run in runs[1:] if base is not None and run["fvu"] is not None and run["fvu"] < base
    ]
    told = f"both terms' gradients have equal norms at {equal:.3g} before training"
    if not better:
        return {
            "value": None,
            "reason": f"no weight lowers the held-out FVU; {told}",
            "trials": runs,
        }
    reason = f"the smallest with a held-out FVU below that of weight 0 ({base:.3g}); {told}"
    return {"value": better[0]["sae_weight"], "reason": reason, "trials": runs}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"
