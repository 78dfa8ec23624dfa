"""Stage: how well an SAE holds held-out text. Fails the run where it is out of bounds."""

from __future__ import annotations

import json

from vista.config.sae import CheckSaeSettings
from vista.data.records import read_text
from vista.engine.artifacts import Job


def run(job: Job) -> None:
    """Read SAE, LLM and text; write result.json (see vista.sae.check.SaeCheck).

    Raises UserError naming SAE, layer and figure where a bound is broken.
    """
    import torch

    from vista.sae.check import enforce_bounds, measure_sae
    from vista.stages.loading import load_llm, load_one_sae

    torch.set_num_threads(job.threads)
    settings = CheckSaeSettings.model_validate(job.settings["check"])
    texts = read_text(job.input("text").file("text.parquet"), "heldout")
    llm = load_llm(job)
    check = measure_sae(llm, load_one_sae(job, llm), texts, settings)
    enforce_bounds(check, settings, llm.model.config.model_type, key="check_sae")
    text = json.dumps(check.model_dump(), sort_keys=True, indent=1, allow_nan=False)
    (job.work / "result.json").write_text(text + "\n", encoding="utf-8")
