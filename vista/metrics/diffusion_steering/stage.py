"""Stage: steer a text-to-image pipeline through latents of its text encoder's SAE.

The latent of a target value is that of the largest AUROC on the prompts of validation. The
coefficients of latent and controls are chosen on the first of these prompts; figures are measured
on the first prompts of test. An edited image has the noise of its unedited image.

Legend: n prompt, s latent, c target, b image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.config.diffusion import SteeringSettings
from vista.diffusion.attributes import frequent_values, value_in
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.pipeline import (
    Judge,
    PipelineInputs,
    PipelineOrder,
    Prompts,
    mean_norm,
    open_pipeline,
    read_prompts,
)
from vista.metrics.diffusion_steering.bench import Bench, Target, Task
from vista.metrics.diffusion_steering.measure import (
    LATENT,
    PROMPT,
    RANDOM,
    RANDOM_LATENT,
    Steered,
    choose_coefficient,
    most_selective,
    readable_attributes,
    shares,
    steering,
)
from vista.metrics.diffusion_steering.pictures import save_grid
from vista.metrics.results import write_parquet, write_result
from vista.sae.label_table import FILE, read_labels

# Targets of an attribute that are pictured, and prompts that a value is ablated from.
PICTURED = 3
ABLATED = 4


class DiffusionSteeringOrder(PipelineOrder):
    """The pipeline with its SAE, and what is steered."""

    steering: SteeringSettings


@stage(DiffusionSteeringOrder, PipelineInputs)
def run(job: StageJob[DiffusionSteeringOrder, PipelineInputs]) -> None:
    """Read pipeline, prompts, SAE, labels, and the features that probes learn from; write the
    result, items.parquet (a row an edited image), targets.parquet and grids/ATTRIBUTE.png.

    Raises UserError where no prompt names a value of an attribute, or all name one.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, order, inputs = job.settings.steering, job.settings, job.inputs
    pipeline = open_pipeline(inputs.pipeline, order.pipeline, order.layer)
    prompts, judge = read_prompts(inputs.prompts, inputs.sae), Judge(order, inputs)
    targets = list(_targets(settings, prompts, judge))
    bench = Bench(pipeline, prompts, judge, settings.seed)
    tried_rows = _rows_to_steer(bench, targets, "validation", settings.development)
    unit = mean_norm(pipeline, prompts.of("validation")[: settings.development])
    lengths = [unit * coefficient for coefficient in settings.coefficients]
    tried = bench.measure(
        [
            *_added(bench, targets, tried_rows, lambda *_: lengths),
            *_reworded(tried_rows),
        ]
    )
    bootstrap = settings.bootstrap
    readable = readable_attributes(shares(bench.adherence(), bootstrap.level))
    chosen = {
        (target, method): choose_coefficient(
            [steered for steered in tried if _is(steered, target, method)],
            readable,
            settings.max_drift,
        )
        for target in targets
        for method in (LATENT, RANDOM, RANDOM_LATENT)
    }
    rows = _rows_to_steer(bench, targets, "test", settings.test)
    tested = bench.measure(
        [
            *_added(bench, targets, rows, lambda *pair: [chosen[pair]]),
            *_reworded(rows),
            *_ablated(bench, targets),
        ]
    )
    auroc: dict[str, list[float]] = {}
    for target in targets:
        auroc.setdefault(target.attribute, []).append(target.auroc)
    result = steering(
        tested,
        judge.accuracy,
        bench.adherence(),
        auroc,
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    write_result(job.work, result, _items({"validation": tried, "test": tested}, prompts, unit))
    labels = read_labels(inputs.labels.file(FILE)).label_s
    _write_targets(job.work, labels, targets, chosen, unit)
    _write_grids(job.work, bench, targets, tried, unit)


def _targets(settings: SteeringSettings, prompts: Prompts, judge: Judge) -> Iterator[Target]:
    from vista.diffusion.edits import random_direction

    texts, score_ns = prompts.of("validation"), prompts.score_ns[prompts.rows["validation"]]
    alive = np.flatnonzero(score_ns.max(axis=0) > 0)
    norm_s = prompts.sae.W_dec.detach().norm(dim=1).numpy()
    for a, attribute in enumerate(settings.attributes):
        known_values = judge.attributes[attribute]
        values = frequent_values(texts, known_values, settings.targets)
        if not values:
            raise UserError(
                f"probing.diffusion.attributes.{attribute}: no prompt of validation has any of "
                "its words; correct them, or give other prompts"
            )
        value_n = np.array([value_in(text, known_values) or "" for text in texts])
        positive_nc = value_n[:, None] == np.array(values)
        if positive_nc.all(axis=0).any():
            raise UserError(
                f"probing.diffusion.attributes.{attribute}: every prompt of validation tells "
                f"{values[0]!r}; give other prompts"
            )
        latent_c, auroc_c = most_selective(score_ns, positive_nc, norm_s)
        for c, value in enumerate(values):
            rng = np.random.default_rng([settings.seed, a, c])
            latent = int(latent_c[c])
            direction_d = random_direction(prompts.sae.config.d_in, rng)
            other = int(rng.choice(alive[alive != latent]))
            yield Target(attribute, value, latent, float(auroc_c[c]), other, direction_d)


def _added(
    bench: Bench,
    targets: Sequence[Target],
    rows: Mapping[Target, NDArray[np.int64]],
    lengths: Callable[[Target, str], Sequence[float]],
) -> Iterator[Task]:
    """Yield the tasks that add the target's latent, or a control, to prompts of another value."""
    from vista.diffusion.edits import add_direction

    sae = bench.prompts.sae
    for target in targets:
        directions = {
            LATENT: sae.decoder_row(target.latent).detach(),
            RANDOM: target.direction,
            RANDOM_LATENT: sae.decoder_row(target.random_latent).detach(),
        }
        for method, direction_d in directions.items():
            for length in lengths(target, method):
                edit = add_direction(direction_d, length)
                yield Task("add", target, method, length, rows[target], edit)


def _reworded(rows: Mapping[Target, NDArray[np.int64]]) -> Iterator[Task]:
    for target, target_rows in rows.items():
        yield Task("add", target, PROMPT, 0.0, target_rows, None)


def _ablated(bench: Bench, targets: Sequence[Target]) -> Iterator[Task]:
    """Yield the tasks that ablate the target's latent, or a control, in test prompts that name the
    value."""
    from vista.diffusion.edits import ablate_latent

    sae, test_rows = bench.prompts.sae, bench.prompts.rows["test"].tolist()
    for target in targets:
        naming = [row for row in test_rows if bench.value(row, target.attribute) == target.value]
        rows = np.array(naming[:ABLATED], dtype=np.int64)
        edits = {
            LATENT: ablate_latent(sae, target.latent),
            RANDOM: ablate_latent(sae, target.latent, target.direction),
            RANDOM_LATENT: ablate_latent(sae, target.random_latent),
            PROMPT: None,
        }
        for method, edit in edits.items():
            yield Task("ablate", target, method, 0.0, rows, edit)


def _rows_to_steer(
    bench: Bench, targets: Sequence[Target], split: str, most: int
) -> dict[Target, NDArray[np.int64]]:
    """Return for each target the first prompts of a split that name another value of its
    attribute."""
    rows_of = {}
    for target in targets:
        excluded = (None, target.value)
        rows = (
            row
            for row in bench.prompts.rows[split].tolist()
            if bench.value(row, target.attribute) not in excluded
        )
        rows_of[target] = np.fromiter(islice(rows, most), np.int64)
        if not len(rows_of[target]):
            raise UserError(
                f"probing.diffusion.attributes.{target.attribute}: no prompt of {split} tells a "
                f"value other than {target.value!r}; give more prompts"
            )
    return rows_of


def _is(steered: Steered, target: Target, method: str) -> bool:
    return (steered.attribute, steered.target, steered.method) == (
        target.attribute,
        target.value,
        method,
    )


def _items(
    by_split: dict[str, Sequence[Steered]], prompts: Prompts, unit: float
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for split, edits in by_split.items():
        for steered in edits:
            for b, row in enumerate(steered.prompt_b.tolist()):
                item = {
                    "split": split,
                    "kind": steered.kind,
                    "attribute": steered.attribute,
                    "target": steered.target,
                    "method": steered.method,
                    "coefficient": steered.coefficient / unit,
                    "prompt": prompts.text[row],
                    **{
                        f"before_{name}": str(value_b[b])
                        for name, value_b in steered.before.items()
                    },
                    **{f"after_{name}": str(value_b[b]) for name, value_b in steered.after.items()},
                }
                for name, value in item.items():
                    columns.setdefault(name, []).append(value)
    return columns


def _write_targets(
    work: Path,
    labels: Sequence[str | None],
    targets: Sequence[Target],
    chosen: Mapping[tuple[Target, str], float],
    unit: float,
) -> None:
    import pyarrow as pa

    rows = [
        {
            "attribute": target.attribute,
            "target": target.value,
            "latent": target.latent,
            "label": labels[target.latent],
            "auroc": target.auroc,
            "random_latent": target.random_latent,
            **{
                f"coefficient_{method}": chosen[target, method] / unit
                for method in (LATENT, RANDOM, RANDOM_LATENT)
            },
        }
        for target in targets
    ]
    write_parquet(work / "targets.parquet", pa.Table.from_pylist(rows))


def _write_grids(
    work: Path, bench: Bench, targets: Sequence[Target], tried: Sequence[Steered], unit: float
) -> None:
    """Draw images of one development prompt by coefficient, for each attribute's first targets."""
    lengths = sorted({steered.coefficient for steered in tried if steered.method == LATENT})
    columns = ["unedited", *(f"{length / unit:g}" for length in lengths), "prompt edited"]
    (work / "grids").mkdir()
    for attribute in dict.fromkeys(target.attribute for target in targets):
        rows = []
        pictured = [target for target in targets if target.attribute == attribute][:PICTURED]
        for target in pictured:
            steered = next(steered for steered in tried if _is(steered, target, LATENT))
            row = int(steered.prompt_b[0])
            for method in (LATENT, RANDOM, RANDOM_LATENT):
                images = [
                    bench.images[attribute, target.value, method, length, row] for length in lengths
                ]
                reworded = bench.images[attribute, target.value, PROMPT, 0.0, row]
                name = f"{target.value}: {method.replace('_', ' ')}"
                rows.append((name, [bench.plain(row), *images, reworded]))
        save_grid(work / "grids" / f"{attribute}.png", rows, columns)
