"""Pages and files that are written from the code: the command line, a config's keys, the schema.

python -m tests.docs.references          # names those that differ; exit status 1
python -m tests.docs.references --fix    # writes them
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs.cli_page import cli_page
from tests.docs.config_page import config_page
from vista.cli import _parser
from vista.config.run import RunConfig

ROOT = Path(__file__).parents[2]


def schema_text() -> str:
    """Return what `vista schema` prints."""
    return json.dumps(RunConfig.model_json_schema(), indent=1, sort_keys=True) + "\n"


REFERENCES: Mapping[str, Callable[[], str]] = {
    "docs/cli.md": lambda: cli_page(_parser([])),
    "docs/config-reference.md": lambda: config_page(RunConfig.model_json_schema()),
    "config/vista.schema.json": schema_text,
}


def different() -> list[str]:
    """Return the references that are not what the code says."""
    return [
        name
        for name, written in REFERENCES.items()
        if not (ROOT / name).is_file() or (ROOT / name).read_text(encoding="utf-8") != written()
    ]


def main() -> int:
    """Name the references that differ, or write them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--fix", action="store_true", help="write them")
    names = different()
    if parser.parse_args().fix:
        for name in names:
            (ROOT / name).write_text(REFERENCES[name](), encoding="utf-8")
    print(*names, sep="\n")
    return 0 if not names or "--fix" in sys.argv else 1


if __name__ == "__main__":
    sys.exit(main())
