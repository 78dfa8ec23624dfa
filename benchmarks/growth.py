"""How time, memory and disk of the stages grow: with images (measured) and with the LLM (computed).

    python -m benchmarks.growth [--images 1000 2000 4000]        writes benchmarks/growth.json

Models have the sizes of config/default.yaml and next to no training, of which none of this knows.
Every stage runs as its job does, one after the other, on images of which nothing is cached.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.case import seconds
from vista.engine.artifacts import open_artifact
from vista.engine.forecast.overview import duration, forecast, size
from vista.engine.plan import Plan, load_plan
from vista.engine.stages import stages

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_suffix(".json")
MEASURED = (
    "records",
    "features",
    "latents",
    "reconstruction",
    "matching_rate",
    "localization",
    "report",
)
# From 2B to 9B: the published settings.
PUBLISHED = {"2B": "paper.yaml", "9B": "paper-gemma9b.yaml"}
COMPUTED = ("features", "train_projector", "latents", "caption")


def _time(value: float) -> str:
    if value < 0:  # a line may begin below nothing
        return f"-{_time(-value)}"
    return f"{value:.1f} s" if value < 99.5 else duration(value)


def _size(value: float) -> str:
    return size(value) if value >= 0 else f"-{size(-value)}"


FORMS = {"time": _time, "memory": _size, "disk": _size}
FAR = (10_000, 100_000)


def config_of(images: int) -> dict[str, Any]:
    """Return the default run with one encoder, LLM and layer, hardly trained, on so many images."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "config" / "default.yaml").read_text())
    content["data"]["scenes"] = {"train": 64, "validation": 4, "test": images}
    content["data"]["documents"] = {"train": 400, "heldout": 60}
    encoder, llm = content["encoders"]["dinov2"], content["llms"]["gemma2"]
    encoder["source"]["steps"] = llm["model"]["source"]["steps"] = 20
    llm["saes"] = {"layers": [1], "train": {"steps": 40, "tokens": 8000}}
    content |= {
        "encoders": {"dinov2": encoder},
        "llms": {"gemma2": llm},
        "sweep": [{"sae_weights": [1], "seeds": [0]}],
        "interventions": None,
        "check_sae": dict.fromkeys(("max_fvu", "min_l0", "max_l0", "max_dead_share"))
        | {"tokens": 500},
        "label_latents": {"tokens": 6000},
    }
    content["projector"]["stages"] = [{"steps": 5, "batch_size": 16}]
    mask = {"mask": {"max_image_share": 1.0, "max_label_density": 1.0}}
    content["metrics"] = {"reconstruction": {}, "matching_rate": mask, "localization": mask}
    return content


def run_stages(plan: Plan, folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Run every job of a plan; yield each with its seconds, peak memory, disk and model bytes."""
    for node in plan.nodes.values():
        manifest = folder / plan.results / node.path / "manifest.json"
        command = [
            *(sys.executable, "-m", "vista.cli", node.stage, "--spec", node.spec),
            *("--manifest", str(manifest), "--threads", str(plan.config.threads)),
        ]
        usage: list[Any] = []

        def run(command: Sequence[str] = command, usage: list[Any] = usage) -> None:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"{command[3]} failed")
            usage.append(used)

        spent = seconds(run)
        loaded = [open_artifact(folder / plan.results / each.path) for each in node.parents()]
        yield (
            node.stage,
            {
                "time": spent,
                "memory": 1024 * usage[0].ru_maxrss,
                "disk": _bytes(open_artifact(manifest.parent).checksums),
                "model": sum(_bytes(each.checksums, ".safetensors") for each in loaded),
            },
        )


def _bytes(checksums: Mapping[str, Mapping[str, Any]], suffix: str = "") -> int:
    return sum(each["bytes"] for name, each in checksums.items() if name.endswith(suffix))


def line(images: Sequence[int], values: Sequence[float]) -> dict[str, float]:
    """Return slope (an image), intercept and r2 of the least-squares line."""
    slope, intercept = np.polyfit(images, values, 1)
    rest = np.subtract(values, slope * np.asarray(images) + intercept)
    spread = np.subtract(values, np.mean(values))
    # Values that are all equal lie on their line.
    r2 = 1 - float(rest @ rest) / max(float(spread @ spread), 1e-300)
    return {"slope": float(slope), "intercept": float(intercept), "r2": r2}


def computed(config: str) -> dict[str, dict[str, float]]:
    """Return disk, GPU memory and seconds of stages at a published size, by the forecast."""
    content = yaml.safe_load((ROOT / "config" / config).read_text())
    with tempfile.TemporaryDirectory() as nothing:
        found = forecast(load_plan({**content, "results": nothing}), stages())
    return {
        each.stage: {
            "time": each.seconds.known,
            "memory": each.memory.known,
            "disk": each.disk.known,
        }
        for each in found.stages
        if each.stage in COMPUTED
    }


def growth_section(content: Mapping[str, Any]) -> str:
    """Return the section of RESULTS.md for what growth.json holds."""
    images = content["images"]
    head = [*(f"{n:,}" for n in images), "line (+ per 1,000)", "r2", *(f"{n:,}" for n in FAR)]
    lines = [
        "## How it grows",
        "",
        "Stages with the default's models, one layer, by the number of test images, as jobs with "
        "their start, and a least-squares line through them, carried on to the last two columns. "
        "Memory is the peak of the process, most of it libraries; the model is the weights that a "
        "stage reads.",
        "",
        f"| stage | model | | {' | '.join(head)} |",
        f"|---|--:|---|{'--:|' * len(head)}",
    ]
    for stage, figures in content["stages"].items():
        for name, form in FORMS.items():
            fit = figures[name]["line"]
            cells = [
                *(stage, size(figures["model"]), name),
                *map(form, figures[name]["values"]),
                f"{form(fit['intercept'])} + {form(1000 * fit['slope'])}",
                f"{fit['r2']:.3f}",
                *(form(fit["intercept"] + fit["slope"] * n) for n in FAR),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "From 2B to 9B, by the formulas of `vista plan` at the published settings, all encoders; "
        "memory is a GPU's:",
        "",
        "| stage | | 2B | 9B | 9B / 2B |",
        "|---|---|--:|--:|--:|",
    ]
    small, large = (content["published"][name] for name in PUBLISHED)
    for stage in small:
        for name, form in FORMS.items():
            two, nine = small[stage][name], large[stage][name]
            ratio = f"{nine / two:.2g}" if two else ""
            lines.append(f"| {stage} | {name} | {form(two)} | {form(nine)} | {ratio} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, compute and write benchmarks/growth.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {stage: [] for stage in MEASURED}
    for images in arguments.images:
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            for stage, cost in run_stages(load_plan(config_of(images)), Path(folder)):
                print(images, stage, cost, file=sys.stderr, flush=True)
                if stage in found:
                    found[stage].append(cost)
    stages = {
        stage: {
            "model": costs[-1]["model"],
            **{
                name: {"values": values, "line": line(arguments.images, values)}
                for name in FORMS
                for values in [[each[name] for each in costs]]
            },
        }
        for stage, costs in found.items()
    }
    content = {
        "images": arguments.images,
        "stages": stages,
        "published": {name: computed(config) for name, config in PUBLISHED.items()},
    }
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
