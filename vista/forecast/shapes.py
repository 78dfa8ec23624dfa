"""Sizes of a run's models and data, from what is there already, else from settings or tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vista.artifacts import MANIFEST
from vista.config.data import SPLITS
from vista.config.published import (
    ANNOTATIONS,
    FOLDERS,
    LLM_CONFIGS,
    VISION,
    Rows,
    VisionShape,
)
from vista.node import Node

# Words of the drawn world's corpus, all lower case: what a stand-in's vocabulary comes to.
STANDIN_VOCABULARY = 100
# Tokens of a drawn scene's longest caption of one object, and its end.
STANDIN_PROMPT = 16


@dataclass(frozen=True)
class LanguageShape:
    """Sizes of a decoder. `loaded` counts the parameters of other parts that come with it too."""

    d_model: int
    blocks: int
    d_mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    gated_mlp: bool
    eager: bool
    positions: int = 0
    other_parts: float = 0.0

    @property
    def block_parameters(self) -> float:
        """Attention, MLP and norms of all blocks."""
        attention = 2 * self.d_model * self.head_dim * (self.heads + self.kv_heads)
        mlp = (3 if self.gated_mlp else 2) * self.d_model * self.d_mlp
        return float(self.blocks * (attention + mlp + 4 * self.d_model))

    @property
    def parameters(self) -> float:
        """The blocks, the last norm, embeddings and head."""
        tables = self.vocabulary * (1 if self.tied else 2) + self.positions
        return self.block_parameters + self.d_model * (tables + 1)

    @property
    def loaded(self) -> float:
        """All parameters that are loaded."""
        return self.parameters + self.other_parts


def language_shape(config: Mapping[str, Any]) -> LanguageShape | None:
    """Return the sizes that a config.json gives; None where it lacks one.

    Gemma 2 computes its attention scores in full, since the fused way cannot cap them.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    d_model = text.get("hidden_size") or text.get("n_embd")
    blocks = text.get("num_hidden_layers") or text.get("n_layer")
    heads = text.get("num_attention_heads") or text.get("n_head")
    vocabulary = text.get("vocab_size")
    if not (d_model and blocks and heads and vocabulary):
        return None
    kind = str(config.get("model_type"))
    plain = kind in ("gpt2", "gpt_neox")
    return LanguageShape(
        d_model=d_model,
        blocks=blocks,
        d_mlp=text.get("intermediate_size") or text.get("n_inner") or 4 * d_model,
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or d_model // heads,
        vocabulary=vocabulary,
        tied=bool(text.get("tie_word_embeddings", kind.startswith(("gpt2", "gemma")))),
        gated_mlp=not plain,
        eager=kind == "gemma2",
        positions=text.get("n_positions") or 0,
        other_parts=_vision_part(config.get("vision_config")),
    )


def _vision_part(config: Mapping[str, Any] | None) -> float:
    if not config or not config.get("hidden_size"):
        return 0.0
    return _vit_parameters(
        config["hidden_size"], config.get("num_hidden_layers", 0), config.get("intermediate_size")
    )


def _vit_parameters(d: int, blocks: int, d_mlp: int | None) -> float:
    """Attention and MLP of a ViT's blocks; embeddings and norms are below 1 % of them."""
    return float(blocks * (4 * d * d + 2 * d * (d_mlp or 4 * d)))


def vision_shape(folder: Path) -> VisionShape | None:
    """Return the sizes of a checkpoint's folder; None where its config.json lacks one."""
    config = _json(folder / "config.json")
    vision = config.get("vision_config") or config
    d, blocks, patch = (vision.get(k) for k in ("hidden_size", "num_hidden_layers", "patch_size"))
    size = _input_size(_json(folder / "preprocessor_config.json")) or vision.get("image_size")
    if not (d and blocks and patch and size):
        return None
    parameters = _vit_parameters(d, blocks, vision.get("intermediate_size"))
    text = config.get("text_config") or {}
    beside = _vision_part(text) + text.get("vocab_size", 0) * text.get("hidden_size", 0)
    kind = str(config.get("model_type"))
    prefix = 0 if kind.startswith(("siglip", "ijepa")) else 1 + vision.get("num_register_tokens", 0)
    return VisionShape(parameters, parameters + beside, d, blocks, (size // patch) ** 2, prefix)


def _input_size(preprocessor: Mapping[str, Any]) -> int | None:
    """The side of the square that the preprocessor crops or resizes to, as the encoders read it."""
    keys = ("crop_size", "size") if preprocessor.get("do_center_crop") else ("size",)
    for key in keys:
        size = preprocessor.get(key)
        if isinstance(size, Mapping):
            size = size.get("height") or size.get("shortest_edge")
        if size:
            return int(size)
    return None


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
    """Looks up what the nodes of a plan work on. Everything is None where it is not known."""

    def __init__(self, results: Path, nodes: Iterable[Node]) -> None:
        self.results = results
        self.nodes = list(nodes)
        self._images: dict[str, Images | None] = {}
        self._llms: dict[str, LanguageShape | None] = {}
        self._vision: dict[str, VisionShape | None] = {}
        self._done: dict[str, bool] = {}

    def done(self, node: Node) -> bool:
        """Whether the artifact is there."""
        if node.id not in self._done:
            self._done[node.id] = (self.results / node.path / MANIFEST).is_file()
        return self._done[node.id]

    def images(self, records: Node) -> Images | None:
        """Rows and images of a table of records: counted if it is there, else by settings."""
        if records.id not in self._images:
            found = self._counted(records) if self.done(records) else None
            self._images[records.id] = found or _expected(records)
        return self._images[records.id]

    def _counted(self, records: Node) -> Images | None:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        path = self.results / records.path / "records.parquet"
        try:
            # Not `read_table`, which loads pandas where it is installed.
            table = pq.ParquetFile(path).read(columns=["split", "path"])
        except (OSError, ValueError):
            return None
        found = pc.value_counts(table["split"])
        rows = zip(
            found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True
        )
        return Images(dict(rows), pc.count_distinct(table["path"]).as_py())

    def llm(self, node: Node) -> LanguageShape | None:
        """The language model of a job that runs one, of `fetch_model` or of `train_llm`."""
        source = one(node, "llm")
        if source is None and "llm" in node.settings:
            path = node.order["llm"]["source"].get("path")
            return self._llm_at(Path(path)) if path else None
        source = source or node
        if source.id not in self._llms:
            self._llms[source.id] = self._llm_from(source)
        return self._llms[source.id]

    def _llm_from(self, source: Node) -> LanguageShape | None:
        own = source.settings
        found = self._llm_at(self.results / source.path / "model") if self.done(source) else None
        if found is not None:
            return found
        if source.stage == "fetch_model":
            config = LLM_CONFIGS.get(own["repo"])
            return language_shape(config) if config else None
        head = own["d_model"] // own["n_heads"]
        return LanguageShape(
            d_model=own["d_model"],
            blocks=own["n_blocks"],
            d_mlp=own["d_mlp"],
            heads=own["n_heads"],
            kv_heads=own["n_heads"],
            head_dim=head,
            vocabulary=STANDIN_VOCABULARY,
            tied=True,
            gated_mlp=True,
            eager=own["family"] == "gemma2",
        )

    def _llm_at(self, folder: Path) -> LanguageShape | None:
        return language_shape(_json(folder / "config.json"))

    def vision(self, node: Node) -> VisionShape | None:
        """The encoder of `features`, of `fetch_model` or of `train_encoder`; of
        `combine_features` and `prompt_features` one whose features are as large. Of a store of
        class tokens the patches are one, the others stand before it."""
        if node.stage == "combine_features":
            return self._combined(node)
        if node.stage == "prompt_features":
            return self._prompts(node)
        shape = self._encoder(node)
        if shape is None or node.settings.get("encoder", {}).get("tokens") != "class":
            return shape
        return replace(shape, patches=1, prefix=shape.prefix + shape.patches - 1)

    def _encoder(self, node: Node) -> VisionShape | None:
        source = one(node, "encoder")
        if source is None and "encoder" in node.settings:
            path = node.order["encoder"]["source"].get("path")
            return vision_shape(Path(path)) if path else None
        source = source or node
        if source.id not in self._vision:
            self._vision[source.id] = self._vision_from(source)
        return self._vision[source.id]

    def _combined(self, node: Node) -> VisionShape | None:
        found = [self.vision(each) for each in many(node, "features")]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        widths = [each.d_vision for each in known]
        if node.settings["encoder"]["source"]["how"] == "concat":
            return replace(known[0], d_vision=sum(widths))
        return replace(known[0], d_vision=max(widths), patches=2 * known[0].patches)

    def _prompts(self, node: Node) -> VisionShape | None:
        """A text encoder, with a stand-in's usual prompt for an image, else the longest."""
        made, source = one(node, "pipeline"), node.settings["pipeline"]["source"]
        if made is None:
            text = _json(Path(source["path"]) / "text_encoder" / "config.json")
        else:
            width = made.settings["recipe"]["text_width"]
            text = {
                "hidden_size": width,
                "intermediate_size": 2 * width,
                "num_hidden_layers": made.settings["recipe"]["text_blocks"],
                "max_position_embeddings": STANDIN_PROMPT,
            }
        keys = ("hidden_size", "num_hidden_layers", "max_position_embeddings")
        d, blocks, tokens = (_int(text.get(key)) for key in keys)
        if not (d and blocks and tokens):
            return None
        parameters = _vit_parameters(d, blocks, _int(text.get("intermediate_size")))
        return VisionShape(parameters, parameters, d, blocks, tokens, 1)

    def _vision_from(self, source: Node) -> VisionShape | None:
        own = source.settings
        if source.stage == "train_encoder":
            d, blocks = own["d_vision"], own["n_blocks"]
            parameters = _vit_parameters(d, blocks, None)
            prefix = 0 if own["family"] == "siglip" else 1
            patches = (own["image_size"] // own["patch"]) ** 2
            # CLIP and SigLIP come with a text part of like size.
            loaded = parameters * (1 if own["family"] == "dinov2" else 2)
            return VisionShape(parameters, loaded, d, blocks, patches, prefix)
        found = vision_shape(self.results / source.path / "model") if self.done(source) else None
        return found or VISION.get(own["repo"])

    def d_sae(self, node: Node) -> int | None:
        """Latents of an `import_sae`: counted if it is there, else by settings or its id."""
        if self.done(node):
            return _int(_json(self.results / node.path / "sae.json").get("d_sae"))
        trained = one(node, "train_sae")
        if trained is not None:
            return _int(trained.settings["sae"]["d_sae"])
        own = node.settings["sae"]
        if own.get("release") is None:
            return _int(_json(Path(own["path"]) / "cfg.json").get("d_sae"))
        return width_of(str(own["sae_id"]), self.d_model(node))

    def d_model(self, node: Node) -> int | None:
        """Width of the stream that an SAE (fetched, trained, imported) reads."""
        return self._streams.get(node.id)

    @cached_property
    def imports(self) -> Mapping[str, Node]:
        """Artifact that an SAE comes in -> the `import_sae` that reads it."""
        found = (node for node in self.nodes if node.stage == "import_sae")
        return {source.id: node for node in found for source in node.parents()}

    @cached_property
    def _streams(self) -> Mapping[str, int]:
        """SAE -> d_model of the language model that some job runs together with it."""
        found: dict[str, int] = {}
        for node in self.nodes:
            saes = [*many(node, "saes"), *many(node, "sae")]
            if node.stage == "train_sae":
                saes.append(node)
            shape = self.llm(node) if saes and "llm" in node.settings else None
            for sae in saes:
                for each in (sae, *sae.parents()):
                    if shape is not None and each.stage.endswith("_sae"):
                        found[each.id] = shape.d_model
        return found


def width_of(sae_id: str, d_model: int | None) -> int | None:
    """Return the latents that a published id tells: `width_16k` 16,384, `l0r_8x` 8 x d_model."""
    width = re.search(r"width_(\d+)([km])", sae_id)
    if width:
        return int(width[1]) * (1 << (10 if width[2] == "k" else 20))
    expansion = re.search(r"(?:^|_)(\d+)x$", sae_id)
    return int(expansion[1]) * d_model if expansion and d_model else None


def one(node: Node, role: str) -> Node | None:
    """Return the node's single input of a role, if it has one."""
    found = node.inputs.get(role)
    return found if isinstance(found, Node) else None


def many(node: Node, role: str) -> tuple[Node, ...]:
    """Return the node's inputs of a role, none, one or several."""
    found = node.inputs.get(role, ())
    return found if isinstance(found, tuple) else (found,)


def _expected(records: Node) -> Images | None:
    """Rows by settings: scenes to draw, published counts, or a limit (then at most so many)."""
    world = one(records, "world")
    if world is not None:
        scenes: dict[str, int] = world.settings["scenes"]
        return Images(dict(scenes), sum(scenes.values()))
    own = records.settings
    if "prompts" in own:
        sizes = own["prompts"]["split_sizes"]
        return Images(dict(zip(SPLITS, sizes, strict=True)), sum(sizes))
    every, limit = own.get("every") or 1, own.get("limit")
    rows: dict[str, int] = {}
    known = 0
    for split, (name, share) in _sources(own).items():
        listed = _listed(own, Path(name))
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


def _listed(own: Mapping[str, Any], source: Path) -> Rows | None:
    """What a text file lists if it is there, or what is known of an annotation file by its name, of
    a folder by its name or by the name of the one above it too."""
    if own["kind"] == "list":
        if not source.is_file():
            return None
        count = sum(1 for line in source.read_bytes().splitlines() if line.strip())
        return Rows(count, count)
    if listed := ANNOTATIONS.get(source.name):
        return listed
    place = Path(own["images"]) / source
    known = FOLDERS.get(f"{place.parent.name}/{place.name}") or FOLDERS.get(place.name)
    return Rows(known, known) if known else None


def _sources(own: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """The file of each split that has one, and the share of its rows that belong there."""
    if own.get("splits"):
        return {split: (_name(source), 1.0) for split, source in own["splits"].items()}
    name = _name(own.get("file") or own.get("files") or "")
    shares: Mapping[str, float] = own.get("fractions") or {}
    return {split: (name, shares[split]) for split in SPLITS if shares.get(split)}


def _name(source: Any) -> str:
    if isinstance(source, Mapping):
        return str(source.get("instances") or source.get("captions"))
    return str(source)


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _json(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is none to read: a forecast fails over nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
