"""The hierarchy of a store: begun with its identity, sealed with consolidated metadata.

A store is complete when its root says so, and the root is written last. The root carries a digest
of all metadata, so that a flipped bit in a shape or in a chunk size is noticed as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vista.engine.artifacts import canonical_json, digest_text
from vista.errors import UserError
from vista.store.arrays import Array, ArrayReader, ArraySpec, write_array
from vista.store.files import FileSum, damaged, publish_json, read_json, sum_file, sweep

META = "zarr.json"


def image_spec(n_images: int) -> ArraySpec:
    """Return the spec of the dimension coordinate `image`: image ids as strings."""
    attributes = {"units": "1", "long_name": "image id"}
    rows = min(max(n_images, 1), 65536)
    return ArraySpec((n_images,), None, ("image",), rows, rows, attributes=attributes)


def grid_coordinates(grid: tuple[int, int]) -> dict[str, tuple[ArraySpec, Array]]:
    """Return row and column of each image token (row-major) as coordinates of `token`."""
    n_tokens = grid[0] * grid[1]
    coordinates = {}
    for axis, name in enumerate(("row", "column")):
        attributes = {"units": "patch", "long_name": f"{name} of the token in the patch grid"}
        spec = ArraySpec(
            (n_tokens,), np.dtype("uint16"), ("token",), n_tokens, n_tokens, attributes=attributes
        )
        coordinates[name] = (spec, np.indices(grid)[axis].ravel())
    return coordinates


def check_images(image_ids: Iterable[str]) -> list[str]:
    """Return the image ids as a list. Raises UserError for none, an empty or a repeated one."""
    ids = list(image_ids)
    if not ids:
        raise UserError("A store needs at least one image; check the records' splits.")
    if not all(ids):
        raise UserError("An image id is empty; give every record an image_id.")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        # `add` returns None, so an id that is new goes on to the next one.
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise UserError(f"Image id {twice!r} occurs twice; ids must be unique within a store.")
    return ids


class StoreWriter:
    """Begins a store or goes on with an interrupted one, and seals it.

    `arrays` are specs by path; `constants` those whose values are known from the start.
    Raises UserError where `path` holds a store of another identity.
    """

    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, Any],
        arrays: Mapping[str, ArraySpec],
        constants: Mapping[str, tuple[ArraySpec, Array]],
    ) -> None:
        self.path = path
        self.attributes = dict(attributes)
        self.nodes: dict[str, dict[str, Any]] = {}
        for name, spec in arrays.items():
            self._add(name, spec)
        for name, (spec, _) in constants.items():
            self._add(name, spec)
        # The same array may stand at many paths; it is digested once.
        sums = {
            id(rows): digest_text(canonical_json(rows.tolist())) for _, rows in constants.values()
        }
        values = {name: sums[id(rows)] for name, (_, rows) in constants.items()}
        self.identity = digest_text(canonical_json([self.attributes, self.nodes, values]))
        self._claim()
        for name, (spec, rows) in constants.items():
            write_array(path / name, spec, rows)
        for name, node in self.nodes.items():
            publish_json(path / name / META, node, sync=False)
        self._publish_root({"identity": self.identity}, None)

    def add(self, name: str, spec: ArraySpec, rows: Array) -> None:
        """Write a whole array that was not known when the store was begun."""
        write_array(self.path / name, spec, rows)
        self.add_spec(name, spec)

    def add_spec(self, name: str, spec: ArraySpec) -> None:
        """Declare an array whose shards are written elsewhere."""
        self._add(name, spec)
        for node in [name, *_parents(name)]:
            publish_json(self.path / node / META, self.nodes[node], sync=False)

    def seal(self) -> None:
        """Consolidate the metadata: the last file of the store. Drops temporary files."""
        sweep(self.path)
        self._publish_root({"identity": self.identity, "complete": True}, self.nodes)

    def _add(self, name: str, spec: ArraySpec) -> None:
        self.nodes[name] = spec.metadata()
        for group in _parents(name):
            self.nodes.setdefault(group, _group({}, {}))

    def _claim(self) -> None:
        root = self.path / META
        if root.exists():
            attributes = read_json(root).get("attributes", {})
            if attributes.get("identity") != self.identity:
                raise UserError(
                    f"{self.path} holds another store (other images, sizes or format). "
                    f"Delete it (rm -r '{self.path}') and run snakemake again."
                )

    def _publish_root(self, extra: dict[str, Any], nodes: dict[str, dict[str, Any]] | None) -> None:
        attributes = {**self.attributes, **extra}
        if nodes is not None:
            attributes["metadata_sha256"] = _digest(attributes, nodes)
        publish_json(self.path / META, _group(attributes, nodes))


def _group(attributes: dict[str, Any], nodes: dict[str, Any] | None) -> dict[str, Any]:
    group: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    if nodes is not None:
        group["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": nodes,
        }
    return group


def _parents(name: str) -> list[str]:
    return [parent.as_posix() for parent in Path(name).parents if parent != Path(".")]


def _digest(attributes: Mapping[str, Any], nodes: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in attributes.items() if key != "metadata_sha256"}
    return digest_text(canonical_json([kept, nodes]))


@dataclass(frozen=True)
class StoreTree:
    """The metadata of a sealed store, verified."""

    path: Path
    attributes: Mapping[str, Any]
    nodes: Mapping[str, Any]

    def array(self, name: str) -> ArrayReader:
        """Return a reader of the array. Raises UserError where it is missing or damaged."""
        meta = self.path / name / META
        if name not in self.nodes:
            raise damaged(self.path / META, f"it does not list the array {name}")
        if read_json(meta) != self.nodes[name]:
            raise damaged(meta, "it differs from the store's consolidated metadata")
        spec = ArraySpec.parse(self.nodes[name])
        if spec is None:
            raise damaged(meta, "its layout is not the one that vista writes")
        return ArrayReader(self.path / name, spec)


def open_tree(path: Path, kind: str) -> StoreTree:
    """Open the sealed store at `path` whose root attribute `format` is `kind`.

    Raises UserError where there is no store, an unfinished one, one of another format, or where
    its metadata are damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not there: expected a Zarr store ({kind}). Run snakemake.")
    root = read_json(path / META)
    try:
        attributes = root["attributes"]
        stored_kind = attributes.get("format")
        complete = attributes.get("complete", False)
        nodes = root["consolidated_metadata"]["metadata"] if complete else {}
        intact = not complete or _digest(attributes, nodes) == attributes["metadata_sha256"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise damaged(path / META, f"an entry is missing or wrong ({error})") from error
    if stored_kind != kind:
        raise UserError(
            f"{path} is no {kind!r} store but {stored_kind!r}; expected one that vista wrote."
        )
    if not complete:
        raise damaged(path, "its writer did not finish it")
    if not intact:
        raise damaged(path / META, "its content differs from its checksum")
    for name in nodes:
        if not (path / name / META).is_file():
            raise damaged(path / name / META, "the file is missing")
    return StoreTree(path, attributes, nodes)


class DoneLog:
    """The finished shards of one unit: a JSON record for each, written after its files.

    A record counts only while it has the store's identity and its files have the size and
    checksum that it names.
    """

    def __init__(self, folder: Path, base: Path, identity: str) -> None:
        self._folder, self._base, self._identity = folder, base, identity
        self._verified: set[int] = set()

    def record(self, shard: int, images: int, files: Mapping[str, FileSum], **extra: Any) -> None:
        """Write the record of a shard of `images` images; `files` are paths below the base."""
        sums = {
            name: {"bytes": checksum.size, "crc32c": checksum.crc32c}
            for name, checksum in files.items()
        }
        content = {"identity": self._identity, "images": images, "files": sums, **extra}
        publish_json(self._path(shard), content, sync=False)
        self._verified.add(shard)

    def done(self, shards: Iterable[int]) -> set[int]:
        """Return those of `shards` that are finished; each is read and checked once."""
        wanted = set(shards)
        self._verified.update(shard for shard in wanted - self._verified if self._intact(shard))
        return wanted & self._verified

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard:05d}.json"

    def _intact(self, shard: int) -> bool:
        try:
            content = read_json(self._path(shard))
            return content["identity"] == self._identity and all(
                sum_file(self._base / name) == FileSum(checksum["bytes"], checksum["crc32c"])
                for name, checksum in content["files"].items()
            )
        except (UserError, OSError, KeyError, TypeError, AttributeError, ValueError):
            return False
