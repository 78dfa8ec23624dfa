"""Stage: write the text encoder's residual stream of prompts in the format of image features.

A prompt takes the place of an image and a word's token that of a patch, so that the stages that
train, check and label vision SAEs read it unchanged. Begin, end and padding tokens are left out, as
edits do not change them; shorter prompts are repeated up to the length of the longest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vista.config.base import Settings
from vista.config.data import SPLITS
from vista.config.diffusion import PromptSettings
from vista.config.encoders import EncoderSettings
from vista.config.pipeline import PipelineSettings
from vista.data.records import Box, Object, Record, read_records, write_records
from vista.diffusion.attributes import in_templates, words_of
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import SMALL, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.inputs.pipeline import open_pipeline
from vista.store.features import FeatureWriter

if TYPE_CHECKING:
    from torch import Tensor

    from vista.diffusion.pipeline import TextToImage


class PromptFeaturesOrder(Settings):
    """The text encoder and its block, the pipeline that it is of, and the prompts."""

    encoder: EncoderSettings
    pipeline: PipelineSettings
    prompts: PromptSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Records whose captions are the prompts, and the pipeline unless it is in a folder."""

    records: Artifact
    pipeline: Artifact | None = None


@stage(PromptFeaturesOrder, Inputs)
def run(job: StageJob[PromptFeaturesOrder, Inputs]) -> None:
    """Read the pipeline, and records or a text file; write features.zarr, geometry.json and
    records.parquet, where the words of a prompt, by which latents are named, are its objects.

    Raises UserError where a split has no prompt.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings, order, inputs = job.settings.prompts, job.settings, job.inputs
    pipeline = open_pipeline(inputs.pipeline, order.pipeline, order.encoder.layer)
    prompts = _prompts(inputs.records, settings)
    for split, texts in prompts.items():
        if not texts:
            source = settings.file or "the captions"
            raise UserError(f"probing.diffusion.prompts: {source} hold none for split {split!r}")
    records = prompt_records(prompts, settings.max_word_share)
    texts = [record.captions[0] for record in records]
    batch = order.pipeline.batch_size
    longest = max(
        int(pipeline.words(texts[i : i + batch]).sum(dim=1).max())
        for i in range(0, len(texts), batch)
    )
    writer = FeatureWriter(
        job.work / "features.zarr",
        [record.image_id for record in records],
        grid=(1, longest),
        d_vision=pipeline.width,
    )
    for shard in sorted(set(range(writer.shards)) - writer.done_shards()):
        rows = writer.shard_images(shard)
        parts = [
            np.resize(x_td[words_t].numpy(), (longest, pipeline.width))
            for i in range(rows.start, rows.stop, batch)
            for x_td, words_t in _streams(pipeline, texts[i : min(i + batch, rows.stop)])
        ]
        writer.write_shard(shard, np.stack(parts))
    writer.close()
    write_records(job.work / "records.parquet", records)
    geometry = {"fit": "pad", "patch": 1, "size": 1}
    (job.work / "geometry.json").write_text(json.dumps(geometry, sort_keys=True) + "\n")


def _streams(pipeline: TextToImage, texts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """The stream [t, d] of each prompt, and which of its tokens are words."""
    return zip(pipeline.stream(texts), pipeline.words(texts), strict=True)


def _prompts(records: Artifact, settings: PromptSettings) -> dict[str, list[str]]:
    """The distinct prompts of each split; a prompt of an earlier split is in no later one."""
    if settings.file is not None:
        path = Path(settings.file)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"probing.diffusion.prompts.file: {path}: {error}") from error
        every = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        stops = np.cumsum(settings.split_sizes).tolist()
        starts = [0, *stops[:-1]]
        parts = [every[a:b] for a, b in zip(starts, stops, strict=True)]
        return dict(zip(SPLITS, parts, strict=True))
    table = read_records(records.file("records.parquet"))
    prompts: dict[str, list[str]] = {}
    used: set[str] = set()
    for split, size in zip(SPLITS, settings.split_sizes, strict=True):
        captions = [r.captions[0] for r in table.select(table.rows_of(split)) if r.captions]
        texts = in_templates(captions, settings.templates, split)
        prompts[split] = [text for text in dict.fromkeys(texts) if text not in used][:size]
        used.update(prompts[split])
    return prompts


def prompt_records(prompts: Mapping[str, Sequence[str]], max_word_share: float) -> list[Record]:
    """A record of each prompt, with its words as objects, except words that most prompts have."""
    every = [text for texts in prompts.values() for text in texts]
    counts = Counter(word for text in every for word in set(words_of(text)))
    common = {word for word, count in counts.items() if count > max_word_share * len(every)}
    records = []
    for split, texts in prompts.items():
        for number, text in enumerate(texts):
            words = [word for word in dict.fromkeys(words_of(text)) if word not in common]
            objects = tuple(Object(word, Box(0, 0, 1, 1)) for word in words)
            name = f"{split}_{number:06d}"
            records.append(Record(name, split, name, 1, 1, captions=(text,), objects=objects))
    return records


def need(node: Node, shapes: Shapes) -> Need:
    """One pass over every prompt. Disk: the stream of each."""
    shape, prompts = shapes.vision(node), shapes.images(node)
    if shape is None or prompts is None:
        return UNKNOWN
    disk = SMALL + formulas.feature_bytes(prompts.images, shape)
    device = shapes.device(node.order["pipeline"])
    flops = 2 * shape.parameters * shape.patches * prompts.images
    return Need(disk, device.memory(None), TORCH_START + device.seconds(flops))
