"""Stage: caption images after editing their visual tokens along the directions of concepts.

Legend of shape suffixes: b row of a batch, p patch token, v encoder width, d LLM width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vista.config.base import Settings
from vista.config.edits import READS_LATENT, EditControl, EditSettings
from vista.config.language import LanguageSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact, canonical_json, digest_text
from vista.engine.disk import force_to_disk, write_synced
from vista.engine.forecast import formulas
from vista.engine.forecast.need import ROW, SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import decoding_steps, text_tokens
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.inputs.edit_concepts import edit_concepts
from vista.inputs.edit_controls import with_wrong_concepts
from vista.inputs.edit_plan import Item, Variant, plan_items, refuse_unfit_edits, variants_of
from vista.inputs.edited_captions import CAPTIONS, FACTS, SCHEMA
from vista.inputs.judge import stage_judge, write_tally
from vista.metrics.intervention.captions import UNEDITED
from vista.metrics.results import write_parquet
from vista.progress import progress
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from torch import Tensor

    from vista.interventions.directions import Space
    from vista.interventions.edits import Concept, RowEdit
    from vista.interventions.generation import TokenSum


class EditCaptionsOrder(Settings):
    """The language model, the edit, and which control of it is made, if it is one."""

    llm: LanguageSettings
    edit: EditSettings
    control: EditControl | None = None


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Features of the images, the models, the directions, and the SAEs of latents that are read."""

    projector: Artifact
    features: Artifact
    records: Artifact
    directions: Artifact
    llm: Artifact | None = None
    saes: list[Artifact] = field(default_factory=list)
    vision_sae: Artifact | None = None
    judge: Artifact | None = None


@stage(EditCaptionsOrder, Inputs)
def run(job: StageJob[EditCaptionsOrder, Inputs]) -> None:
    """Read projector, features, records, LLM and directions; write captions.parquet, edits.json.

    Edits that depend on a latent's activation read the text SAEs or, for directions in feature
    space, the vision SAE. Finished batches are checkpoints: a resumed run continues with the next
    one, even if the earlier run was killed while its artifact was published. A control makes the
    same edits with something else in place of the source's direction.
    """
    import torch

    torch.set_num_threads(job.threads)
    with torch.no_grad():
        _Editor(job).run()


@dataclass
class _Rows:
    """What is measured of the rows of a batch.

    `losses` are negative log likelihoods of the reference's tokens, `damages` divergences from the
    unedited row at the tokens of the unedited caption; both leave out the words for source and
    target.
    """

    captions: list[str] = field(default_factory=list)
    losses: list[TokenSum] = field(default_factory=list)
    damages: list[TokenSum] = field(default_factory=list)


class _Editor:
    """The models, the directions, and the batches of images."""

    def __init__(self, job: StageJob[EditCaptionsOrder, Inputs]) -> None:
        from vista.inputs.models import load_llm
        from vista.interventions.directions import read_directions
        from vista.projector.module import load_projector

        inputs = job.inputs
        self.job = job
        self.settings, self.control = job.settings.edit, job.settings.control
        self.records = read_records(inputs.records.file("records.parquet"))
        self.reader = FeatureReader(inputs.features.store("features.zarr"))
        self.image_of = self.records.feature_rows()[1]
        self.llm = load_llm(job.settings.llm, inputs.llm)
        inputs.projector.verify()
        d_vision, d_model = self.reader.shape[-1], self.llm.d_model
        projector = load_projector(inputs.projector.path, d_vision=d_vision, d_model=d_model)
        self.projector = projector.to(self.llm.device)
        width: dict[Space, int] = {"stream": d_model, "features": d_vision}
        self.directions = read_directions(inputs.directions, width)
        self.in_stream = self.directions.space == "stream"
        if self.in_stream:
            refuse_unfit_edits(self.settings, self.directions.concepts, self.llm.n_blocks)
        self.concepts = self._concepts()
        self.variants = variants_of(self.settings, self.directions.space)

    @cached_property
    def _reads_latents(self) -> bool:
        return self.settings.how in READS_LATENT or "active" in self.settings.tokens

    def _concepts(self) -> dict[str, Concept]:
        """Return the concepts that have a direction; with their latents if the edit reads them."""
        if not self._reads_latents:
            return edit_concepts(self.directions, None, self.llm.layer_device)
        if self.in_stream:
            return edit_concepts(self.directions, self.job.inputs.saes, self.llm.layer_device)
        assert self.job.inputs.vision_sae is not None
        device = self.llm.device
        return edit_concepts(self.directions, [self.job.inputs.vision_sae], lambda layer: device)

    def run(self) -> None:
        """Caption the images batch by batch, then join the batches."""
        items = self._items()
        batches = self._batches(items)
        folder = self.job.checkpoints
        folder.mkdir(exist_ok=True)
        force_to_disk(self.job.work)
        parts = []
        for batch in progress(batches, desc="edited captions", unit="batch"):
            # Named by its images: a resumed run may have a different batch size.
            ids = canonical_json([item.record.image_id for item in batch])
            path = folder / f"{digest_text(ids)}.parquet"
            if not path.is_file():
                part = pa.BufferOutputStream()
                pq.write_table(pa.Table.from_pylist(self._captioned(batch), SCHEMA), part)
                write_synced(path, part.getvalue().to_pybytes(), path)
            parts.append(pq.read_table(path))
        rows = [row for part in parts for row in part.to_pylist()]
        order = {item.record.image_id: i for i, item in enumerate(items)}
        # Stable: the rows of an image keep their order.
        rows.sort(key=lambda row: order[row["image_id"]])
        write_parquet(self.job.work / CAPTIONS, pa.Table.from_pylist(rows, SCHEMA))
        self._write_facts(len(items))

    def _items(self) -> list[Item]:
        settings = self.settings
        inputs, work = self.job.inputs, self.job.work
        judge = stage_judge(settings.judge, inputs.judge, inputs.records, work)
        items = plan_items(settings, self.records, self.directions, inputs.features, judge)
        if self.control == "wrong_concept":
            items = with_wrong_concepts(items, settings, self.directions, judge)
        write_tally(work, judge)
        if not items:
            needed = "exactly one object that is a source"
            if settings.sources == "words":
                needed = "a reference caption that names a source, and patches of objects to edit"
            raise UserError(
                f"edit.split {settings.split!r}: no image of that split has {needed}; choose "
                "another split, other pairs or other concepts"
            )
        return items

    def _write_facts(self, n_images: int) -> None:
        settings, directions = self.settings, self.directions
        facts = {
            "method": directions.method,
            "space": directions.space,
            "how": settings.how,
            "control": self.control,
            "tokens": settings.tokens,
            "blocks": settings.blocks if self.in_stream else None,
            "coefficients": list(settings.coefficients),
            "task": settings.task,
            "n_images": n_images,
            "concepts_found": len(self.concepts),
            "concepts": len(directions.concepts),
            # Sources that are words and no classes of objects.
            "words": directions.names if settings.sources == "words" else [],
        }
        text = json.dumps(facts, sort_keys=True, indent=1, allow_nan=False)
        (self.job.work / FACTS).write_text(text + "\n", encoding="utf-8")

    def _batches(self, items: Sequence[Item]) -> list[list[Item]]:
        """Return batches of images with prompts of one length that fit with all their rows."""
        from vista.language.reading import one_length

        prompts = self.llm.prompts([item.turn.question for item in items], self.reader.shape[1])
        size = max(1, self.settings.batch_size // (1 + len(self.variants)))
        return [
            [items[i] for i in rows] for rows in one_length([len(ids) for ids in prompts], size)
        ]

    def _captioned(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Return the rows of some images: for each the unedited one first, then each variant."""
        import torch

        images = self.image_of[[item.row for item in items]]
        features_ipv = torch.from_numpy(self.reader.read(images).astype(np.float32))
        features_ipv = features_ipv.to(self.llm.device)
        firing = self._firing(items, features_ipv)
        image_b: list[int] = []
        edits_b: list[RowEdit | None] = []
        # Row of each image and variant in the batch; None: unedited.
        row_of: list[dict[Variant | None, int]] = []
        for i, item in enumerate(items):
            row_of.append({None: len(edits_b)})
            image_b.append(i)
            edits_b.append(None)
            for variant in self.variants if self._has_directions(item) else ():
                patches_p = item.patches(variant.place, firing[i])
                if patches_p.any():
                    row_of[i][variant] = len(edits_b)
                    image_b.append(i)
                    edits_b.append(self._edit(item, variant, torch.from_numpy(patches_p)))
        ran = self._run_rows(items, features_ipv, image_b, edits_b)
        rows = []
        for i, item in enumerate(items):
            for version in (None, *self.variants):
                # Without a direction or a patch to edit, the caption is the unedited one.
                b = row_of[i].get(version, row_of[i][None])
                edit = edits_b[b]
                patches = [] if edit is None else edit.patches_p.nonzero()[:, 0].tolist()
                rows.append(
                    {
                        "image_id": item.record.image_id,
                        "split": item.record.split,
                        "source": item.source,
                        "target": item.target,
                        "task": self.settings.task,
                        "variant": version.place if version else UNEDITED,
                        "coefficient": version.coefficient if version else 0.0,
                        "blocks": version.blocks if version else None,
                        "caption": ran.captions[b],
                        "found": self._has_directions(item),
                        "n_tokens": len(patches),
                        "patches": patches,
                        "loss_sum": ran.losses[b].nats,
                        "loss_tokens": ran.losses[b].tokens,
                        "damage_sum": ran.damages[b].nats,
                        "damage_tokens": ran.damages[b].tokens,
                    }
                )
        return rows

    def _run_rows(
        self,
        items: Sequence[Item],
        features_ipv: Tensor,
        image_b: list[int],
        edits_b: list[RowEdit | None],
    ) -> _Rows:
        """Caption rows, and measure what their edits change at tokens that they should not."""
        import torch

        from vista.interventions.damage import UneditedAnswers
        from vista.interventions.edits import edit_features, stream_edits
        from vista.interventions.generation import untouched_losses

        settings, llm = self.settings, self.llm
        ran, unedited = _Rows(), UneditedAnswers(llm.tokenizer)
        # One image may have more rows than a batch holds.
        for start in range(0, len(edits_b), settings.batch_size):
            part = slice(start, start + settings.batch_size)
            edits, row_items = edits_b[part], [items[i] for i in image_b[part]]
            features_bpv = features_ipv[image_b[part]]
            stream = None
            if self.in_stream:
                stream = stream_edits(edits, len(llm.opening))
            else:
                features_bpv = edit_features(features_bpv, edits)
            visual_bpd = self.projector(features_bpv)
            questions = [item.turn.question for item in row_items]
            ids_bt = torch.tensor(llm.prompts(questions, visual_bpd.shape[1]), device=llm.device)
            reading = llm.read(ids_bt, visual_bpd, stream)
            touched = [item.touched for item in row_items]
            ran.losses += untouched_losses(
                llm,
                reading,
                visual_bpd.shape[1],
                [item.turn for item in row_items],
                touched,
                settings.max_length,
            )
            answers = llm.answer_ids(reading, settings.max_new_tokens)
            ran.captions += llm.decode(answers)
            is_unedited = [edit is None for edit in edits]
            ran.damages += unedited.damage(reading, image_b[part], is_unedited, answers, touched)
        return ran

    def _needs(self, item: Item) -> list[str]:
        """Return the concepts whose directions the edit of an image needs."""
        how, names = self.settings.how, []
        if how in ("subtract", "ablate", "remove_add", "swap") or "active" in self.settings.tokens:
            names.append(item.source)
        if item.target is not None:
            names.append(item.target)
        elif how == "clamp":
            names.append(item.source)
        return names

    def _has_directions(self, item: Item) -> bool:
        return all(name in self.concepts for name in self._needs(item))

    def _edit(self, item: Item, variant: Variant, patches_p: Tensor) -> RowEdit:
        from vista.interventions.controls import controlled
        from vista.interventions.edits import RowEdit

        settings = self.settings
        blocks: tuple[int, ...] = ()
        if self.in_stream:
            blocks = variant.blocks or (self._latent_block(item),)
        edit = RowEdit(
            settings.how,
            variant.coefficient,
            patches_p,
            self.concepts.get(item.source),
            None if item.target is None else self.concepts[item.target],
            blocks,
        )
        if self.control is None:
            return edit
        return controlled(edit, self.control, self._stand_in(item))

    def _stand_in(self, item: Item) -> Concept | None:
        """Return what a control puts in place of the source's direction."""
        import torch

        from vista.interventions.controls import random_direction
        from vista.interventions.edits import Concept

        if self.control == "random_source":
            width = self.directions.direction_cd.shape[1]
            drawn_d = random_direction(width, self.settings.seed, item.record.image_id)
            return Concept(torch.from_numpy(drawn_d))
        return None if item.wrong is None else self.concepts[item.wrong]

    def _latent_block(self, item: Item) -> int:
        """Return the block of the source's latent, or of the target's if the edit only adds it."""
        adds = self.settings.how in ("add", "clamp") and item.target is not None
        name = item.target if adds else item.source
        concepts = self.directions.concepts
        layer = next(concept.layer for concept in concepts if concept.concept == name)
        assert layer is not None
        return layer

    def _firing(self, items: Sequence[Item], features_ipv: Tensor) -> list[Any]:
        """Return for each image the patches [p] at which the source's latents fire unedited."""
        from vista.interventions.generation import firing_patches

        if "active" not in self.settings.tokens:
            return [None] * len(items)
        sources = [self.concepts.get(item.source) for item in items]
        if not self.in_stream:
            no_patch_p = np.zeros(features_ipv.shape[1], dtype=bool)
            return [
                concept.fires(x_pv).cpu().numpy() if concept else no_patch_p
                for concept, x_pv in zip(sources, features_ipv, strict=True)
            ]
        fires = firing_patches(
            self.llm,
            self.projector(features_ipv),
            [item.turn for item in items],
            sources,
            self.settings.max_length,
        )
        return [fires_p.numpy() for fires_p in fires]


def need(node: Node, shapes: Shapes) -> Need:
    """Each edit of an image, and none: a pass over image, prompt and reference, greedy decoding,
    and a pass over the unedited caption."""
    shape, vision = shapes.llm(node), shapes.features(node)
    settings, device = node.order["edit"], shapes.llm_device(node)
    if shape is None or vision is None:
        return Need(SMALL, None, None)
    most = formulas.text_tokens(settings["max_length"], vision.patches)
    batch, new_tokens = settings["batch_size"], settings["max_new_tokens"]
    length, answer = vision.patches + most, min(most, new_tokens)
    memory = device.memory(formulas.caption_memory(shape, device, batch, length, answer))
    rows = shapes.rows(one(node, "records"), settings["split"])
    if rows is None:
        return Need(SMALL, memory, None)
    places = len(settings["tokens"]) + (settings["outside"] and "object" in settings["tokens"])
    variants = places * len(settings["blocks"] or [None]) * len(settings["coefficients"])
    rows = min(rows, settings["max_images"] or rows) * (variants + 1)
    text = text_tokens(node, shapes, settings["max_length"], vision.patches, first=True)
    # The tokens of the unedited caption are read by every edit, too.
    scored = text + answer
    flops = formulas.forward_flops(shape, rows * (vision.patches + scored), rows * scored)
    steps = -(-rows // batch) * decoding_steps(node, shapes, new_tokens)
    decoding = device.decoding_seconds(steps, shape)
    return Need(SMALL + ROW * rows, memory, TORCH_START + device.seconds(flops) + decoding)
