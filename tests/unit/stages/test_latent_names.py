"""What a judge calls latents of a text encoder, by their top prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from fake_endpoint import Endpoint

from vista.config.diffusion import AttributeSettings
from vista.inputs.judge import stage_namer, write_tally
from vista.inputs.pipeline import Prompts
from vista.judges.kinds.api import Settings as ApiJudgeSettings
from vista.metrics.attribute_discovery.stage import judged_labels


def test_prompts_name_the_latents_that_vary(endpoint: Endpoint, tmp_path: Path) -> None:
    texts = ["a red cat", "a red cow", "a blue cat", "a blue cow", "red", "blue"]
    score_ns = np.array(
        # fires on all; on red, the cow most; on one of train; on test alone
        [[9, 1, 0, 0], [9, 2, 0, 0], [9, 0, 1, 0], [9, 0, 0, 0], [9, 3, 0, 5], [9, 0, 0, 0]],
        np.float32,
    )
    rows = {"train": np.arange(4), "test": np.arange(4, 6)}
    prompts = Prompts(texts, rows, score_ns, sae=None)  # type: ignore[arg-type]
    asked: list[list[str]] = []

    def say(shown: list[str]) -> str:
        asked.append(shown)
        return json.dumps({"name": shown[0].split()[1]}) if len(shown) > 1 else "nothing"

    endpoint.script = [say] * 9
    judge = {"kind": "api", "base_url": endpoint.url, "model": "small", "concurrency": 1}
    settings = AttributeSettings.model_validate({"judge": judge})
    work = tmp_path / ".work" / "attribute_discovery" / "node"
    work.mkdir(parents=True)
    assert isinstance(settings.judge, ApiJudgeSettings)
    namer = stage_namer(settings.judge, None, work)
    labels: Any = judged_labels(namer, settings, prompts)
    write_tally(work, namer)
    assert labels == [None, "red", None, None]
    # The largest variance first, the strongest prompt first; one without an answer is asked twice.
    assert asked == [["a red cow", "a red cat"], ["a blue cat"], ["a blue cat"]]
    tally = json.loads((work / "judge.json").read_text())
    assert (tally["verdicts"], tally["unanswered"]) == (2, 1)
