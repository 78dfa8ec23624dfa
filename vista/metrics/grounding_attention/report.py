"""Section of the report about grounding by attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vista.report import grid
from vista.report.grid import Grid, Name, Section, number, spread
from vista.report.shown import MetricPlace, Shown
from vista.report.table import LongTable, groups, over_seeds

_POINT = ("encoder", "llm", "sae_weight")
_SHUFFLED = "shuffled_masks"


def grounding_attention_section(table: LongTable) -> Section:
    """Return the attention on objects, mean over heads and best head, and what tells the right
    image."""
    return Section(
        "Grounding by attention of the language model",
        "Attention from the tokens of an object's word in the reference answer (word), or from the "
        "token before it, which predicts it (before), to the visual tokens. On image: attention to "
        "visual tokens at all; on object: the share of it on the object's patches, chance: the "
        "object's share of the patches; shuffled: with the objects of all other images on the "
        "map. Mean over the heads of a layer (all: of all layers); best head: that with the "
        "largest AUROC on the validation split. Right image: AUROC of telling captions behind "
        "their own image from those behind another by the attention to the image, its focus "
        "(minus entropy) and the caption's cross-entropy; chance .5. Mean over seeds "
        "(smallest–largest).",
        [
            Grid(
                (
                    *("encoder", "LLM", "λ", "from", "heads", "on image", "even"),
                    *("on object", "chance", "shuffled", "AUROC", "95 %", "shuffled"),
                    *("pointing", "n"),
                ),
                _grounding_rows(table),
            ),
            Grid(
                ("encoder", "LLM", "λ", "score", "AUROC", "95 %", "best head", "choice", "n"),
                _right_image_rows(table),
            ),
        ],
    )


def _grounding_rows(table: LongTable) -> list[list[str]]:
    rows = []
    for kind in ("attention", "head_attention"):
        found = groups(table.select(f"{kind}_auroc", set=None), *_POINT, "of", "layer")
        for (encoder, llm, weight, of, layer), figures in found:
            place = dict(zip(_POINT, (encoder, llm, weight), strict=True))
            place |= {"of": of, "layer": layer}
            auroc = over_seeds(figures)
            mean = {
                (name, items): over_seeds(table.select(f"{kind}_{name}", set=items, **place))
                for name in ("on_image", "on_object", "auroc", "pointing")
                for items in (None, _SHUFFLED)
            }
            on_image, on_object = mean["on_image", None], mean["on_object", None]
            heads = grid.layer(layer) if kind == "attention" else f"best, {grid.layer(layer)}"
            rows.append(
                [
                    grid.name(encoder),
                    grid.name(llm),
                    grid.weight(weight),
                    Name(of),
                    Name(heads),
                    spread(on_image),
                    number(on_image.chance if on_image else None),
                    spread(on_object),
                    number(on_object.chance if on_object else None),
                    spread(mean["on_object", _SHUFFLED]),
                    spread(auroc),
                    grid.interval(auroc.low, auroc.high) if auroc else "–",
                    spread(mean["auroc", _SHUFFLED]),
                    spread(mean["pointing", None]),
                    str(auroc.n if auroc else 0),
                ]
            )
    return rows


def _right_image_rows(table: LongTable) -> list[list[str]]:
    rows = []
    for (encoder, llm, weight, of), figures in groups(
        table.select("right_image_auroc", layer=None), *_POINT, "of"
    ):
        place = {"encoder": encoder, "llm": llm, "sae_weight": weight, "of": of}
        auroc = over_seeds(figures)
        head = over_seeds(table.select("head_right_image_auroc", **place))
        choice = over_seeds(table.select("right_image_choice", layer=None, **place))
        rows.append(
            [
                grid.name(encoder),
                grid.name(llm),
                grid.weight(weight),
                Name(of),
                spread(auroc),
                grid.interval(auroc.low, auroc.high) if auroc else "–",
                spread(head),
                spread(choice),
                str(auroc.n if auroc else 0),
            ]
        )
    return rows


def _note(place: MetricPlace, result: Mapping[str, Any]) -> str:
    return (
        f"Grounding by attention: {result['n_pairs']} pairs of image and object of "
        f"{result['n_images']} images, patches by {result['region']}; the best of "
        f"{result['n_layers']} x {result['n_heads']} heads was chosen on "
        f"{result['n_fit_images']} other images."
    )


SHOWN = Shown(
    sections=lambda measured: [grounding_attention_section(measured.table)],
    note=_note,
)
