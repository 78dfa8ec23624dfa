"""What a `data:` section may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vista.config.data import (
    DATA_SETTINGS,
    TEXT_SETTINGS,
    CocoData,
    DrawnData,
    annotation_files,
    records_settings,
)


def test_the_kind_decides() -> None:
    assert isinstance(DATA_SETTINGS.validate_python({"kind": "drawn"}), DrawnData)
    coco = DATA_SETTINGS.validate_python(
        {
            "kind": "coco",
            "images": "i",
            "splits": {
                "train": {"instances": "b.json", "captions": "a.json"},
                "test": {"captions": "a.json"},
            },
        }
    )
    assert isinstance(coco, CocoData)
    assert annotation_files(coco) == ["a.json", "b.json"]
    assert records_settings(coco)["splits"]["train"]["captions"] == "a.json"


def test_what_is_drawn_does_not_change_how_records_are_read() -> None:
    assert records_settings(DrawnData(seed=1)) == records_settings(DrawnData(seed=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "drawing"}, "drawing"),
        ({"images": "i"}, "kind"),
        ({"kind": "drawn", "seeds": 1}, "seeds"),
        ({"kind": "drawn", "seed": "one"}, "seed"),
        ({"kind": "drawn", "object_counts": [0.5, 0.5, 0.5]}, "sum to 1"),
        ({"kind": "drawn", "object_size": [30, 20]}, "object_size"),
        ({"kind": "drawn", "object_size": [26, 30]}, "do not fit"),
        ({"kind": "coco", "images": "i"}, "splits"),
        ({"kind": "coco", "images": "i", "files": {}}, "instances"),
        ({"kind": "coco", "images": "i", "splits": {"training": {"captions": "c"}}}, "training"),
        ({"kind": "llava", "images": "i"}, "splits"),
        ({"kind": "llava", "images": "i", "file": "f", "fractions": {"train": 0.9}}, "sum to 1"),
        ({"kind": "folder", "images": "i", "answer": "a {class}"}, "classes: true"),
    ],
)
def test_mistakes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DATA_SETTINGS.validate_python(settings)


def test_text_settings() -> None:
    lines = TEXT_SETTINGS.validate_python({"kind": "lines", "train": "t", "heldout": "h"})
    assert annotation_files(lines) == ["h", "t"]
    with pytest.raises(ValidationError):
        TEXT_SETTINGS.validate_python({"kind": "lines", "train": "t"})
