"""Sections and figures of shared latents, the logit lens, and encoders beside each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vista.report.encoders_section import encoders_section
from vista.report.logit_lens_figure import logit_lens_figure
from vista.report.logit_lens_section import logit_lens_section
from vista.report.shared_latents_figure import shared_latents_figure
from vista.report.shared_latents_section import shared_latents_section
from vista.report.table import Figure, LongTable, figures_of

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
                    make_row("lens_matching_rate@3", value, layer, "image", chance=0.1),
                    make_row("lens_matching_gain@3", value - 0.1, layer, "image"),
                ]
                if layer is not None:
                    auroc = make_row("transfer_auroc", 0.8, layer, "image", chance=0.51, n=40)
                    shared.append(auroc)
                    for k in (1, 3):
                        name = f"lens_patches_named@{k}"
                        lens.append(make_row(name, 0.1 * k, layer, "image", chance=0.02, n=77))
            more += figures_of(point | {"metric": "shared_latents"}, shared)
            more += figures_of(point | {"metric": "logit_lens"}, lens)
    own = dict.fromkeys(("llm", "sae_weight", "seed")) | {"encoder": "both", "method": "topk"}
    mono = [make_row("monosemanticity:sae", 0.4), make_row("monosemanticity:neurons", 0.15)]
    more += figures_of(own | {"metric": "monosemanticity"}, mono)
    scores = [("knn_raw", (0.9, 0.5)), ("energy_raw", (0.8, 0.75))]
    ood = [
        make_row(f"ood_auroc:{name}@{where}", value)
        for name, values in scores
        for where, value in zip(("near:a", "far:b"), values, strict=True)
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
    (own,) = probed.select(
        "matching_gain@3", encoder="clip", llm="llama", sae_weight=1.0, seed=0, layer=1
    )
    both = probed.select("matching_gain@3", encoder="clip", llm="llama", sae_weight=1.0, layer=1)
    assert own in both
    mean = sum(f.value or 0 for f in both) / len(both)
    assert with_term["gain gain, latents"].startswith(f"{mean:.3f}")
    assert with_term["shuffled patches@3"] == "0.300"
    assert with_term["shuffled n patches"] == "77"


def test_encoders_stand_in_one_table_also_where_no_projector_was_trained(
    probed: LongTable,
) -> None:
    found = rows_of(encoders_section(probed))
    assert len(found) == 3 * 2 * 2 + 1
    alone = found[0]
    assert (alone[" encoder"], alone["encoder LLM"]) == ("both", "–")
    # The best score by its mean over the sets (.775), not by its best set (.9).
    assert alone["monosemanticity best OOD AUROC"] == "0.775 (energy_raw)"
    assert alone["FVU monosemanticity"] == "0.400 (0.150)"
    clip = next(row for row in found[1:] if row["LLM λ"] == "1")
    assert clip["λ probe"] == "0.910"
    assert clip["caption CE change"] == "+3.0 %"
    values = [
        f.value or 0
        for f in probed.select("fvu", encoder="clip", llm="gemma", sae_weight=1.0, seed=0)
        if f.token_kind == "image"
    ]
    assert f"{sum(values) / 3:.3f}" in clip["chance FVU"]


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
