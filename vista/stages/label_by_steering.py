"""Stage: name latents of a vision SAE by what a language model says of a blank image that is
steered along them.

No image and no annotation is read: the training images decide only which latents are labelled, and
how far each is steered. The class names that answers are searched for are those of the data.

Legend of shape suffixes: s latent of the SAE, l labelled latent, p patch, v encoder width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.encoders import EncoderSettings
from vista.config.language import LanguageSettings
from vista.config.steering_labels import SteeringLabelSettings
from vista.data.records import RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import ROW, SMALL, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import decoding_steps, vision_sae
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.inputs.vision import STEERING_FILE, TOP_FILE, SaeDevice, load_vision_sae
from vista.metrics.results import write_parquet
from vista.sae.label_table import FILE, LatentLabels, plain_text, read_labels, write_labels
from vista.store.features import FeatureReader

BLANK_FILE = "blank.json"
_LONGEST_ANSWER = 400  # characters


class LabelBySteeringOrder(Settings):
    """The encoder, the language model, the SAE's device, and how latents are steered."""

    llm: LanguageSettings
    encoder: EncoderSettings
    steer: SteeringLabelSettings
    sae: SaeDevice = SaeDevice()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A vision SAE with the table of its latents, the features that it reads with their records,
    the projector, and the models unless their settings name a folder."""

    sae: Artifact
    labels: Artifact
    features: Artifact
    records: Artifact
    projector: Artifact
    encoder: Artifact | None = None
    llm: Artifact | None = None


@stage(LabelBySteeringOrder, Inputs)
def run(job: StageJob[LabelBySteeringOrder, Inputs]) -> None:
    """Read encoder, vision SAE, projector and LLM; write labels.parquet, steering.parquet and
    blank.json.

    Along a latent, coefficient x its largest activation on training images x its decoder row is
    added to every patch of the blank image: what the SAE itself would write where it fires so
    strongly, so that a coefficient means the same for every latent and every encoder.

    steering.parquet has a row for each latent: coefficient, answer, label, gain (nats a token), and
    the name whose input embedding is nearest to the latent's visual token. blank.json has the
    question and the unsteered answer.

    Raises UserError where SAE, labels, features, encoder and projector do not belong together, no
    latent fires, the data name no class, or they have no question and the settings no prompt.
    """
    import torch

    from vista.inputs.blank_image import blank_features
    from vista.inputs.models import load_llm
    from vista.inputs.steered_answers import BlankImage, chosen_answer, label_of, nearest_names
    from vista.projector.module import load_projector

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.steer, job.inputs
    refuse_strangers(inputs)
    records = read_records(inputs.records.file("records.parquet"))
    features = FeatureReader(inputs.features.store("features.zarr"))
    sae = load_vision_sae(inputs.sae, features, job.settings.sae.device)
    known = read_labels(inputs.labels.file(FILE))
    if len(known.label_s) != sae.config.d_sae:
        raise UserError(
            f"the labels have {len(known.label_s)} latents, SAE {sae.config.name} has "
            f"{sae.config.d_sae}; give the labels of this SAE"
        )
    strength_s = strongest(inputs.labels, sae.config.d_sae)
    latent_l = most_active(known.density_s, strength_s, settings.latents)
    if not len(latent_l):
        raise UserError(
            f"SAE {sae.config.name}: no latent fires on the images of its labels, so none can be "
            "steered; train it longer"
        )
    names = sorted(records.categories())
    if not names:
        raise UserError(
            "label_by_steering: the data name no class of objects that a latent could be labelled "
            "with; give data with annotated objects"
        )
    question = settings.prompt or first_question(records)
    picture_pv = blank_features(job.settings.encoder, inputs.encoder, settings.blank)
    blank_pv = torch.from_numpy(picture_pv)
    if tuple(blank_pv.shape) != tuple(features.shape[1:]):
        raise UserError(
            f"the encoder gives a blank image {tuple(blank_pv.shape)} features, but the SAE's "
            f"features are {tuple(features.shape[1:])} an image; give the encoder of these features"
        )
    llm = load_llm(job.settings.llm, inputs.llm)
    inputs.projector.verify()
    projector = load_projector(
        inputs.projector.path, d_vision=features.shape[2], d_model=llm.d_model
    ).to(llm.device)
    scale_p1 = sae.normalise(blank_pv.to(sae.b_dec))[2].reshape(-1, 1)
    row_lv = sae.W_dec[latent_l] * torch.from_numpy(strength_s[latent_l]).to(sae.W_dec)[:, None]
    # An SAE that rescales patches writes in the scale of the patch.
    step_lpv = (row_lv[:, None] * scale_p1).to(llm.device)
    blank = BlankImage(llm, projector, blank_pv, question, names, settings)
    unsteered, answers = blank.answer(), blank.steered(step_lpv)
    chosen = [chosen_answer(of_latent) for of_latent in answers]
    labels = [label_of(answer) for answer in chosen]
    near = nearest_names(llm, projector, step_lpv.mean(dim=1), names)

    def shown(text: str) -> str:
        return plain_text(text, _LONGEST_ANSWER)

    label_of_latent = dict(zip(latent_l.tolist(), labels, strict=True))
    context_of_latent = {
        latent: tuple(f"{answer.coefficient:g}: {shown(answer.text)}" for answer in of_latent)
        for latent, of_latent in zip(latent_l.tolist(), answers, strict=True)
    }
    label_s = tuple(map(label_of_latent.get, range(sae.config.d_sae)))
    table = LatentLabels(
        layer=sae.config.layer,
        sae=sae.config.name,
        tokens=known.tokens,
        label_s=label_s,
        share_s=np.array([label is not None for label in label_s], np.float32),
        density_s=known.density_s,
        contexts_s=tuple(context_of_latent.get(s, ()) for s in range(sae.config.d_sae)),
    )
    write_labels(job.work / FILE, table)
    columns = {
        "latent": pa.array(latent_l, pa.int32()),
        "coefficient": pa.array([answer.coefficient for answer in chosen], pa.float64()),
        "answer": pa.array([shown(answer.text) for answer in chosen], pa.string()),
        "label": pa.array(labels, pa.string()),
        "gain": pa.array([answer.gain for answer in chosen], pa.float64()),
        "nearest": pa.array(near, pa.string()),
    }
    write_parquet(job.work / STEERING_FILE, pa.table(columns))
    facts = {"question": question, "answer": shown(unsteered), "names": len(names)}
    text = json.dumps(facts, sort_keys=True, indent=1, ensure_ascii=False)
    (job.work / BLANK_FILE).write_text(text + "\n", encoding="utf-8")


def refuse_strangers(inputs: Inputs) -> None:
    """Refuse an SAE of other features, and labels of another SAE, as far as their manifests tell.

    A projector may have been trained on other images of the encoder. Raises UserError.
    """
    pairs = (
        (inputs.sae, "features", inputs.features, "an SAE of other features"),
        (inputs.labels, "sae", inputs.sae, "labels of another SAE"),
    )
    for child, role, parent, name in pairs:
        if child.inputs.get(role, parent.digest) != parent.digest:
            raise UserError(
                f"{child.path}: {name} than {parent.path}; give what belongs to one encoder"
            )


def strongest(labels: Artifact, n_latents: int) -> NDArray[np.float32]:
    """Return each latent's largest activation on the images of its labels, [s]; 0: it is silent."""
    top = pq.read_table(labels.file(TOP_FILE), filters=[("rank", "=", 0)])
    strength_s = np.zeros(n_latents, np.float32)
    strength_s[top.column("latent").to_numpy()] = top.column("activation").to_numpy()
    return strength_s


def most_active(
    density_s: NDArray[Any], strength_s: NDArray[Any], most: int | None
) -> NDArray[np.int64]:
    """Return the latents that fire, at most `most` of them: those that fire on most patches, of
    equal ones the first; ascending."""
    live = np.flatnonzero(strength_s > 0)
    order = np.argsort(-np.asarray(density_s)[live], kind="stable")
    return np.sort(live[order[:most]])


def first_question(records: RecordTable) -> str:
    """Return the first question about a training image. Raises UserError where there is none."""
    rows = records.rows_with_turns("train")
    if not len(rows):
        raise UserError(
            "probing.vision_labels.steering.prompt is null, and no training image has a question; "
            "set it to what the language model is to be asked"
        )
    return records[int(rows[0])].turns[0].question


def need(node: Node, shapes: Shapes) -> Need:
    """For each latent and coefficient a pass over image and question, greedy decoding, and the
    answer read twice: after the steered image and after the blank one."""
    shape, size = shapes.llm(node), vision_sae(node, shapes)
    if shape is None or size is None:
        return UNKNOWN
    settings, device = node.order["steer"], shapes.llm_device(node)
    latents = min(settings["latents"] or size.s, size.s)
    rows, new_tokens = latents * len(settings["coefficients"]), settings["max_new_tokens"]
    batch = settings["batch_size"]
    memory = formulas.caption_memory(shape, device, batch, 2 * size.patches, new_tokens)
    flops = 2 * formulas.forward_flops(shape, rows * (size.patches + new_tokens), rows * new_tokens)
    steps = -(-rows // batch) * decoding_steps(node, shapes, new_tokens)
    seconds = TORCH_START + device.seconds(flops) + device.decoding_seconds(steps, shape)
    return Need(SMALL + ROW * (size.s + latents), device.memory(memory), seconds)
