"""The names of a dictionary's latents as a Parquet table. Read by metrics' stages: no torch here.

Label text may come from anywhere (a corpus, an annotation service): escape it before showing it.

Shape legend: s dictionary latent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vista.errors import UserError, reason_of

FILE = "labels.parquet"
_PAGE_BYTES = 1 << 14
# A page ends only after a batch of values, and the texts of 1,024, as by default, fill eight pages.
_BATCH = 64
# Control signs, and marks that turn the reading direction or are not seen at all.
CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]+"
)

_SCHEMA = pa.schema(
    [
        pa.field("latent", pa.int32(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("share", pa.float32(), nullable=False),
        pa.field("density", pa.float32(), nullable=False),
        pa.field("contexts", pa.list_(pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True)
class LatentLabels:
    """Labels of all latents of one SAE, by latent number.

    layer: block after which the SAE reads; sae: its name; tokens: text tokens behind the figures;
    label_s: word with the largest share of the latent's strong activation, None where no word has
    the required share; share_s: the share of that first word (0 where the latent never fired);
    density_s: share of text tokens on which the latent fires; contexts_s: for each latent its
    strongest places in text, as "activation: snippet with the token in «»"; auroc_s: AUROC of the
    latent as classifier of its label's word on held-out text, NaN where it is not known, None where
    labels were not scored.

    Labels that others wrote (`vista.sae.neuronpedia`) are sentences, None where there is none; then
    tokens is 0, share_s 1 where there is a label, contexts_s the other explanations.
    """

    layer: int
    sae: str
    tokens: int
    label_s: tuple[str | None, ...]
    share_s: np.ndarray[Any, np.dtype[np.float32]]
    density_s: np.ndarray[Any, np.dtype[np.float32]]
    contexts_s: tuple[tuple[str, ...], ...]
    auroc_s: np.ndarray[Any, np.dtype[np.float32]] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where the columns differ in length."""
        sizes = [len(self.label_s), len(self.share_s), len(self.density_s), len(self.contexts_s)]
        if len(set(sizes)) != 1:
            raise ValueError(f"columns of {sizes} latents")


def plain_text(text: str, max_length: int) -> str:
    """Untrusted text as one line of at most `max_length` characters, without control signs."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # half surrogates cannot be written
    text = " ".join(CONTROL.sub(" ", text).split())
    return text if len(text) <= max_length else text[: max_length - 1].rstrip() + "…"


def write_labels(path: Path, labels: LatentLabels) -> None:
    """Write `labels` as Parquet; layer, SAE and token count go into the schema's metadata.

    Columns lie in pages of 16 kB with an index of pages, so that the row of one latent can be read
    alone, and over HTTP. Label is a dictionary, the other columns hardly repeat.
    """
    table = pa.table(
        {
            "latent": np.arange(len(labels.label_s), dtype=np.int32),
            "label": list(labels.label_s),
            "share": np.asarray(labels.share_s, dtype=np.float32),
            "density": np.asarray(labels.density_s, dtype=np.float32),
            "contexts": [list(contexts) for contexts in labels.contexts_s],
        },
        schema=_SCHEMA.with_metadata(
            {"layer": str(labels.layer), "sae": labels.sae, "tokens": str(labels.tokens)}
        ),
    )
    if labels.auroc_s is not None:
        auroc = pa.array(
            np.asarray(labels.auroc_s, dtype=np.float32), mask=np.isnan(labels.auroc_s)
        )
        table = table.append_column("auroc", auroc)
    pq.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=["label"],
        # Least and largest text of a page are of no use, and longer than the index of pages.
        write_statistics=[name for name in table.column_names if name != "contexts"],
        write_page_index=True,
        data_page_size=_PAGE_BYTES,
        write_batch_size=_BATCH,
    )


def read_labels(path: Path) -> LatentLabels:
    """Read what `write_labels` wrote. Raises UserError naming the file on anything else."""
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        auroc_s = None
        if "auroc" in table.column_names:
            auroc_s = table.column("auroc").cast(pa.float32()).to_numpy()
        table = table.select(_SCHEMA.names).cast(_SCHEMA)
        columns = {name: table.column(name) for name in _SCHEMA.names}
        shares = [columns[name].to_numpy() for name in ("share", "density")]
        if not np.isfinite(shares).all():
            raise ValueError("a share or density is no number")
        contexts_s = tuple(tuple(row) for row in columns["contexts"].to_pylist())
        layer, tokens = int(metadata[b"layer"]), int(metadata[b"tokens"])
        sae = metadata[b"sae"].decode()
    except (OSError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise UserError(
            f"{path}: not a table of latent labels ({reason_of(error)}); expected columns "
            f"{', '.join(_SCHEMA.names)} as label_latents writes them"
        ) from error
    if columns["latent"].to_pylist() != list(range(table.num_rows)):
        raise UserError(f"{path}: latents are not 0..{table.num_rows - 1} in order; label again")
    return LatentLabels(
        layer=layer,
        sae=sae,
        tokens=tokens,
        label_s=tuple(columns["label"].to_pylist()),
        share_s=shares[0],
        density_s=shares[1],
        contexts_s=contexts_s,
        auroc_s=auroc_s,
    )
