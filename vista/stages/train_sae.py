"""Stage: train an SAE on one block's residual stream, with sae_lens' own trainer."""

from __future__ import annotations

from vista.config.sae import TrainSaeSettings
from vista.data.records import read_text
from vista.engine.artifacts import Job


def run(job: Job) -> None:
    """Read LLM and text; write sae/ in sae_lens' format, neutral/ and curve.parquet.

    neutral/ is the import of sae/, made here because sae_lens is loaded already.

    Raises UserError where the LLM has no such layer, or there is no text.
    """
    import pyarrow as pa
    import torch

    from vista.sae.convert import from_folder
    from vista.sae.neutral import save_sae
    from vista.sae.train import train_sae
    from vista.stages.loading import load_llm
    from vista.stages.results import write_parquet

    torch.set_num_threads(job.threads)
    settings = TrainSaeSettings.model_validate(job.settings["sae"])
    layer = int(job.settings["layer"])
    texts = read_text(job.input("text").file("text.parquet"), "train")
    llm = load_llm(job)
    curve = train_sae(llm, texts, layer, settings, job.work / "sae")
    neutral = job.work / "neutral"
    neutral.mkdir(exist_ok=True)
    save_sae(neutral, from_folder(job.work / "sae", layer, name=f"layer {layer}"))
    write_parquet(job.work / "curve.parquet", pa.table(curve))
