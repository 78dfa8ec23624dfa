"""A made-up run: 3 encoders, 2 LLMs, weights 0 and 1, 2 seeds, all metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.long_table import figures_of
from vista.metrics.figure import Figure
from vista.report.table import LongTable
from vista.report.training_figure import Curve

ENCODERS = ("clip", "dinov2", "siglip")
LLMS = {"gemma": (0, 1, 2), "llama": (0, 1)}
WEIGHTS = (0.0, 1.0)
SEEDS = (0, 1)
POINTLESS: dict[str, Any] = dict.fromkeys(("encoder", "llm", "sae_weight", "seed"))


def row(
    metric: str,
    value: float | None,
    layer: int | None = None,
    token_kind: str = "",
    chance: float | None = None,
    n: int = 400,
    width: float = 0.04,
    **columns: Any,
) -> dict[str, Any]:
    return {
        "metric": metric,
        **columns,
        "layer": layer,
        "token_kind": token_kind,
        "value": value,
        "ci_low": None if value is None else value - width,
        "ci_high": None if value is None else value + width,
        "chance": chance,
        "n": n,
    }


def point_rows(rng: np.random.Generator, layers: tuple[int, ...], weight: float) -> Any:
    gain = 1.0 if weight else 0.35
    recon, match, local = [], [], []
    for layer in (*layers, None):
        if layer is not None:
            for kind in ("image", "text", "control"):
                fvu = (0.1 if weight else 0.7) if kind == "image" else 0.06
                fvu *= 1 + 0.2 * layer + 0.1 * rng.random()
                recon += [
                    row("mse", 4 * fvu, layer, kind, n=14400, width=0.02 * fvu),
                    row("fvu", fvu, layer, kind, chance=1.0, n=14400, width=0.02 * fvu),
                    row("l0", (6 if weight else 18) + rng.random(), layer, kind, n=14400),
                    row("active_share", 0.02, layer, kind, n=14400),
                ]
        rate = 0.1 + gain * (0.4 + 0.1 * rng.random())
        match += [
            row("matching_rate", rate, layer, "image", chance=0.1, k=3),
            row("matching_gain", rate - 0.1, layer, "image", k=3),
            row("matching_ratio", rate / 0.1, layer, "image", k=3),
            row("object_recall", rate * 0.7, layer, "image", chance=0.05, k=3),
        ]
        if layer is not None:
            match.append(row("silent_images", 0.02, layer, "image"))
            match.append(row("eligible_latents", 0.4, layer, "image", n=512))
        hit = 0.3 + 0.3 * gain + 0.1 * rng.random()
        local += [
            row("pointing_game", hit, layer, "image", chance=0.28, n=320),
            row("pointing_gain", hit - 0.28, layer, "image", n=320),
        ]
        for truth in ("box", "mask"):
            local += [
                row("auroc", 0.5 + 0.3 * gain, layer, "image", chance=0.5, n=900, of=truth),
                row("average_precision", 0.5, layer, "image", chance=0.2, n=900, of=truth),
                row("iou_active", 0.3, layer, "image", chance=0.1, n=900, of=truth),
                row("iou_best", 0.4, layer, "image", chance=0.2, n=900, of=truth),
            ]
    caption = [
        row("caption_cross_entropy", 0.5 + 0.015 * weight, None, "text", chance=1.4),
        row("caption_object_recall", 0.7, chance=0.1),
        row("caption_names_object", 0.83, chance=0.02, n=160),
        row("chair_mentions", 0.2, chance=0.9, n=700),
        row("chair_captions", 0.3, chance=0.95),
    ]
    return {
        "reconstruction": recon,
        "matching_rate": match,
        "localization": local,
        "caption": caption,
    }


def made_up_figures() -> list[Figure]:
    rng = np.random.default_rng(0)
    found: list[Figure] = []
    nothing = POINTLESS
    for llm, layers in LLMS.items():
        point = nothing | {"llm": llm}
        named = [row("named_classes", 0.95 - 0.03 * layer, layer, n=64) for layer in layers]
        scores = [
            row("label_auroc", 0.987, layer, of="named_classes", chance=0.5, n=61)
            for layer in layers
        ]
        found += figures_of(point | {"metric": "naming"}, [*named, *scores])
        checks = [
            row(metric, value, layer, "text", n=20000)
            for layer in layers
            for metric, value in (
                ("sae_text_fvu", 0.05),
                ("sae_text_l0", 6.1),
                ("sae_text_dead_share", 0.02),
                ("sae_text_normal_fvu", 0.28),
                ("sae_text_massive_variance", 0.64),
            )
        ]
        found += figures_of(point | {"metric": "check_sae"}, checks)
    for encoder in ENCODERS:
        probe = [row("patch_accuracy", 0.91, chance=0.3, n=14400)]
        found += figures_of(nothing | {"encoder": encoder, "metric": "probe"}, probe)
        for llm, layers in LLMS.items():
            for weight in WEIGHTS:
                for seed in SEEDS:
                    point = {
                        "encoder": encoder,
                        "llm": llm,
                        "sae_weight": weight,
                        "seed": seed,
                    }
                    for stage, rows in point_rows(rng, layers, weight).items():
                        found += figures_of(point | {"metric": stage}, rows)
    return found


@pytest.fixture
def made_up() -> list[Figure]:
    return made_up_figures()


@pytest.fixture(scope="session")
def make_row() -> Callable[..., dict[str, Any]]:
    return row


@pytest.fixture(scope="session")
def table() -> LongTable:
    return LongTable(made_up_figures())


@pytest.fixture(scope="session")
def curves() -> list[Curve]:
    rng = np.random.default_rng(0)
    steps = np.arange(300.0)
    return [
        Curve(
            encoder,
            llm,
            weight,
            seed,
            {
                "step": steps.tolist(),
                "cross_entropy": (0.5 + 2 * np.exp(-steps / 60) + 0.05 * rng.random(300)).tolist(),
                "sae_error": ((0.2 if weight else 1.5) + np.exp(-steps / 40)).tolist(),
            },
        )
        for encoder in ENCODERS
        for llm in LLMS
        for weight in WEIGHTS
        for seed in SEEDS
    ]
