"""What a run measured of a readout: a few figures of the report's long table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vista.engine.artifacts import MANIFEST, Artifact, open_artifact
from vista.engine.lineage import parents_of, read_manifest
from vista.report.catalogue import catalogue

TABLE = "summary.parquet"
# Metrics that a model card shows; of each the row over all layers, else one a layer.
METRICS = (
    "matching_rate",
    "pointing_game",
    "fvu",
    "l0",
    "caption_cross_entropy",
    "caption_names_object",
)
COLUMNS = ("metric", "k", "layer", "value", "ci_low", "ci_high", "chance", "n")
_TOP_K = (None, 1, 3)
_KIND = {"caption_cross_entropy": "text"}  # of tokens; of all others those of the image
_PLACE = ("encoder", "llm", "sae_weight", "seed")


def point_figures(latents: Artifact) -> tuple[Mapping[str, Any], ...]:
    """Return the figures of latents' point in the newest report that is made from them.

    None where there is no such report. Each has `COLUMNS`; what does not apply is None.

    Raises:
        UserError: The report is damaged.
    """
    results = latents.path.absolute().parents[1]
    path = f"{latents.path.parent.name}/{latents.path.name}"
    reports = [
        manifest
        for manifest in (results / "report").glob(f"*/{MANIFEST}")
        if path in parents_of(read_manifest(manifest.parent) or {}).get("latents", [])
    ]
    if not reports:
        return ()
    newest = max(reports, key=lambda manifest: manifest.stat().st_mtime_ns).parent
    entry = next(e for e in catalogue(newest)["artifacts"] if e["folder"] == path)
    return tuple(_rows(newest, {key: entry.get(key) for key in _PLACE}))


def _rows(report: Path, place: Mapping[str, Any]) -> list[dict[str, Any]]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(open_artifact(report, "report").file(TABLE))
    keep = pc.is_in(table["metric"], value_set=_strings(METRICS))
    for key, value in place.items():
        keep = pc.and_(keep, pc.equal(table[key], value))
    for key in ("control", "method", "of", "set"):
        keep = pc.and_(keep, pc.is_null(table[key]))
    rows = [
        row
        for row in table.filter(keep).to_pylist()
        if row["k"] in _TOP_K and row["token_kind"] in (None, _KIND.get(row["metric"], "image"))
    ]
    over_all = {(row["metric"], row["k"]) for row in rows if row["layer"] is None}
    chosen = [r for r in rows if r["layer"] is None or (r["metric"], r["k"]) not in over_all]
    order = {metric: place for place, metric in enumerate(METRICS)}
    chosen.sort(key=lambda row: (order[row["metric"]], row["k"] or 0, row["layer"] or 0))
    return [{column: row[column] for column in COLUMNS} for row in chosen]


def _strings(values: tuple[str, ...]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())
