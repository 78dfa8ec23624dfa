"""Stage: measure how well an SAE explains held-out text; fail where a bound is broken."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.sae import CheckSaeSettings
from vista.data.records import read_text
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import SMALL, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import on_text
from vista.engine.job import StageJob, stage
from vista.engine.node import Node


class CheckSaeOrder(Settings):
    """The language model, and the bounds."""

    llm: LanguageSettings
    check: CheckSaeSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """An SAE, the text, and the language model unless its settings name a folder; neither of these
    is read where the stream of the text is cached."""

    sae: Artifact
    text: Artifact
    llm: Artifact | None = None
    cache: Artifact | None = None


@stage(CheckSaeOrder, Inputs)
def run(job: StageJob[CheckSaeOrder, Inputs]) -> None:
    """Read SAE, LLM and text; write result.json (see vista.sae.check.SaeCheck).

    Raises UserError naming SAE, layer and figure where a bound is broken.
    """
    import torch

    from vista.inputs.models import load_llm, load_sae_of_cache, load_text_sae
    from vista.sae.check import enforce_bounds, massive_warning, measure_on, measure_sae

    torch.set_num_threads(job.threads)
    settings, inputs, model = job.settings.check, job.inputs, job.settings.llm
    if inputs.cache is not None:
        sae, cached = load_sae_of_cache(inputs.sae, inputs.cache, "heldout", model.device)
        batches = cached.batches(settings.text, settings.tokens)
        check = measure_on(sae, (batch.stream_nd for batch in batches))
        model_type = cached.model_type
    else:
        texts = read_text(inputs.text.file("text.parquet"), "heldout")
        llm = load_llm(model, inputs.llm)
        check = measure_sae(llm, load_text_sae(inputs.sae, llm), texts, settings)
        model_type = llm.model.config.model_type
    if warning := massive_warning(check):
        print(f"check_sae: {warning}", file=sys.stderr)
    enforce_bounds(check, settings, model_type, key="check_sae")
    text = json.dumps(check.model_dump(), sort_keys=True, indent=1, allow_nan=False)
    (job.work / "result.json").write_text(text + "\n", encoding="utf-8")


def need(node: Node, shapes: Shapes) -> Need:
    """One pass over held-out tokens, encoded and decoded."""
    return on_text(node, shapes, "check", SMALL, decoded=True)
