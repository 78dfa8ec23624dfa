"""What a `data:` section may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vista.config.composed import ComposedData
from vista.config.data import (
    DATA_SETTINGS,
    CocoData,
    FetchFile,
    annotation_files,
    records_settings,
)
from vista.config.drawn import DrawnData
from vista.config.text import TEXT_SETTINGS, text_files


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
        ({"kind": "folder", "images": "i", "every": 0}, "every"),
        ({"kind": "folder", "images": "i", "missing_images": "ignore"}, "missing_images"),
        ({"kind": "folder", "images": "/i", "fetch": [{"url": "https://x/y"}]}, "relative"),
        ({"kind": "folder", "images": "a/../..", "fetch": [{"url": "https://x/y"}]}, "relative"),
        (
            {"kind": "llava", "images": "i", "file": "../f", "fetch": [{"url": "https://x/y"}]},
            "relative",
        ),
        ({"kind": "list", "images": "i", "splits": {}}, "at least 1 item"),
        ({"kind": "webdataset", "images": "i", "splits": {}}, "empty"),
        ({"kind": "webdataset", "images": "i", "image_keys": []}, "image_keys"),
    ],
)
def test_mistakes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DATA_SETTINGS.validate_python(settings)


COMPOSED: dict[str, Any] = {
    "kind": "composed",
    "cutouts": {"map": "m.json", "folder": "c"},
    "grounds": [{"file": "g.png", "name": "grass"}],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grounds": []}, "`grounds` is empty: name a photograph"),
        ({"grounds": [{"name": "x"}]}, "one of `file`, `folder` and `colour`"),
        ({"grounds": [{"file": "g", "folder": "f"}]}, "one of `file`, `folder` and `colour`"),
        ({"grounds": [{"colour": [0, 0, 256]}]}, "from 0 to 255"),
        ({"grounds": [{"colour": [0, 0, 0], "package": "p"}]}, "lies in no package"),
        ({"grounds": [{"file": "../g.png", "package": "p"}]}, "must be relative"),
        ({"cutouts": {"map": "m", "folder": "/c", "package": "p"}}, "must be relative"),
        ({"cutouts": {"map": "m.json"}}, "name the folder of the cut-outs"),
        ({"nouns": ["cat", "cat"]}, "names a noun twice"),
        ({"nouns": []}, "nouns"),
        ({"object_scale": [0.9, 0.5]}, "object_scale must be"),
        ({"object_scale": [0.5, 1.2]}, "object_scale must be"),
        ({"pair_scale": [0.6, 0.7]}, "do not fit side by side"),
        ({"captions": ["a photo."]}, "names no object"),
        ({"captions": ["{objects} of {colour}"]}, r"\{colour\}; there are \{object\}, \{objects\}"),
        ({"captions": ["{objects"]}, "caption '{objects'"),
        ({"captions": ["{objects!r}"]}, "a name and nothing else"),
        ({"captions": ["{object}."]}, "no wording of `captions` is for scenes of two objects"),
        (
            {"captions": ["{objects} on {ground}."], "grounds": [{"colour": [0, 0, 0]}]},
            "scenes of one object on a ground without a name",
        ),
    ],
)
def test_scenes_that_cannot_be_composed_are_refused(changes: dict[str, Any], message: str) -> None:
    assert isinstance(DATA_SETTINGS.validate_python(COMPOSED), ComposedData)
    with pytest.raises(ValidationError, match=message):
        DATA_SETTINGS.validate_python({**COMPOSED, **changes})


def test_wordings_need_to_fit_the_scenes_there_are() -> None:
    alone = {"captions": ["{object} on {ground}."], "pair_share": 0}
    assert isinstance(DATA_SETTINGS.validate_python({**COMPOSED, **alone}), ComposedData)


def test_the_files_of_composed_scenes_are_watched_where_they_are_the_users() -> None:
    grounds = [*COMPOSED["grounds"], {"file": "p.png", "package": "p"}, {"colour": [0, 0, 0]}]
    settings = DATA_SETTINGS.validate_python({**COMPOSED, "grounds": grounds})
    assert annotation_files(settings) == ["g.png", "m.json"]


def test_how_scenes_are_composed_does_not_change_how_records_are_read() -> None:
    first, second, asked = (
        records_settings(DATA_SETTINGS.validate_python({**COMPOSED, **changes}))
        for changes in ({}, {"seed": 1}, {"question": "What?"})
    )
    assert first == second == {"kind": "composed", "question": "Describe the image."}
    assert asked != first


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"url": "http://example.org/a.zip"}, "https"),
        ({"url": "file:///etc/passwd"}, "https"),
        ({"url": "a.zip"}, "https"),
        ({"url": "https://"}, "https"),
        ({"url": "https://x/a.zip", "sha256": "abc"}, "sha256"),
        ({"url": "https://x/a.zip", "folder": "../out"}, "relative"),
        ({"url": "https://x/a.zip", "folder": "/out"}, "relative"),
    ],
)
def test_what_is_fetched_is_safe(file: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FetchFile.model_validate(file)


def test_fetched_files_are_not_watched() -> None:
    rows = {"kind": "llava", "images": "i", "file": "f.json"}
    assert annotation_files(DATA_SETTINGS.validate_python(rows)) == ["f.json"]
    for url in ("https://example.org/f.json", "http://127.0.0.1:8000/f.json"):
        fetched = DATA_SETTINGS.validate_python({**rows, "fetch": [{"url": url}]})
        assert annotation_files(fetched) == []
        assert records_settings(fetched)["fetch"] == [
            {"url": url, "sha256": None, "unpack": True, "folder": ""}
        ]


def test_shards_that_are_named_are_watched() -> None:
    settings = {"kind": "webdataset", "images": "d"}
    assert annotation_files(DATA_SETTINGS.validate_python(settings)) == []
    settings["splits"] = {"train": ["b.tar", "a.tar"], "test": "t-*.tar"}  # type: ignore[assignment]
    assert annotation_files(DATA_SETTINGS.validate_python(settings)) == ["d/a.tar", "d/b.tar"]


def test_text_settings() -> None:
    assert text_files(TEXT_SETTINGS.validate_python({"kind": "captions"})) == []
    lines = TEXT_SETTINGS.validate_python({"kind": "lines", "train": "t", "heldout": "h"})
    assert text_files(lines) == ["h", "t"]
    with pytest.raises(ValidationError):
        TEXT_SETTINGS.validate_python({"kind": "lines", "train": "t"})
