"""Labels of latents out of Neuronpedia's bulk export of one SAE ("source"); no torch here.

The export is two folders of gzipped JSON lines: `explanations/batch-N.jsonl.gz`, a line for each
explanation (modelId, layer = the source's id, index, description, typeName, explanationModelName),
and `features/batch-N.jsonl.gz`, a line for each latent (modelId, layer, index, frac_nonzero =
share of text tokens that it fires on, and kilobytes of dashboard that are not kept). Files are read
line by line, whatever their size. Empty and repeated rows are left out, counted and printed.

Explanations are untrusted text of people and language models: control characters are removed and
the length is limited, nothing else; escape it before showing it.

Shape legend: s dictionary latent.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vista.config.sae import NeuronpediaSettings
from vista.errors import UserError, reason_of
from vista.foreign.values import integer
from vista.sae.label_table import LatentLabels, plain_text

EXPLANATIONS, FEATURES = "explanations", "features"
# Density of a latent that features/ has no figure for: the masks of the metrics leave it out, as
# they do a latent that was never seen on text.
UNSEEN = 1.0
_MAX_LINE = 2**24  # characters; the longest lines, with vectors, have under a million
_MAX_ID = 100  # characters of a model's, a source's or a type's name
_MAX_LATENT = 2**31  # what is beyond is no number of a latent
_NUMBER = re.compile(r"(\d+)")


def read_export(
    folder: Path,
    settings: NeuronpediaSettings,
    *,
    layer: int,
    d_sae: int,
    sae: str,
    neuronpedia: str | None = None,
) -> LatentLabels:
    """Read the export at `folder` as the labels of an SAE with `d_sae` latents, named `sae`.

    The label of a latent is its first explanation of the first of `settings.explanations` that it
    has, in file order; its other explanations are its contexts, as "type/model: text". A share is
    not published: it is 1 where there is a label. `neuronpedia` is the "model/source" that the
    SAE's release names, where it does; the export must be that one.

    Blank lines are no rows. Rows without text or density, and rows that repeat an earlier one, are
    left out and their numbers printed.

    Raises UserError that names file and line where a line is not what it should be, contradicts an
    earlier one or is of another SAE, and where explanations or, without `settings.density`,
    features are missing.
    """
    source = _Source(folder, settings, layer, d_sae, neuronpedia)
    entries_of: list[list[tuple[str, str]]] = [[] for _ in range(d_sae)]
    sets: set[str] = set()
    for place, row, latent in source.rows(EXPLANATIONS):
        text = row.get("description")
        if text is not None and not isinstance(text, str):
            raise UserError(f"{place}: `description` is not a text; fetch the export again")
        kind = _set_name(row)
        sets.add(kind)
        entry = (kind, plain_text(text or "", settings.max_length))
        if not entry[1]:
            source.left_out["explanations without text"] += 1
        elif entry in entries_of[latent]:
            source.left_out["repeated explanations"] += 1
        else:
            entries_of[latent].append(entry)
    for wanted in settings.explanations:
        if not any(_is_of(kind, wanted) for kind in sets):
            raise UserError(
                f"{folder} has no explanations of {wanted}, only of {', '.join(sorted(sets))}; "
                "correct `explanations`"
            )
    density_s = _density(source, settings.density)
    if source.left_out:
        counts = ", ".join(f"{n} {what}" for what, n in sorted(source.left_out.items()))
        print(f"{folder}: {source.count} rows; left out: {counts}")
    chosen = [_choose(entries, settings.explanations) for entries in entries_of]
    labels = [
        None if at is None else entries[at][1]
        for entries, at in zip(entries_of, chosen, strict=True)
    ]
    return LatentLabels(
        layer=layer,
        sae=sae,
        tokens=0,
        label_s=tuple(labels),
        share_s=np.array([label is not None for label in labels], dtype=np.float32),
        density_s=density_s,
        contexts_s=tuple(
            tuple(f"{kind}: {text}" for i, (kind, text) in enumerate(entries) if i != at)
            for entries, at in zip(entries_of, chosen, strict=True)
        ),
    )


class _Source:
    """Rows of one export, each checked to be of the SAE that is asked for."""

    def __init__(
        self,
        folder: Path,
        settings: NeuronpediaSettings,
        layer: int,
        d_sae: int,
        neuronpedia: str | None,
    ) -> None:
        self.folder = folder
        self.d_sae = d_sae
        self.count = 0  # rows that were read
        self.left_out: Counter[str] = Counter()
        self._layer = layer
        model, source = settings.model, settings.source
        if neuronpedia is not None:
            own_model, _, own_source = neuronpedia.partition("/")
            if (model or own_model, source or own_source) != (own_model, own_source):
                raise UserError(
                    f"the labels of {model or own_model}/{source or own_source} are of another SAE "
                    f"than the one at layer {layer}, whose labels are {neuronpedia}; correct "
                    "`source` under `labels`"
                )
            model, source = own_model, own_source
        elif source is not None:
            self._check_layer(source, "`source` under `labels`")
        self._expected = {"modelId": model, "layer": source}

    def files(self, kind: str) -> list[Path]:
        """Batches of a kind, by number."""
        names = [*self.folder.glob(f"{kind}/*.jsonl.gz"), *self.folder.glob(f"{kind}/*.jsonl")]
        return sorted((path for path in names if not path.name.startswith(".")), key=_natural)

    def rows(self, kind: str) -> Iterator[tuple[str, dict[str, Any], int]]:
        """Yield ("file, line n", row, latent) of every line of a kind."""
        paths = self.files(kind)
        if not paths:
            raise UserError(
                f"{self.folder / kind} has no *.jsonl.gz: not a Neuronpedia export; give the "
                f"folder that holds {EXPLANATIONS}/ and {FEATURES}/"
            )
        for path in paths:
            for number, line in enumerate(_lines(path), start=1):
                if line.isspace():
                    continue
                place = f"{path}, line {number}"
                self.count += 1
                row = _parse(line, place)
                if row is None:
                    self.left_out["rows of null"] += 1
                    continue
                yield place, row, self._latent(row, place)

    def _check_layer(self, source: str, place: str) -> None:
        """Raise UserError where an SAE's id begins with the number of another layer.

        SAEs on a block's input are numbered by the block after; sae_lens' directory lists those,
        and its id is compared instead.
        """
        number = source.partition("-")[0]
        if number.isascii() and number.isdigit() and number != str(self._layer):
            raise UserError(
                f"{place}: labels of {source!r}, but the SAE reads layer {self._layer}; give that "
                "layer's labels"
            )

    def _latent(self, row: dict[str, Any], place: str) -> int:
        for key in ("modelId", "layer"):
            value = row.get(key)
            if not isinstance(value, str):
                raise UserError(f"{place}: no `{key}`; fetch the export again")
            value, expected = plain_text(value, _MAX_ID), self._expected[key]
            if expected is None:
                if key == "layer":
                    self._check_layer(value, place)
                # All rows must be of one SAE, the first one's.
                self._expected[key] = value
            elif value != expected:
                raise UserError(
                    f"{place}: labels of {value!r} where {expected!r} was asked for; give the "
                    "export of this SAE"
                )
        index = integer(row.get("index"))
        if index is None or not 0 <= index < _MAX_LATENT:
            raise UserError(f"{place}: `index` is not the number of a latent; fetch it again")
        if index >= self.d_sae:
            raise UserError(
                f"{place}: latent {index}, but the SAE has {self.d_sae} latents; give the export "
                "of this SAE"
            )
        return index


def _density(source: _Source, default: float | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    if not source.files(FEATURES):
        if default is None:
            raise UserError(
                f"{source.folder} has no {FEATURES}/ and so no densities, by which the matching "
                "rate leaves latents out; fetch them too, or set `density` under `labels`"
            )
        return np.full(source.d_sae, default, dtype=np.float32)
    density_s = np.full(source.d_sae, UNSEEN, dtype=np.float32)
    known_s = np.zeros(source.d_sae, dtype=bool)
    last = 0
    for place, row, latent in source.rows(FEATURES):
        last = max(last, latent)
        value = row.get("frac_nonzero")
        if value is None:
            source.left_out["latents without density"] += 1
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise UserError(f"{place}: `frac_nonzero` is not a share; fetch the export again")
        if known_s[latent]:
            if density_s[latent] != np.float32(value):
                raise UserError(
                    f"{place}: latent {latent} has two densities, {density_s[latent]:g} and "
                    f"{value:g}; keep the line of this SAE's own export"
                )
            source.left_out["repeated densities"] += 1
        density_s[latent] = value
        known_s[latent] = True
    if last < source.d_sae // 2:  # dead latents may be left out, but not the whole upper half
        raise UserError(
            f"{source.folder / FEATURES} ends at latent {last}, but the SAE has {source.d_sae} "
            "latents; give the export of this SAE, with all its batches"
        )
    return density_s


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file, gzipped or not, without a byte order mark."""
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            while line := file.readline(_MAX_LINE):
                number += 1
                if len(line) == _MAX_LINE:
                    raise ValueError(f"more than {_MAX_LINE} characters in a line")
                yield line
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(
            f"{path}, line {number + 1}: cannot be read ({reason_of(error)}); fetch the export "
            "again"
        ) from error


def _parse(line: str, place: str) -> dict[str, Any] | None:
    """The object in a line; None where it is null."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{place}: not JSON ({reason_of(error)}); fetch the export again"
        ) from error
    if row is not None and not isinstance(row, dict):
        raise UserError(f"{place}: not a JSON object; fetch the export again")
    return row


def _set_name(row: dict[str, Any]) -> str:
    """ "type/model" of an explanation; a person's has neither."""
    parts = [row.get(key) for key in ("typeName", "explanationModelName")]
    return "/".join(plain_text(part, _MAX_ID) if isinstance(part, str) else "" for part in parts)


def _is_of(kind: str, wanted: str) -> bool:
    # A model's name may hold slashes, a type's does not.
    return wanted in (kind, kind.partition("/")[0])


def _choose(entries: list[tuple[str, str]], order: tuple[str, ...]) -> int | None:
    if not order:
        return 0 if entries else None
    for wanted in order:
        for at, (kind, _) in enumerate(entries):
            if _is_of(kind, wanted):
                return at
    return None


def _natural(path: Path) -> tuple[tuple[int, int | str], ...]:
    """batch-2 before batch-10; where both a plain and a gzipped one lie there, in this order."""
    parts = _NUMBER.split(path.name)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts)
