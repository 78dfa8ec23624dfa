"""The note that a fetched artifact carries about where its bytes came from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


def write_source(path: Path, source: Mapping[str, object]) -> None:
    """Write `source` as JSON in one step: a resumed job trusts the note that it finds."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(source, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)
