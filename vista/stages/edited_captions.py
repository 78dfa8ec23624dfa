"""The files of an artifact of edited captions."""

from __future__ import annotations

import pyarrow as pa

# A row a caption, and a description of the edits.
CAPTIONS = "captions.parquet"
FACTS = "edits.json"
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("target", pa.string()),
        pa.field("task", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
        pa.field("coefficient", pa.float64(), nullable=False),
        pa.field("blocks", pa.list_(pa.int32())),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("found", pa.bool_(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("loss_sum", pa.float64(), nullable=False),
        pa.field("loss_tokens", pa.int32(), nullable=False),
    ]
)
