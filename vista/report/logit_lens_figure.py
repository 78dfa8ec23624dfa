"""Figure of the logit lens beside the readout by SAE latents."""

from __future__ import annotations

from typing import Any

from vista.metrics.logit_lens.measure import PREFIX
from vista.report import style
from vista.report.shared_latents_figure import Series, over_layers
from vista.report.table import LongTable


def logit_lens_figure(table: LongTable, top_k: int = 3) -> Any | None:
    """Gain of the matching rate over its shuffled level, by latents and by the lens, per layer."""
    metric = f"matching_gain@{top_k}"
    lens = [f for f in table.select(f"{PREFIX}_{metric}") if f.layer is not None]
    if not lens:
        return None
    read = {(f.encoder, f.llm) for f in lens}
    latents = [
        f for f in table.select(metric) if f.layer is not None and (f.encoder, f.llm) in read
    ]
    weights = sorted({f.sae_weight for f in lens if f.sae_weight is not None})
    lines = []
    for name, found, more in (
        ("SAE latents", latents, {}),
        ("logit lens", lens, {"linestyle": ":", "markerfacecolor": "white"}),
    ):
        for weight in weights:
            own = [f for f in found if f.sae_weight == weight]
            look = {**style.series_style(weights, weight), **more}
            lines.append(Series(f"{name}, {style.weight_name(weight)}", own, look))
    figure = over_layers(lines, "match - shuffled")
    if figure is not None:
        style.heading(
            figure,
            f"What an image's {top_k} strongest latents name, and its {top_k} strongest words",
            "Share of images in which one names an object, less the same judged against other "
            f"images (chance 0). n = {min(f.n for f in lens):,} images. Error bars: "
            "intervals over images.",
        )
    return figure
