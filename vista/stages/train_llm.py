"""Stage: train a small stand-in language model on the text corpus."""

from __future__ import annotations

from vista.config.language import StandinLlm
from vista.data.records import read_text
from vista.engine.artifacts import Job


def run(job: Job) -> None:
    """Read text; write model/ (save_pretrained, with its tokenizer) and curve.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from vista.standins.llm import train_standin_llm

    torch.set_num_threads(job.threads)
    settings = StandinLlm.model_validate(job.settings)
    path = job.input("text").file("text.parquet")
    curve = train_standin_llm(
        settings, read_text(path, "train"), job.work / "model", read_text(path, "heldout")
    )
    pq.write_table(pa.table(curve), job.work / "curve.parquet")
