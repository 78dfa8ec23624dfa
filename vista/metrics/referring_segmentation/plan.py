"""What the metric asks for: expressions, latents of the validation images, and the layers."""

from __future__ import annotations

from dataclasses import replace

from vista.config.data import FileData, RefCocoData, Split, annotation_files
from vista.config.drawn import DrawnData
from vista.config.metric import Metric
from vista.config.sweep import Point
from vista.engine.node import Node, dump
from vista.engine.nodes import Builder
from vista.engine.places import Place, Request, default_request
from vista.errors import UserError
from vista.metrics.referring_segmentation import ReferringSettings

_SPLIT: Split = "validation"


def request(metric: Metric, settings: ReferringSettings, place: Place) -> Request:
    """Return the default request with the expressions and the latents of the validation images.

    Raises:
        UserError: The data have no expressions, or no validation images beside the judged ones.
    """
    builder = place.builder
    config = builder.config
    without = isinstance(config.data, FileData) and not config.data.holds(_SPLIT)
    if without or config.judged_split(config.latents.split) == _SPLIT:
        raise UserError(
            "metrics.referring_segmentation chooses its threshold on the validation split, which "
            "must have images and be another one than latents.split"
        )
    default = default_request(metric, settings, place)
    projector = place.inputs["projector"]
    assert isinstance(projector, Node)
    further = {
        "expressions": expressions_node(builder),
        "validation_latents": builder.latents(Point(**place.columns), projector, _SPLIT),
    }
    return replace(default, inputs={**default.inputs, **further})


def expressions_node(builder: Builder) -> Node:
    """Return the node of the expressions of the run's data. Raises UserError where there can be
    none."""
    data, records = builder.config.data, builder.data.records
    if not isinstance(data, DrawnData | RefCocoData):
        raise UserError(
            f"metrics.referring_segmentation: data of kind {data.kind!r} have no referring "
            "expressions; take data of kind refcoco or drawn, or leave the metric out"
        )
    fetched = builder.data.images.get("fetched")
    inputs = {"records": records, **({"fetched": fetched} if fetched else {})}
    return Node(
        "expressions", records.name, dump(data), inputs, files=tuple(annotation_files(data))
    )
