"""Sections and figures of shared latents, the logit lens, and encoders beside each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.long_table import figures_of
from vista.metrics.figure import Figure
from vista.metrics.logit_lens.report import logit_lens_figure, logit_lens_section
from vista.metrics.shared_latents.report import shared_latents_figure, shared_latents_section
from vista.report import style
from vista.report.encoders_figure import encoders_figure
from vista.report.encoders_section import encoders_section
from vista.report.readouts_section import readouts_section
from vista.report.table import LongTable

MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture
def probed(made_up: list[Figure], make_row: MakeRow) -> LongTable:
    """The made-up run with both experiments at weights 0 and 1, and two figures of encoders."""
    more: list[Figure] = []
    for encoder in ("clip", "dinov2"):
        for weight in (0.0, 1.0):
            point = {"encoder": encoder, "llm": "llama", "sae_weight": weight, "seed": 0}
            shared, lens = [], []
            for layer in (0, 1, None):
                value = 0.2 + 0.5 * weight
                shared += [
                    make_row("shared_concepts", value, layer, chance=0.03, n=40),
                    make_row("selective_concepts", 0.9, layer, "control", n=40),
                    make_row("selective_concepts", 0.6, layer, "image", n=40),
                ]
                lens += [
                    make_row("lens_matching_rate", value, layer, "image", chance=0.1, k=3),
                    make_row("lens_matching_gain", value - 0.1, layer, "image", k=3),
                ]
                if layer is not None:
                    auroc = make_row("transfer_auroc", 0.8, layer, "image", chance=0.51, n=40)
                    shared.append(auroc)
                    columns = {"chance": 0.02, "n": 77}
                    lens += [
                        make_row("lens_patches_named", 0.1 * k, layer, "image", k=k, **columns)
                        for k in (1, 3)
                    ]
            more += figures_of(point | {"metric": "shared_latents"}, shared)
            lens = [{**row, "method": "logit_lens"} for row in lens]
            more += figures_of(point | {"metric": "logit_lens"}, lens)
    for sae, score in (("topk", 0.4), ("relu", 0.3)):
        own = dict.fromkeys(("llm", "sae_weight", "seed")) | {"encoder": "both", "method": sae}
        mono = [
            {**make_row("monosemanticity", score), "of": "sae"},
            {**make_row("monosemanticity", 0.15), "of": "random_matched"},
        ]
        more += figures_of(own | {"metric": "monosemanticity"}, mono)
    words = [{**make_row("discovery_recall", 0.6, chance=0.2), "of": "sae", "set": "all"}]
    more += figures_of(own | {"metric": "image_attributes"}, words)
    scores = [("knn_random", (0.9, 0.5)), ("knn_latents", (0.6, 0.7)), ("energy_raw", (0.95, 0.95))]
    ood = [
        {**make_row(auroc, value), "of": name, "set": "a" if auroc == "near_ood_auroc" else "b"}
        for name, values in scores
        for auroc, value in zip(("near_ood_auroc", "far_ood_auroc"), values, strict=True)
    ]
    more += figures_of(own | {"metric": "ood_detection"}, ood)
    return LongTable(made_up + more)


def rows_of(section: Any) -> list[dict[str, str]]:
    (grid,) = section.grids
    # Columns of one name are told apart by what stands before them.
    heads = [f"{before} {head}" for before, head in zip(("", *grid.header), grid.header)]  # noqa: B905
    return [dict(zip(heads, row, strict=True)) for row in grid.rows]


def test_each_section_shows_its_figures_with_their_controls(probed: LongTable) -> None:
    shared = rows_of(shared_latents_section(probed))
    assert len(shared) == 2 * 2 * 3
    every = [row for row in shared if row["LLM layer"] == "all"]
    assert [row["shared 95 %"] for row in every] == ["[0.160, 0.240]", "[0.660, 0.740]"] * 2
    assert {row["95 % chance"] for row in shared if row["LLM layer"] == "0"} == {"0.510"}
    assert {row["chance n"] for row in shared} == {"40"}
    lens = rows_of(logit_lens_section(probed))
    with_term = next(row for row in lens if (row["LLM layer"], row["encoder λ"]) == ("1", "1"))
    assert with_term["λ match"] == "0.700"
    assert with_term["n gain"] == "0.600"
    # What the latents gain stands beside it, of the same point.
    point = {"encoder": "clip", "llm": "llama", "sae_weight": 1.0, "layer": 1}
    (own,) = probed.select("matching_gain", k=3, seed=0, **point)
    both = probed.select("matching_gain", k=3, **point)
    assert own in both
    mean = sum(f.value or 0 for f in both) / len(both)
    assert with_term["gain gain, latents"].startswith(f"{mean:.3f}")
    assert with_term["shuffled patches@3"] == "0.300"
    assert with_term["shuffled n patches"] == "77"


def test_readouts_stand_beside_each_other_with_the_mask_and_without(make_row: MakeRow) -> None:
    figures: list[Figure] = []
    for weight in (0.0, 1.0):
        for o, of in enumerate(("labelled_latents", "latent_lens")):
            rows = []
            for words in (None, "unmasked"):
                # Layer 1 is best; the stream that enters block 0 is no part of the mean.
                for layer, value in ((-1, 0.1), (0, 0.2), (1, 0.6), (None, 0.4)):
                    value = value + 0.05 * o + 0.01 * weight + (0.2 if words else 0)
                    columns = {"method": of, "of": words}
                    rate = make_row("lens_matching_rate", value, layer, "image", chance=0.02, k=3)
                    gain = make_row("lens_matching_gain", value - 0.02, layer, "image", k=3)
                    rows += [{**row, **columns} for row in (rate, gain)]
                    if layer is not None and words is None:
                        named = make_row("lens_patches_named", value, layer, "image", k=3)
                        rows.append({**named, **columns})
            point = {"encoder": "clip", "llm": "llama", "sae_weight": weight, "seed": 0}
            figures += figures_of(point | {"metric": of}, rows)
    table = LongTable(figures)
    (grid,) = readouts_section(table, 3).grids
    assert grid.header[4:9] == tuple(
        f"{head}, λ = 0" for head in ("match", "shuffled", "gain", "best layer", "patches")
    )
    assert [row[:9] for row in grid.rows] == [
        [*("llama", "clip", "labelled latents"), *cells]
        for cells in (
            ("as set", "0.400", "0.020", "0.380", "0.600 (1)", "0.400"),
            ("none", "0.600", "0.020", "0.580", "0.800 (1)", "0.400"),
        )
    ] + [
        [*("llama", "clip", "latent lens"), *cells]
        for cells in (
            ("as set", "0.450", "0.020", "0.430", "0.650 (1)", "0.450"),
            ("none", "0.650", "0.020", "0.630", "0.850 (1)", "0.450"),
        )
    ]
    assert [row[9] for row in grid.rows] == ["0.410", "0.610", "0.460", "0.660"]
    # One readout alone is compared with nothing.
    alone = LongTable(table.select("lens_matching_rate", method="latent_lens"))
    assert readouts_section(alone, 3).grids[0].rows == []


def test_another_readout_is_not_taken_for_the_logit_lens(probed: LongTable) -> None:
    from dataclasses import replace

    others = [
        replace(figure, value=0.123, stage="latent_lens", **columns)
        for figure in probed.figures
        if figure.method == "logit_lens"
        for columns in ({"method": "latent_lens"}, {"of": "unmasked"})
    ]
    both = LongTable([*probed.figures, *others])
    assert encoders_section(both) == encoders_section(probed)
    # The lens without its mask has a column of its own.
    shown, plain = (rows_of(logit_lens_section(table)) for table in (both, probed))
    assert {row["gain, latents unmasked"] for row in shown} == {"0.123"}
    for row in shown:
        row["gain, latents unmasked"] = "–"
    assert shown == plain


def test_all_metrics_stand_by_encoder_with_their_controls(probed: LongTable) -> None:
    (table,) = encoders_section(probed).grids
    assert table.header[3:] == ("both", "clip", "dinov2", "siglip")
    cells = {(row[0].partition(" (")[0], *row[1:3]): row[3:] for row in table.rows}
    # An encoder's own figures need no language model; a mean over SAEs, not the best of them.
    assert cells["monosemanticity of vision latents", "–", "–"] == ["0.350 (0.150)", *"–––"]
    assert cells["patch probe accuracy", "–", "–"] == ["–", *["0.910 (0.300)"] * 3]
    assert cells["attributes that vision latents found", "–", "–"][0] == "0.600 (0.200)"
    # One score for all encoders: the best of all on these images would flatter.
    for kind, expected in (("near", "0.600 (0.900)"), ("far", "0.700 (0.500)")):
        assert cells[f"AUROC of {kind} images, kNN on latents", "–", "–"][0] == expected
    assert cells["concepts with a shared latent", "llama", "1"][1] == "0.700 (0.030)"
    assert cells["logit lens: matching rate@3", "llama", "0"][1:] == [*["0.200 (0.100)"] * 2, "–"]
    point = {"encoder": "siglip", "llm": "gemma", "sae_weight": 1.0, "layer": None}
    (match,) = probed.select("matching_rate", k=3, seed=0, **point)
    (again,) = probed.select("matching_rate", k=3, seed=1, **point)
    mean = ((match.value or 0) + (again.value or 0)) / 2
    assert cells["matching rate@3", "gemma", "1"][3] == f"{mean:.3f} (0.100)"
    # Where nothing was measured there is no row.
    assert ("concepts with a shared latent", "gemma", "1") not in cells
    assert not any("shift" in row[0] for row in table.rows)


def test_figures_are_drawn_where_there_are_figures(probed: LongTable, table: LongTable) -> None:
    from matplotlib import pyplot

    for draw in (shared_latents_figure, logit_lens_figure):
        assert draw(table) is None
        figure = draw(probed)
        assert figure is not None
        # Two encoders of one model: the lens has read no other.
        assert len(figure.axes) == 2
        # The chance level is a line of its own, at its own height.
        heights = [list(line.get_ydata()) for line in figure.axes[0].lines]
        assert ([0.03, 0.03] in heights) == (draw is shared_latents_figure)
        assert [pytest.approx(0.7 if draw is shared_latents_figure else 0.6)] * 2 in heights
        pyplot.close(figure)


def test_each_encoder_is_beside_its_control_in_every_panel(probed: LongTable) -> None:
    from matplotlib import pyplot

    figure = encoders_figure(probed)
    assert figure is not None
    panels = {
        axis.get_title(loc="left").replace("\n", " "): axis for axis in figure.axes if axis.axison
    }
    assert len(panels) == len({row[0] for row in encoders_section(probed).grids[0].rows})
    axis = panels["monosemanticity of vision latents (random ones as rare)"]
    (value, control) = [list(line.get_ydata()) for line in axis.lines]
    assert (value, control) == ([pytest.approx(0.35)], [pytest.approx(0.15)])
    shared = panels["concepts with a shared latent (permuted)"]
    heights = [list(line.get_ydata()) for line in shared.lines]
    # clip and dinov2, without the term and with it.
    assert [[pytest.approx(0.2)] * 2, [0.03] * 2, [pytest.approx(0.7)] * 2, [0.03] * 2] == heights
    # The colours that the weights have in every figure.
    of_weights = [style.series_style((0.0, 1.0), weight)["color"] for weight in (0.0, 1.0)]
    assert [line.get_color() for line in shared.lines[::2]] == of_weights
    assert [tick.get_text() for tick in shared.get_xticklabels()][1:3] == ["clip", "dinov2"]
    pyplot.close(figure)
    assert encoders_figure(LongTable([])) is None
