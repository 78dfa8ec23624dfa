"""Images that text files list, with a label each, as records: OpenOOD's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vista.config.data import SPLITS, ListData
from vista.data.images import ImageSource
from vista.data.lines import read_lines, read_names
from vista.data.readers.folder import class_name, image_record
from vista.data.records import Record
from vista.data.skipped import Skipped
from vista.data.splits import Splitter
from vista.errors import UserError
from vista.foreign.values import integer


def list_records(settings: ListData, skipped: Skipped) -> Iterator[Record]:
    """Records of the listed images, in the order of the lists; the id is the path.

    Raises UserError for a list or a file of names that cannot be read or is empty, a line that is
    not `path label`, a label without a name, and an image that is missing, is none or lies outside
    the root folder.
    """
    source = ImageSource(Path(settings.images))
    names = None
    if settings.classes is not None:
        names = read_names(Path(settings.classes), what="class name")
    for split in (split for split in SPLITS if split in settings.splits):
        splitter = Splitter(split, settings)
        path = Path(settings.splits[split])
        for line in read_lines(path, what="`path label`"):
            # With a tab between them both path and label may hold blanks.
            name, _, label = line.rpartition("\t" if "\t" in line else " ")
            name, label = name.strip(), label.strip()
            if not name:
                raise UserError(f"{path}: {line[:80]!r} is not `path label`")
            if splitter.split(name) is None:
                continue
            category = _category(label, names, f"{path}: the label of {name}")
            size = skipped.image_size(source, name, settings, name, f"in {path}")
            if size is not None:
                yield image_record(name, split, size, category)


def _category(label: str, names: list[str] | None, place: str) -> str | None:
    number = integer(label)
    if number is not None and number < 0:
        return None
    if names is None:
        return class_name(label)
    if number is None or number >= len(names):
        raise UserError(
            f"{place} is {label[:40]!r}, not a number below the {len(names)} names of `classes`"
        )
    return class_name(names[number])
