"""Fields that were added later leave earlier settings, and so ids, as they are."""

from __future__ import annotations

from vista.config.base import Settings, later


class _Example(Settings):
    steps: int = 3
    pool: int = later(1, ge=1, description="a field of a later version")


def test_a_later_field_is_dumped_only_where_it_is_set() -> None:
    assert _Example().model_dump(mode="json") == {"steps": 3}
    assert _Example(pool=2).model_dump(mode="json") == {"steps": 3, "pool": 2}


def test_a_later_field_is_read_back_with_its_default() -> None:
    assert _Example(**_Example().model_dump()) == _Example()
