"""Stage: name each latent of an SAE by the text that it fires on."""

from __future__ import annotations

from vista.config.sae import LabelSettings
from vista.data.records import read_text
from vista.engine.artifacts import Job


def run(job: Job) -> None:
    """Read SAE, LLM and text; write labels.parquet (see vista.sae.label_table)."""
    import torch

    from vista.sae.label_table import FILE, write_labels
    from vista.sae.labels import label_latents
    from vista.stages.loading import load_llm, load_one_sae

    torch.set_num_threads(job.threads)
    settings = LabelSettings.model_validate(job.settings["labels"])
    texts = read_text(job.input("text").file("text.parquet"), "train")
    llm = load_llm(job)
    write_labels(job.work / FILE, label_latents(llm, load_one_sae(job, llm), texts, settings))
