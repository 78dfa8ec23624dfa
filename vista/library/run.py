"""A run of the workflow, opened to read what it made."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vista.engine.artifacts import Artifact, open_artifact
from vista.engine.lineage import inputs_there
from vista.errors import UserError, reason_of
from vista.explore.latents import LatentView
from vista.library.exported import ExportedLatents, exported_artifact
from vista.library.latents import Latents
from vista.report.catalogue import CATALOGUE

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from PIL import Image

    from vista.readout import Readout
    from vista.sae.label_table import LatentLabels

_COLUMNS = (
    *("stage", "name", "encoder", "llm", "sae_weight", "seed", "control", "method", "layer"),
    "folder",
)
_LARGEST = 200_000_000  # bytes of a catalogue
# Latents of a split that is not evaluated have its name after the point's.
_OTHER_SPLIT = re.compile("-(train|validation)-[0-9a-f]+$")


class Run:
    """A run of the workflow, also one that is half done.

    Attributes:
        results: The results folder.
        name: Name of the run; None where it has no report yet.

    Examples:
        >>> run = vista.open("results")
        >>> list(run.points().columns)
        ['encoder', 'llm', 'sae_weight', 'seed', 'control', 'folder']
        >>> table = run.table()
        >>> rates = table[table.metric == "matching_rate"]
        >>> bool(rates.value.between(0, 1).all())
        True
        >>> run.features("dinov2").dims
        ('image', 'token', 'channel')
    """

    def __init__(
        self, results: Path, catalogue: Mapping[str, Any], *, is_export: bool = False
    ) -> None:
        self.results, self._is_export = results, is_export
        self.name: str | None = catalogue.get("run")
        self._entries: list[dict[str, Any]] = list(catalogue["artifacts"])

    def __repr__(self) -> str:
        return f"<Run {self.name or ''} in {self.results}: {len(self._entries)} artifacts>"

    def artifacts(self, stage: str | None = None) -> pd.DataFrame:
        """Return the finished artifacts as a table: what each is of, and its folder.

        Args:
            stage: A stage; None: all.
        """
        import pandas as pd

        rows = [entry for entry in self._entries if stage in (None, entry["stage"])]
        return pd.DataFrame(
            [[entry.get(column) for column in _COLUMNS] for entry in rows], columns=list(_COLUMNS)
        )

    def points(self) -> pd.DataFrame:
        """Return the points of the sweep that can be read: encoder, llm, sae_weight, seed and
        control of each artifact of latents of the evaluated split, and its folder."""
        table = self.artifacts("latents")
        columns = ["encoder", "llm", "sae_weight", "seed", "control", "folder"]
        held = [_is_evaluated(folder) for folder in table["folder"]]
        return table.loc[held, columns].reset_index(drop=True)

    def readout(
        self,
        encoder: str | None = None,
        llm: str | None = None,
        sae_weight: float | None = None,
        seed: int | None = None,
        method: str | None = None,
    ) -> Readout:
        """Load the models of a point of the sweep.

        Args:
            encoder: Name of the encoder; None: the only one.
            llm: Name of the language model; None: the only one.
            sae_weight: Weight of the SAE term in the projector's training; None: the largest one.
            seed: Seed of the projector; None: the smallest one.
            method: Method of the directions of concepts; None: labelled latents.

        Raises:
            UserError: There is no such point, or several and no default; its parts do not belong
                together, are damaged, or cannot be loaded.
        """
        from vista.readout import Readout

        if self._is_export:
            raise UserError(
                f"{self.results.parent} is an export, which has no models: open results"
            )
        point = self._point(encoder, llm, sae_weight, seed, None)
        return Readout.of_latents(self.results / point["folder"], method)

    def first(
        self,
        encoder: str | None = None,
        llm: str | None = None,
        sae_weight: float | None = None,
        seed: int | None = None,
    ) -> tuple[str, str, float | None, int | None]:
        """Return what is asked for, with the first encoder and language model, by name, that have
        a point in the last report.

        Raises:
            UserError: There is no such point.
        """
        entries = self._matching(
            ("latents",), encoder=encoder, llm=llm, sae_weight=sae_weight, seed=seed
        )
        entries = [entry for entry in entries if "control" not in entry]
        entries = [entry for entry in entries if not entry.get("unreported")] or entries
        places = sorted((str(e.get("encoder")), str(e.get("llm"))) for e in entries)
        if not places:
            raise UserError(f"{self.results} has latents of controls alone")
        return (*places[0], sae_weight, seed)

    def features(self, encoder: str | None = None) -> xr.DataArray:
        """Return the stored features of an encoder, lazily: image x token x channel, float16.

        Args:
            encoder: Name of the encoder; None: the only one.

        Raises:
            UserError: There are none, or the store is damaged.
        """
        import xarray as xr

        entry = self._one("features", "combine_features", encoder=encoder)
        store = self._artifact(entry).store("features.zarr")
        features: xr.DataArray = xr.open_zarr(store, consolidated=True)["features"]
        return features

    def latents(
        self,
        encoder: str | None = None,
        llm: str | None = None,
        sae_weight: float | None = None,
        seed: int | None = None,
        control: str | None = None,
    ) -> Latents:
        """Return the stored latents of a point of the sweep; arguments as `readout`.

        Args:
            control: A control of the point; None: the point itself.

        Raises:
            UserError: There is no such point, or several and no default; or the store is damaged.
        """
        point = self._point(encoder, llm, sae_weight, seed, control)
        if self._is_export:
            return Latents(ExportedLatents(self.results, point, self._entries))
        return Latents(LatentView(self.results / point["folder"]))

    def labels(self, llm: str | None = None, layer: int | None = None) -> pd.DataFrame:
        """Return the labels of a language model's SAEs: layer, latent, label, share, density.

        Args:
            llm: Name of the language model; None: the only one.
            layer: Layer; None: all.

        Raises:
            UserError: There are none, or a file is damaged.
        """
        import pandas as pd

        entries = self._matching(("label_latents", "import_labels"), llm=llm, layer=layer)
        if llm is None:
            self._choose(entries, "llm")
        tables = [_label_frame(table) for table in map(self._labels, entries)]
        return pd.concat(tables, ignore_index=True)

    def table(self) -> pd.DataFrame:
        """Return the report's long table: a figure a row, with interval, chance level and n.

        Raises:
            UserError: The run has no report yet, or the table is damaged.
        """
        import pandas as pd

        entries = [e for e in self._entries if e["stage"] == "report" and not e.get("unreported")]
        if not entries:
            raise UserError(
                f"{self.results} has no report yet: finish the run, or read the metrics that are "
                "done by `vista explore`"
            )
        file: pd.DataFrame = pd.read_parquet(self._artifact(entries[-1]).file("summary.parquet"))
        return file

    def image(self, image_id: str) -> Image.Image:
        """Return an image of the run's data by its id, RGB.

        Raises:
            UserError: There is no such image, or its file is gone.
        """
        from vista.data.records import read_records
        from vista.inputs.image_files import image_files
        from vista.readout.images import open_images

        for entry in self._matching(("records",)):
            records = self._artifact(entry)
            table = read_records(records.file("records.parquet"))
            try:
                (row,) = table.rows_by_id([image_id])
            except UserError:
                continue
            if self._is_export:
                folder = self.results.parent / "images" / records.path.name
                ((_, image),) = open_images(folder / f"{row}.png")
                return image
            world, fetched = (
                next(iter(inputs_there(records, role)), None) for role in ("world", "fetched")
            )
            return image_files(records, world, fetched).open(table[int(row)])
        raise UserError(f"the data of {self.results} have no image {image_id!r}")

    def _point(
        self,
        encoder: str | None,
        llm: str | None,
        sae_weight: float | None,
        seed: int | None,
        control: str | None,
    ) -> dict[str, Any]:
        """Return the one artifact of latents of the evaluated split that is asked for."""
        entries = [
            entry
            for entry in self._matching(
                ("latents",), encoder=encoder, llm=llm, sae_weight=sae_weight, seed=seed
            )
            if entry.get("control") == control
        ]
        entries = [e for e in entries if _is_evaluated(e["folder"])] or entries
        if not entries:
            raise UserError(
                f"{self.results} has no such latents"
                + (f" of control {control!r}" if control else "")
                + f"; its points: {self._known('latents')}"
            )
        entries = [e for e in entries if not e.get("unreported")] or entries
        for key in ("encoder", "llm"):
            self._choose(entries, key)
        weight = max(entry.get("sae_weight", 0.0) for entry in entries)
        entries = [entry for entry in entries if entry.get("sae_weight", 0.0) == weight]
        first = min(entry.get("seed", 0) for entry in entries)
        entries = [entry for entry in entries if entry.get("seed", 0) == first]
        self._choose(entries, "folder")
        return entries[0]

    def _one(self, *stages: str, **wanted: Any) -> dict[str, Any]:
        entries = self._matching(stages, **wanted)
        for key, value in wanted.items():
            if value is None:
                self._choose(entries, key)
        entries = [e for e in entries if not e.get("unreported")] or entries
        self._choose(entries, "folder")
        return entries[0]

    def _matching(self, stages: Sequence[str], **wanted: Any) -> list[dict[str, Any]]:
        """Return the entries of stages with the values that are wanted. Raises UserError if there
        are none."""
        entries = [
            entry
            for entry in self._entries
            if entry["stage"] in stages
            and all(entry.get(key) == value for key, value in wanted.items() if value is not None)
        ]
        if not entries:
            asked = ", ".join(
                f"{key} {value}" for key, value in wanted.items() if value is not None
            )
            raise UserError(
                f"{self.results} has no {' or '.join(stages)}"
                + (f" of {asked}" if asked else "")
                + f"; it has {self._known(*stages)}"
            )
        return entries

    def _known(self, *stages: str) -> str:
        names = sorted({str(e["name"]) for e in self._entries if e["stage"] in stages})
        return (", ".join(names[:12]) + (", ..." if len(names) > 12 else "")) or "none"

    def _choose(self, entries: Sequence[Mapping[str, Any]], key: str) -> None:
        """Refuse entries that differ in a key. Raises UserError."""
        values = sorted({str(entry.get(key)) for entry in entries})
        if len(values) > 1:
            what = "artifact" if key == "folder" else key
            raise UserError(f"name one {what} of {', '.join(values)}")

    def _artifact(self, entry: Mapping[str, Any]) -> Artifact:
        if self._is_export:
            return exported_artifact(self.results, entry)
        return open_artifact(self.results / str(entry["folder"]), str(entry["stage"]))

    def _labels(self, entry: Mapping[str, Any]) -> LatentLabels:
        from vista.sae.label_table import FILE, read_labels

        return read_labels(self._artifact(entry).file(FILE))


def open_run(source: str | Path = "results") -> Run:
    """Open a run.

    Args:
        source: A results folder; a config, whose results are taken, only what it asks for; or a
            folder that `vista explore --export` wrote.

    Raises:
        UserError: There is none, or nothing is finished yet.
    """
    from vista.explore.finished import Finished

    path, wanted = Path(source), None
    if path.suffix in (".yaml", ".yml") and not path.is_dir():
        from vista.engine.plan import load_plan

        plan = load_plan(path)
        path, wanted = Path(plan.results), {node.path for node in plan.nodes.values()}
    if not path.is_dir():
        raise UserError(
            f"{path} is no folder: name a results folder, or a config whose run has begun"
        )
    exported = path / "results"
    if (path / CATALOGUE).is_file() and exported.is_dir():
        return Run(exported, _exported(path / CATALOGUE), is_export=True)
    catalogue = Finished(path).catalogue(live=False)
    if wanted is not None:
        kept = [entry for entry in catalogue["artifacts"] if entry["folder"] in wanted]
        catalogue = {**catalogue, "artifacts": kept}
    if not catalogue["artifacts"]:
        raise UserError(f"{path} has no finished artifact yet: run snakemake")
    return Run(path, catalogue)


def _exported(path: Path) -> dict[str, Any]:
    """Return the catalogue of an export. Raises UserError if it is none."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        catalogue = json.loads(path.read_bytes())
        entries = [dict(entry) for entry in catalogue["artifacts"]]
        for entry in entries:
            stage, folder = str(entry["folder"]).split("/")
            if entry["stage"] != stage or stage in ("", ".", "..") or folder in ("", ".", ".."):
                raise ValueError("a folder is none of an artifact")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no catalogue ({reason_of(error)}): export again") from error
    return {**catalogue, "artifacts": entries}


def _is_evaluated(folder: str) -> bool:
    return _OTHER_SPLIT.search(folder) is None


def _label_frame(table: LatentLabels) -> pd.DataFrame:
    import pandas as pd

    columns = {
        "layer": table.layer,
        "latent": range(len(table.label_s)),
        "label": list(table.label_s),
        "share": table.share_s,
        "density": table.density_s,
    }
    if table.auroc_s is not None:
        columns["auroc"] = table.auroc_s
    return pd.DataFrame(columns)
