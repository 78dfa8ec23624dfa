"""What the summary shows of the second paper's experiments, out of the long table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vista.report.attributes_section import attributes_section
from vista.report.encoders_section import encoders_section
from vista.report.grid import Section
from vista.report.image_attributes_section import image_attributes_section
from vista.report.logit_lens_section import logit_lens_section
from vista.report.monosemanticity_section import monosemanticity_section
from vista.report.ontology_section import ontology_section
from vista.report.ood import ood_detection_section, ood_generalization_section
from vista.report.shared_latents_section import shared_latents_section
from vista.report.steering_section import steering_section
from vista.report.table import LongTable
from vista.report.vision_sae_section import vision_sae_section


def probing_sections(table: LongTable, top_k: int) -> list[Section]:
    """Return a section for each experiment; those that were not run have no rows."""
    return [
        vision_sae_section(table),
        monosemanticity_section(table),
        ood_detection_section(table),
        ood_generalization_section(table),
        ontology_section(table),
        image_attributes_section(table),
        steering_section(table),
        attributes_section(table),
        shared_latents_section(table),
        logit_lens_section(table, top_k),
        encoders_section(table, top_k),
    ]


def probing_figures(table: LongTable, top_k: int) -> list[tuple[str, str, Callable[[], Any]]]:
    """Return name, caption and drawing of each experiment's figure; one may draw nothing."""
    from vista.report.attributes_figure import attributes_figure
    from vista.report.encoders_figure import encoders_figure
    from vista.report.image_attributes_figure import image_attributes_figure
    from vista.report.logit_lens_figure import logit_lens_figure
    from vista.report.monosemanticity_figure import monosemanticity_figure
    from vista.report.ontology_figure import ontology_figure
    from vista.report.ood_figure import ood_detection_figure, ood_generalization_figure
    from vista.report.shared_latents_figure import shared_latents_figure
    from vista.report.steering_figure import steering_figure

    return [
        (
            "monosemanticity",
            "Monosemanticity score by dictionary, with the level of any two images",
            lambda: monosemanticity_figure(table),
        ),
        (
            "ood_detection",
            "AUROC of every score, by set of images",
            lambda: ood_detection_figure(table),
        ),
        (
            "ood_generalization",
            "Accuracy of linear probes over the numbers they read, held out and shifted",
            lambda: ood_generalization_figure(table),
        ),
        (
            "ontology",
            "Share of inner synsets that some latent names, by dictionary",
            lambda: ontology_figure(table),
        ),
        (
            "image_attributes",
            "Attributes that latents of vision SAEs found in images, by dictionary",
            lambda: image_attributes_figure(table),
        ),
        (
            "steering",
            "Gain of the target and drift of other attributes, by method",
            lambda: steering_figure(table),
        ),
        (
            "attributes",
            "Attributes that latents found: precision and recall",
            lambda: attributes_figure(table),
        ),
        (
            "shared_latents",
            "Concepts with a latent selective in words, in images and in both, per layer",
            lambda: shared_latents_figure(table),
        ),
        (
            "logit_lens",
            "Nouns among the words that the model's head reads at their patches, per layer",
            lambda: logit_lens_figure(table, top_k),
        ),
        (
            "encoders",
            "Every metric by encoder, with its control",
            lambda: encoders_figure(table, top_k),
        ),
    ]
