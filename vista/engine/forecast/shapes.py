"""Sizes of a run's models and data, from what is there already, else from settings or tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from vista.config.data import SPLITS
from vista.config.published import (
    ANNOTATIONS,
    FOLDERS,
    LLM_CONFIGS,
    REFERENCES,
    VISION,
    Rows,
    VisionShape,
)
from vista.engine.artifacts import MANIFEST
from vista.engine.forecast import texts
from vista.engine.forecast.formulas import (
    CPU_RATE,
    L0,
    PRETRAINED_CPU_RATE,
    STANDIN_LLM_CPU_RATE,
    Device,
    Dictionaries,
)
from vista.engine.forecast.model_shapes import (
    LanguageShape,
    first_size,
    gguf_shape,
    language_shape,
    onnx_shape,
    prompt_shape,
    read_config,
    vision_shape,
    vit_parameters,
)
from vista.engine.forecast.video_shapes import VIDEO_FAMILIES, video_shape
from vista.engine.node import Node

Value = TypeVar("Value")

# Words of the drawn world's corpus, all lower case: what a stand-in's vocabulary comes to.
STANDIN_VOCABULARY = 100
# Tokens of a drawn document, on average, with its begin and end.
STANDIN_DOCUMENT = 45


@dataclass(frozen=True)
class Images:
    """Rows of a data set by split, and the different images among all of them."""

    rows: Mapping[str, int]
    images: int

    @property
    def total(self) -> int:
        """Rows of all splits."""
        return sum(self.rows.values())


class Shapes:
    """Looks up what the nodes of a plan work on, and on how many threads a job of theirs runs.

    Everything is None where it is not known.
    """

    def __init__(self, results: Path, nodes: Iterable[Node], threads: int = 1) -> None:
        self.results = results
        self.nodes = list(nodes)
        self.threads = threads
        self._images: dict[str, Images | None] = {}
        self._conversations: dict[str, texts.Conversation | None] = {}
        self._llms: dict[str, LanguageShape | None] = {}
        self._vision: dict[str, VisionShape | None] = {}
        self._done: dict[str, bool] = {}

    def done(self, node: Node) -> bool:
        """Whether the artifact is there."""
        if node.id not in self._done:
            self._done[node.id] = (self.results / node.path / MANIFEST).is_file()
        return self._done[node.id]

    @property
    def cpu(self) -> Device:
        """The CPU as a job has it."""
        return Device(gpu=False, dtype="float32", threads=self.threads)

    def device(self, model: Mapping[str, Any], processes: int = 1) -> Device:
        """The device that a model's settings name ("auto" counts as a GPU), as one of several
        processes has it."""
        gpu = model["device"] != "cpu" or model.get("device_map") is not None
        threads, dtype = max(1, self.threads // processes), model.get("dtype", "float32")
        small = model.get("source", {}).get("kind", "standin") == "standin"
        return Device(gpu, dtype, threads, CPU_RATE if small else PRETRAINED_CPU_RATE)

    def llm_device(self, node: Node, processes: int = 1) -> Device:
        """The device of a job that runs a language model."""
        device = self.device(node.order["llm"], processes)
        if node.order["llm"]["source"]["kind"] == "standin":
            return replace(device, cpu_rate=STANDIN_LLM_CPU_RATE)
        return device

    def images(self, records: Node | None) -> Images | None:
        """Rows and images of a table of records: counted if it is there, else by settings."""
        if records is None:
            return None
        if records.id not in self._images:
            counted = self._counted(records) if self.done(records) else None
            self._images[records.id] = counted or _expected(records)
        return self._images[records.id]

    def rows(self, records: Node | None, split: str) -> int | None:
        """Rows of a split in a table of records."""
        images = self.images(records)
        return None if images is None else images.rows.get(split, 0)

    def conversation(self, node: Node) -> texts.Conversation | None:
        """How long the conversations are that a node reads: counted, else by settings."""
        records = one(node, "records")
        if records is None:
            return None
        if records.id not in self._conversations:
            table = self.results / records.path / "records.parquet"
            counted = texts.counted(table) if self.done(records) else None
            expected = texts.expected(records, one(records, "world"))
            self._conversations[records.id] = counted or expected
        return self._conversations[records.id]

    def features(self, node: Node, role: str = "features") -> VisionShape | None:
        """The encoder whose features a node reads."""
        features = one(node, role)
        return self.vision(features) if features else None

    def saes(self, node: Node, role: str = "saes") -> Dictionaries | None:
        """The text SAEs that a node reads."""
        imported = many(node, role)
        widths = all_known(self.d_sae(sae) for sae in imported)
        if widths is None:
            return None
        layers = [int(sae.settings["layer"]) for sae in imported]
        return Dictionaries(layers, widths, [_active(sae) for sae in imported])

    def _counted(self, records: Node) -> Images | None:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        path = self.results / records.path / "records.parquet"
        try:
            # Not `read_table`, which loads pandas where it is installed.
            table = pq.ParquetFile(path).read(columns=["split", "path"])
        except (OSError, ValueError):
            return None
        counts = pc.value_counts(table["split"])
        rows = zip(
            counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True
        )
        return Images(dict(rows), pc.count_distinct(table["path"]).as_py())

    def llm(self, node: Node) -> LanguageShape | None:
        """The language model of a job that runs one, or of the stage that makes one."""
        source = one(node, "llm")
        if source is None and "llm" in node.settings:
            path = node.order["llm"]["source"].get("path")
            return self._llm_at(Path(path)) if path else None
        source = source or node
        if source.id not in self._llms:
            self._llms[source.id] = self._llm_from(source)
        return self._llms[source.id]

    def _llm_from(self, source: Node) -> LanguageShape | None:
        settings = source.settings
        shape = self._llm_at(self.results / source.path / "model") if self.done(source) else None
        if shape is not None:
            return shape
        if source.stage == "fetch_model":
            config = LLM_CONFIGS.get(settings["repo"])
            return language_shape(config) if config else None
        if source.stage == "import_gguf":
            return gguf_shape(self.file(source))
        return LanguageShape(
            d_model=settings["d_model"],
            blocks=settings["n_blocks"],
            d_mlp=settings["d_mlp"],
            heads=settings["n_heads"],
            kv_heads=settings["n_heads"],
            head_dim=settings["d_model"] // settings["n_heads"],
            vocabulary=STANDIN_VOCABULARY,
            tied=True,
            gated_mlp=True,
            eager=settings["family"] == "gemma2",
        )

    def _llm_at(self, folder: Path) -> LanguageShape | None:
        return language_shape(read_config(folder / "config.json"))

    def vision(self, node: Node) -> VisionShape | None:
        """The encoder of `features`, or of the stage that makes one; of `combine_features` and
        `prompt_features` one whose features are as large. Of a store of class tokens the patches
        are one, of pooled ones as many as there are tokens; the others are counted with those
        before them."""
        if node.stage == "combine_features":
            return self._combined(node)
        if node.stage == "prompt_features":
            return prompt_shape(one(node, "pipeline"), node.settings["pipeline"]["source"])
        shape = self._encoder(node)
        settings = node.settings.get("encoder", {})
        tokens = 1 if settings.get("tokens") == "class" else (settings.get("pool") or 0) ** 2
        if shape is None or not tokens:
            return shape
        return replace(shape, patches=tokens, prefix=shape.prefix + shape.patches - tokens)

    def _encoder(self, node: Node) -> VisionShape | None:
        source, own = one(node, "encoder"), node.settings.get("encoder", {}).get("source", {})
        if own.get("family") in VIDEO_FAMILIES:
            fetched = self.results / source.path / "model" if source else None
            return video_shape(own, fetched)
        if source is None and own:
            return vision_shape(Path(own["path"]), own.get("size")) if own.get("path") else None
        source = source or node
        if source.id not in self._vision:
            self._vision[source.id] = self._vision_from(source)
        return self._vision[source.id]

    def _combined(self, node: Node) -> VisionShape | None:
        shapes = all_known(self.vision(features) for features in many(node, "features"))
        if shapes is None:
            return None
        widths = [shape.d_vision for shape in shapes]
        source = node.settings["encoder"]["source"]
        if source["how"] == "concat":
            return replace(shapes[0], d_vision=sum(widths))
        if grid := source.get("grid"):
            values = sum(shape.patches * shape.d_vision for shape in shapes)
            return replace(shapes[0], d_vision=values // grid**2, patches=grid**2)
        return replace(shapes[0], d_vision=max(widths), patches=sum(s.patches for s in shapes))

    def _vision_from(self, source: Node) -> VisionShape | None:
        settings = source.settings
        if source.stage == "train_encoder":
            d, blocks = settings["d_vision"], settings["n_blocks"]
            parameters = vit_parameters(d, blocks, None)
            prefix = 0 if settings["family"] == "siglip" else 1
            patches = (settings["image_size"] // settings["patch"]) ** 2
            # CLIP and SigLIP come with a text part of like size.
            loaded = parameters * (1 if settings["family"] == "dinov2" else 2)
            return VisionShape(parameters, loaded, d, blocks, patches, prefix)
        shape = vision_shape(self.results / source.path / "model") if self.done(source) else None
        if shape is None and source.stage == "import_onnx":
            return onnx_shape(self.file(source), settings["size"])
        return shape or VISION.get(str(settings.get("repo")))

    def file(self, source: Node) -> Path:
        """The file that a stage converts: of a package, or the user's own."""
        package, name = one(source, "package"), str(source.settings["file"])
        if package is None:
            return Path(name)
        folder = package.order["package"].get("path")
        if folder is not None and not self.done(package):
            return Path(folder) / name
        return self.results / package.path / "files" / name

    def d_sae(self, node: Node) -> int | None:
        """Latents of an `import_sae`: counted if it is there, else by settings or its id."""
        if self.done(node):
            return first_size(read_config(self.results / node.path / "sae.json"), "d_sae")
        trained = one(node, "train_sae")
        if trained is not None:
            return first_size(trained.settings["sae"], "d_sae")
        sae = node.settings["sae"]
        if sae.get("release") is None:
            return first_size(read_config(Path(sae["path"]) / "cfg.json"), "d_sae")
        return width_of(str(sae["sae_id"]), self.d_model(node))

    def d_model(self, node: Node) -> int | None:
        """Width of the stream that an SAE (fetched, trained, imported) reads."""
        return self._streams.get(node.id)

    @cached_property
    def imports(self) -> Mapping[str, Node]:
        """Artifact that an SAE comes in -> the `import_sae` that reads it."""
        imports = (node for node in self.nodes if node.stage == "import_sae")
        return {source.id: node for node in imports for source in node.parents()}

    @cached_property
    def _streams(self) -> Mapping[str, int]:
        """SAE -> d_model of the language model that some job runs together with it."""
        widths: dict[str, int] = {}
        for node in self.nodes:
            saes = [*many(node, "saes"), *many(node, "sae")]
            if node.stage == "train_sae":
                saes.append(node)
            shape = self.llm(node) if saes and "llm" in node.settings else None
            for sae in saes:
                for source in (sae, *sae.parents()):
                    if shape is not None and source.stage.endswith("_sae"):
                        widths[source.id] = shape.d_model
        return widths


def width_of(sae_id: str, d_model: int | None) -> int | None:
    """Return the latents that a published id tells: `width_16k` 16,384, `l0r_8x` 8 x d_model."""
    width = re.search(r"width_(\d+)([km])", sae_id)
    if width:
        return int(width[1]) * (1 << (10 if width[2] == "k" else 20))
    expansion = re.search(r"(?:^|_)(\d+)x$", sae_id)
    return int(expansion[1]) * d_model if expansion and d_model else None


def one(node: Node, role: str) -> Node | None:
    """Return the node's single input of a role, if it has one."""
    source = node.inputs.get(role)
    return source if isinstance(source, Node) else None


def many(node: Node, role: str) -> tuple[Node, ...]:
    """Return the node's inputs of a role, none, one or several."""
    sources = node.inputs.get(role, ())
    return sources if isinstance(sources, tuple) else (sources,)


def job_count(node: Node) -> int:
    """Return the jobs that make an artifact: its parts, where these are jobs of their own, and one
    that joins them."""
    return node.jobs + (node.jobs > 1)


def all_known(values: Iterable[Value | None]) -> list[Value] | None:
    """Return all values, or None where one of them is not known."""
    every = list(values)
    known = [value for value in every if value is not None]
    return known if len(known) == len(every) else None


def _active(imported: Node) -> float:
    """Active latents a token that an SAE's training aims at, or the usual figure."""
    trained = one(imported, "train_sae")
    return float(trained.settings["sae"]["k"]) if trained else L0


def _expected(records: Node) -> Images | None:
    """Rows by settings: scenes to draw, published counts, or a limit (then at most so many)."""
    world = one(records, "world")
    if world is not None:
        scenes: dict[str, int] = dict(world.settings["scenes"])
        # Scenes of held-out photographs are part of the split test.
        scenes["test"] += scenes.pop("held_out", 0)
        return Images(scenes, sum(scenes.values()))
    settings = records.settings
    if "prompts" in settings:
        sizes = settings["prompts"]["split_sizes"]
        return Images(dict(zip(SPLITS, sizes, strict=True)), sum(sizes))
    every, limit = settings.get("every") or 1, settings.get("limit")
    if settings["kind"] == "refcoco":
        listed_by = _referred(settings["references"])
        if listed_by is None:
            return None
        counts = {split: math.ceil(count / every) for split, count in listed_by.items()}
        rows = {split: min(count, limit or count) for split, count in counts.items()}
        return Images(rows, sum(rows.values()))
    rows = {}
    known = 0
    for split, (name, share) in _sources(settings).items():
        listed = _listed(settings, Path(name))
        if listed is not None:
            count = math.ceil(listed.rows * share / every)
            rows[split] = min(count, limit or count)
            known += listed.images
        elif limit is not None:
            rows[split] = limit
            known += limit
        else:
            return None
    return Images(rows, min(sum(rows.values()), known))


def _referred(references: Sequence[str]) -> Mapping[str, int] | None:
    """Images by split that have an expression, where one file tells all of them."""
    names = ["/".join(Path(name).parts[-2:]) for name in references]
    return REFERENCES.get(names[0]) if len(names) == 1 else None


def _listed(settings: Mapping[str, Any], source: Path) -> Rows | None:
    """What a text file lists if it is there, or what is known of an annotation file by its name, of
    a folder by its name or by the name of the one above it too."""
    if settings["kind"] == "list":
        if not source.is_file():
            return None
        count = sum(1 for line in source.read_bytes().splitlines() if line.strip())
        return Rows(count, count)
    if listed := ANNOTATIONS.get(source.name):
        return listed
    place = Path(settings["images"]) / source
    known = FOLDERS.get(f"{place.parent.name}/{place.name}") or FOLDERS.get(place.name)
    return Rows(known, known) if known else None


def _sources(settings: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """The file of each split that has one, and the share of its rows that belong there."""
    if settings.get("splits"):
        return {split: (_name(source), 1.0) for split, source in settings["splits"].items()}
    name = _name(settings.get("file") or settings.get("files") or "")
    shares: Mapping[str, float] = settings.get("fractions") or {}
    return {split: (name, shares[split]) for split in SPLITS if shares.get(split)}


def _name(source: Any) -> str:
    if isinstance(source, Mapping):
        return str(source.get("instances") or source.get("captions"))
    return str(source)
